"""The two kinds of process below the supervisor, which forks them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from jobber.cli.processes import DRAIN, INTERRUPT, RELOAD, Plan, importing, obey, say_ready
from jobber.errors import JobberError

if TYPE_CHECKING:
    from flask import Flask

    from jobber.instance import Instance

log = logging.getLogger(__name__)

#: Threads that answer requests, and how many of them ``?wait`` may hold.
_HTTP_THREADS, _WAITERS = 128, 100
#: Seconds that the threads of a worker process get to leave their roles when it stops.
_RESIGNING = 0.5
#: Connections that are open at a time, idle ones included; granian accepts no more.
_CONNECTIONS = 4096


#: What they import, by the kind of process.
_OF_WORKERS = (
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "jobber.consumer",
    "jobber.history",
    "jobber.instance",
    "jobber.janitor",
    "jobber.maintenance",
    "jobber.publishing",
    "jobber.rescue",
    "jobber.webhooks",
    "jobber.worker",
)
_OF_API = ("granian", "jobber.api")
_OF_REDIS = ("redis",)


def prepare(*, api: bool, redis: bool) -> None:
    """Import what the processes need, before they are forked.

    Parameters:
        api: whether there is one that answers HTTP.
        redis: whether the broker is a Redis, whose client kombu imports when it connects.
    """
    names = [*_OF_WORKERS, *(_OF_API if api else ()), *(_OF_REDIS if redis else ())]
    with importing():
        for name in names:
            import_module(name)


def run(role: str, plan: Plan) -> int:
    """Live as ``api`` or ``worker`` until the supervisor ends this process; return its status."""
    return {"api": run_api, "worker": run_worker}[role](plan)


def run_worker(plan: Plan) -> int:
    """Serve queues: the Celery worker, its heartbeat and the maintenance thread."""
    with importing():
        from jobber.consumer import node_name, serve
        from jobber.history import Archivist
        from jobber.instance import Instance
        from jobber.janitor import Janitor
        from jobber.maintenance import Maintenance
        from jobber.publishing import Publisher
        from jobber.rescue import Rescuer
        from jobber.webhooks import Caller
        from jobber.worker import Worker

    instance = Instance(plan.settings.for_jobs(plan.slots), plan.directories)

    def queues() -> tuple[str, ...]:
        return plan.queues or tuple(instance.queues())

    worker = Worker(
        settings=plan.settings,
        name=plan.name,
        tasks=instance.tasks,
        queues=queues,
        slots=plan.slots,
        store=instance.store,
        queueing=instance.queueing,
        sources=instance.sources,
        results=instance.results,
    )
    holder = f"{node_name(worker)}:{uuid.uuid4().hex[:8]}"
    store, queueing, results = instance.store, instance.queueing, instance.results
    maintenance = Maintenance(
        settings=plan.settings, store=store, queueing=queueing, holder=holder, scheduler=instance.scheduler()
    )
    keepers: list[Maintenance | Rescuer | Janitor | Publisher | Caller | Archivist] = [
        maintenance,
        Rescuer(settings=plan.settings, store=store, queueing=queueing, results=results, holder=holder),
        Janitor(store=store, results=results, holder=holder),
        Publisher(settings=plan.settings, store=store, holder=holder),
        Caller(settings=plan.settings, store=store),
        Archivist(store=store, tasks=instance.tasks, history=plan.settings.app.history),
    ]
    keeping = [
        threading.Thread(target=keeper.run, name=type(keeper).__name__.lower(), daemon=True) for keeper in keepers
    ]
    for thread in keeping:
        thread.start()

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def consume() -> None:
        """Serve the queues that the new task files name."""
        for queue in queues():
            instance.queueing.app.control.add_consumer(queue, destination=[node_name(worker)])
        worker.announce_queues()

    def orphaned() -> None:
        log.warning("the supervisor is gone; stopping")
        terminate()
        worker.interrupt()

    obey({DRAIN: terminate, INTERRUPT: worker.interrupt, RELOAD: lambda: _reload(instance, consume)}, orphaned=orphaned)
    status = serve(worker, instance.queueing, queues(), on_ready=say_ready, stir=maintenance.stir, bell=_end(plan))
    for keeper in keepers:
        keeper.stop()
    # They leave their roles to others; one that waits for a database is not waited for.
    deadline = time.monotonic() + _RESIGNING
    for thread in keeping:
        thread.join(max(0.0, deadline - time.monotonic()))
    instance.close()
    return status


def run_api(plan: Plan) -> int:
    """Answer HTTP: granian's main process, which forks the one that builds the app and serves it."""
    with importing():
        from granian import Granian
        from granian.constants import HTTPModes, Interfaces
        from granian.log import LogLevels

    server = Granian(
        "jobber",
        address=plan.host,
        port=plan.port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=_HTTP_THREADS,
        backpressure=_CONNECTIONS,
        http=HTTPModes.http1,
        websockets=False,
        log_level=LogLevels.error,
        respawn_failed_workers=True,
        respawn_interval=0,
        workers_kill_timeout=2,
    )
    server.serve(target_loader=lambda: _app(plan), wrap_loader=False)
    return 0


def _app(plan: Plan) -> Flask:
    with importing():
        from jobber.api import create_app
        from jobber.instance import Instance

    instance = Instance(plan.settings, plan.directories)
    service = instance.service(waiters=_WAITERS, bell=_end(plan), served=plan.queues)
    main = os.getppid()

    def close() -> None:
        # In this order: granian waits for requests that are being answered.
        service.release()
        os.kill(main, signal.SIGTERM)

    def orphaned() -> None:
        close()
        threading.Timer(1.0, os._exit, [0]).start()

    obey({DRAIN: service.drain, INTERRUPT: close, RELOAD: lambda: _reload(instance)}, orphaned=orphaned)
    return create_app(service)


def _end(plan: Plan) -> socket.socket | None:
    """Return this process' end of the bell."""
    return socket.socket(fileno=plan.bell) if plan.bell >= 0 else None


def _reload(instance: Instance, then: Callable[[], None] = lambda: None) -> None:
    """Load the task files anew, as the supervisor has just done with success."""
    try:
        instance.reload()
    except JobberError as error:
        log.error("the old tasks stay: %s", error)
    else:
        then()

"""The Celery side of a worker process: consume wake-ups until a signal, and stop in order."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.worker import WorkController
from celery.worker.control import control_command

from jobber.bell import Doorman
from jobber.queueing import CANCEL, WAKE, Queueing
from jobber.worker import Worker

#: Bytes of a worker's name that fit, with host, process and prefix, into the 255 of a queue's name in RabbitMQ.
_NAME_MAX = 100


def node_name(worker: Worker) -> str:
    """Return the name under which Celery's remote control knows this process."""
    name = worker.name.encode()[:_NAME_MAX].decode(errors="ignore")
    return f"{name}@{os.uname().nodename}.{os.getpid()}"


def serve(
    worker: Worker,
    queueing: Queueing,
    queues: Sequence[str],
    *,
    on_ready: Callable[[], None],
    stir: Callable[[], None] = lambda: None,
    bell: socket.socket | None = None,
) -> int:
    """Consume wake-ups until SIGTERM or SIGINT; the main thread's whole life in a worker process.

    The first signal drains, a second one interrupts what runs. Celery's own handlers are not used: its threads pool
    ignores a second SIGTERM.

    Parameters:
        stir: called with each sign of work, thousands of times a second.
        bell: the end at which this instance's HTTP process rings, if it has one.

    Returns:
        The exit status.
    """
    app = queueing.app

    def work(taken: Callable[[], None] = lambda: None) -> bool:
        stir()
        return worker.work(taken)

    def ended(job_id: str) -> None:
        stir()  # it may be tried again soon
        if doorman is not None:
            doorman.tell(job_id)

    doorman = Doorman(bell, work) if bell is not None else None
    signals = 0

    @app.task(name=WAKE, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
    def wake(queue: str) -> None:
        if not work() and doorman is not None and not signals:
            # Rings took the slots that Celery believes in; what it cannot use here may be of use elsewhere.
            queueing.wake(queue)
            doorman.hold()
            work()

    @control_command(name=CANCEL, visible=False)  # type: ignore[untyped-decorator]
    def cancel(_state: Any, run: int, attempt: int) -> dict[str, bool]:
        return {"cancelled": worker.cancel(run, attempt)}

    controller = WorkController(
        app=app,
        hostname=node_name(worker),
        pool_cls="threads",
        concurrency=worker.slots,
        queues=list(queues),
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        ready_callback=lambda _consumer: on_ready(),
    )

    def leave(_signal: int, _frame: Any) -> None:
        raise WorkerShutdown(0)

    def drain() -> None:
        if doorman is not None:
            doorman.close()
        worker.drain(worker.settings.app.drain_timeout)
        worker.leave()
        # Whatever Celery blocks in, an exception in the main thread ends it; nothing runs that could be hurt.
        last_resort = threading.Timer(0.7, os._exit, [0])
        last_resort.daemon = True
        last_resort.start()
        os.kill(os.getpid(), signal.SIGUSR2)

    def stop(_signal: int, _frame: Any) -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            threading.Thread(target=drain, name="drain").start()
        elif signals == 2:
            threading.Thread(target=worker.interrupt, name="interrupt").start()

    signal.signal(signal.SIGUSR2, leave)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=worker.beat, name="heartbeat", daemon=True).start()
    queueing.ended = ended
    if doorman is not None:
        worker.freed = doorman.freed
        doorman.start()
    controller.start()
    queueing.forget_node(node_name(worker))
    return int(controller.exitcode or 0)

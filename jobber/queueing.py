"""Celery, built from the settings: wake-ups to queues, and the broadcast that carries cancels.

A message carries no job. It tells one worker of a queue to claim, and whoever claims finds out in the store what there
is to do. Lost, doubled or late messages do no harm, so they are sent off the caller's path and coalesced.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app import amqp as celery_amqp
from kombu.connection import Connection
from kombu.transport import TRANSPORT_ALIASES

from jobber import filequeue, rabbitqueue
from jobber.bell import Bell
from jobber.config import Settings
from jobber.errors import BrokerUnavailable

log = logging.getLogger(__name__)

# Named, not imported: kombu does that where the broker is a Redis, whose client takes long to import.
TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "jobber.redisqueue:Transport"

#: Names of the Celery task and of the remote-control command that workers answer to.
WAKE = "jobber.wake"
CANCEL = "jobber_cancel"

#: Wake-ups that may wait in a queue: enough for every idle slot to be woken through the chain that workers pass on.
_ENOUGH = 16
#: Seconds between two rounds of wake-ups of one process, and after one that found enough waiting: nobody has a free
#: slot then, and who gets one finds those. What comes within is coalesced.
_PAUSE, _REST = 0.005, 0.05
#: A message file older than this many seconds has no reader left.
_STALE = 60
#: Seconds of silence before the system asks whether Redis' machine is there, between two such questions, and how many
#: stay unanswered before the connection breaks; by itself it asks after two hours. Not on every system.
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}.items()
    if hasattr(socket, name)
}
#: Seconds between RabbitMQ's heartbeats; a worker connects anew when two are missing.
_HEARTBEAT = 10


class _Connection(Connection):
    """kombu's connection: tries again every few seconds, not every 30, and tells no log its address."""

    def ensure_connection(self, *arguments: Any, **options: Any) -> Connection:
        """Connect, as often as it takes."""
        often = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2}
        connection: Connection = super().ensure_connection(*arguments, **often | options)  # type: ignore[no-untyped-call]
        return connection

    def as_uri(self, *_: Any, **__: Any) -> str:
        """Return the words by which Celery's log messages call the broker."""
        return "the broker"


class _AMQP(celery_amqp.AMQP):  # type: ignore[misc]  # Celery has no types
    Connection = _Connection


class _RabbitAMQP(rabbitqueue.AMQP):
    Connection = _Connection


def build(settings: Settings) -> Celery:
    """Return the Celery app of this instance: late acknowledgement, one message a slot, no result backend."""
    rabbitmq = settings.broker.rabbitmq
    url, tls = rabbitqueue.with_tls(settings.broker.url) if rabbitmq else (settings.broker.url, None)
    app = Celery(
        "jobber",
        broker=f"{filequeue.SCHEME}://localhost//" if embedded(settings) else url,
        amqp=_RabbitAMQP if rabbitmq else _AMQP,
        set_as_current=False,
    )
    app.conf.update(
        task_default_queue=settings.app.default_queue,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_pool="threads",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=4,
        broker_pool_limit=2,
        broker_transport_options=_transport_options(settings),
        control_queue_ttl=60,
        control_queue_expires=60,
    )
    if rabbitmq:
        app.conf.update(
            broker_use_ssl=tls,
            broker_heartbeat=_HEARTBEAT,
            # RabbitMQ before 4.3 closes the channel of a worker that is busy for 30 minutes: consumer_timeout.
            broker_channel_error_retry=True,
            # Celery would raise it again from threads of the pool, and py-amqp is no client for several threads.
            worker_enable_prefetch_count_reduction=False,
            task_default_delivery_mode="transient",
            # Durable and expiring, as all queues: one that is exclusive would be locked until a lost connection ends.
            control_queue_durable=True,
            control_queue_exclusive=False,
        )
    return app


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker.rabbitmq:
        # Who sends tries once, and once more over a new connection; workers look for work themselves.
        return {"key_prefix": settings.broker.key_prefix, "max_retries": 0}
    if not embedded(settings):
        return {
            "global_keyprefix": settings.broker.key_prefix,
            # A worker that waits for ever on a connection that a restart of Redis cut is alive and deaf.
            "socket_timeout": 30,
            "socket_connect_timeout": 4,
            "socket_keepalive": True,
            "socket_keepalive_options": _KEEPALIVE,
            "health_check_interval": 10,
            # Seconds that one BRPOP waits. A queue that a reload brings is asked for with the next one.
            "polling_interval": 1,
        }
    folder = broker_folder(settings)
    make_folders(folder)
    return {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "processed_folder": str(folder / "taken"),
        # Of most jobs of their own instance workers hear by the bell.
        "polling_interval": 0.05,
    }


def embedded(settings: Settings) -> bool:
    """Whether the broker is the filesystem transport in the data folder."""
    return settings.broker.url.startswith("filesystem:")


def broker_folder(settings: Settings) -> Path:
    """Return the folder of the embedded broker."""
    return settings.app.data_dir.absolute() / "broker"


def make_folders(folder: Path) -> None:
    """Create what the embedded broker needs, also after somebody wiped it."""
    for part in ("messages", "control", "taken"):
        (folder / part).mkdir(parents=True, exist_ok=True)


def sweep_folder(settings: Settings) -> None:
    """Remove message files of the embedded broker that nobody will read any more.

    What was addressed to workers that are gone stays otherwise, and every poll lists the folder.
    """
    if not embedded(settings):
        return
    now = time.time()
    folder = broker_folder(settings)
    make_folders(folder)
    for part in ("taken", "messages"):
        for path in (folder / part).iterdir():
            with suppress(FileNotFoundError):  # another instance was faster
                if now - path.stat().st_mtime >= _STALE:
                    path.unlink()


class Queueing:
    """Sends wake-ups and cancels from a thread of its own; nobody waits for the broker.

    A wake-up that a worker of this instance answers by the bell needs no broker: it claims, and passes on what it sees.

    Parameters:
        app: from ``build``.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._bell: Bell | None = None
        #: Told of each attempt of a job that ended in this process, by the job's ID.
        self.ended: Callable[[str], None] = lambda _job_id: None
        self._changed = threading.Condition()
        self._wakes: Counter[str] = Counter()
        self._cancels: list[tuple[int, int]] = []
        self._closed = False
        self._minded = False  # whether the thread looks by itself for rings that nobody answers
        self._thread: threading.Thread | None = None

    def use(self, bell: Bell) -> None:
        """Ring for workers of this instance before others are told."""
        self._bell = bell
        bell.start(self._tell)

    def wake(self, queue: str, slots: int = 1) -> None:
        """Tell up to ``slots`` idle workers of ``queue`` that there may be something to claim."""
        slots = min(slots, _ENOUGH)
        if self._bell is not None:
            wanted = slots
            while slots and self._bell.ring(queue):
                slots -= 1
            if slots < wanted:  # somebody must look whether rings are answered
                with self._changed:
                    if not self._minded:
                        self._start()
        # Where enough is to be sent already it is sent after this, and nobody has to wait for the lock to say so.
        if slots and (self._wakes[queue] < _ENOUGH or self._thread is None):
            self._tell(queue, slots)

    def _tell(self, queue: str, slots: int = 1) -> None:
        with self._changed:
            self._wakes[queue] = min(self._wakes[queue] + slots, _ENOUGH)
            self._start()

    def cancel(self, run: int, attempt: int) -> None:
        """Tell every worker that this attempt is to stop; the one that holds it does. Heartbeats find out anyway."""
        with self._changed:
            self._cancels.append((run, attempt))
            self._start()

    def forget_node(self, node: str) -> None:
        """Remove the remote-control mailbox of a worker process that ends; else every broadcast would fill it."""
        mailbox = f"{node}.{self.app.control.mailbox.namespace}.pidbox"
        try:
            with self.app.connection_for_write() as connection:
                connection.default_channel.queue_delete(mailbox)
        except Exception as error:  # noqa: BLE001  # of whichever client; it costs a mailbox
            log.debug("mailbox %s stays: %s", mailbox, type(error).__name__)

    def close(self) -> None:
        """Send what is left, wait for it a moment, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(1)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._send_all, name="wake-ups", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # as many threads as the system allows; the next one tries again
                log.warning("wake-ups are not sent: %s", error)
                return
            self._thread = thread
        self._changed.notify()

    def _await(self) -> None:
        """Wait until there is something to send; rings that nobody answered in time are."""
        while True:
            late, patience = self._bell.overdue() if self._bell is not None else ([], None)
            self._wakes.update(late)
            self._minded = patience is not None
            if self._wakes or self._cancels or self._closed:
                return
            self._changed.wait(patience)

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._await()
                if self._closed and not (self._wakes or self._cancels):
                    return
                wakes, self._wakes = self._wakes, Counter()
                cancels, self._cancels = self._cancels, []
            pause = _PAUSE
            try:
                pause = self._send_again(wakes, cancels)
            except Exception as error:  # noqa: BLE001  # each client has its own tree; this thread must outlive all
                # Nothing is lost: idle workers look for work themselves, heartbeats carry cancels.
                log.warning("the broker cannot be reached (%s); workers look for work themselves", reason(error))
            time.sleep(pause)

    def _send_again(self, wakes: Counter[str], cancels: list[tuple[int, int]]) -> float:
        """Send, and after an error once more over a new connection; twice does no harm."""
        try:
            return self._send(wakes, cancels)
        except Exception as error:  # noqa: BLE001
            # The broker may have closed the connection while there was nothing to send.
            log.debug("sending again: %s", type(error).__name__)
            return self._send(wakes, cancels)

    def _send(self, wakes: Counter[str], cancels: list[tuple[int, int]]) -> float:
        """Send; return the seconds until the next round."""
        enough = bool(wakes)
        with self.app.producer_or_acquire() as producer:
            try:
                for queue, slots in wakes.items():
                    waiting = self.app.amqp.queues[queue](producer.channel).queue_declare().message_count
                    enough = enough and waiting >= _ENOUGH
                    for _ in range(min(slots, _ENOUGH - waiting)):
                        self.app.send_task(
                            WAKE, (queue,), queue=queue, producer=producer, retry=False, ignore_result=True
                        )
            except Exception:
                # An answer that comes after all must not be taken for that to the next question.
                producer.connection.collect()
                raise
        for run, attempt in cancels:
            self.app.control.broadcast(CANCEL, arguments={"run": run, "attempt": attempt})
        return _REST if enough else _PAUSE


def ping(app: Celery) -> None:
    """Connect to the broker and ask it for the default queue.

    Raises:
        BrokerUnavailable: nobody answers there, or lets this user in; the message says which.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=4)
            app.amqp.queues[app.conf.task_default_queue](connection.default_channel).queue_declare()
    except Exception as error:
        raise BrokerUnavailable(f"the broker cannot be used: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Say why the broker cannot be used, without its address."""
    cause = error.__cause__ or error
    inner: BaseException | None = cause
    while inner is not None:  # redis-py puts the address into its own words and keeps the system's inside
        if isinstance(inner, rabbitqueue.Refused):
            return str(inner)
        if isinstance(inner, TimeoutError):
            return "no answer in time"
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return type(cause).__name__

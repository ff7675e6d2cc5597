"""State changes told to a broker: a topic exchange that anybody may bind queues to.

The state database holds what is to be told (``store.outbox``). One process of all reads it in order, publishes, and
removes what the broker has taken: each change at least once, and those of one job in order. While the broker is away
the rows wait. What it refuses for its size goes without arguments, so that nothing waits behind it for ever.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from amqp.exceptions import AccessRefused, ContentTooLarge, MessageNacked, PreconditionFailed
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.messaging import Producer

from jobber import notifications, rabbitqueue
from jobber.config import Settings
from jobber.errors import BrokerUnavailable, StateUnavailable
from jobber.leading import Role
from jobber.queueing import reason
from jobber.store import Store, outbox
from jobber.store.outbox import Told

log = logging.getLogger(__name__)

ROLE = "events"
#: Seconds of the leader's lease, at most: when it dies, nobody publishes for so long.
_LEASE = 6.0
#: Seconds between two looks for changes, when there were none.
_TICK = 0.1
#: Changes that are read, published and removed in one go.
_BATCH = 200
#: Seconds before a broker that is away is tried again: at first, and at most.
_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
#: Seconds that a broker gets to answer.
_PATIENCE = 10.0
#: Seconds that changes wait before it is said that they do, and how often it is said.
_LATE, _REMINDER = 60.0, 60.0


class Publisher:
    """Publishes changes. Every worker process runs one; one of all acts at a time.

    Parameters:
        holder: a name of this process that no other has.
    """

    def __init__(self, *, settings: Settings, store: Store, holder: str) -> None:
        self._settings = settings
        self._store = store
        self._broker = _Broker(settings)
        self._role = Role(store, ROLE, holder, lease=min(_LEASE, settings.app.lease / 2))
        self._over = threading.Event()
        self._singly = 0  # changes that are published one by one, for one of them was refused
        self._reminded = float("-inf")

    def stop(self) -> None:
        """End ``run`` after the step that it is in."""
        self._over.set()

    def run(self) -> None:
        """Publish what is to be told, until stopped; in a thread of its own. Returns at once without events."""
        wait = pause = _TICK
        while self._settings.events.enabled and not self._over.wait(wait):
            try:
                wait = self._step()
                pause = _PAUSE
            except StateUnavailable as error:
                log.warning("changes of state are not published for now: %s", error)
                wait = _PAUSE
            except Exception as error:  # noqa: BLE001  # each client has its own tree; this thread must outlive all
                self._broker.close()
                log.warning("changes of state wait: the broker that is to be told is away (%s)", reason(error))
                wait, pause = pause, min(pause * 2, _LONGEST_PAUSE)
                self._remind()
        self._broker.close()
        self._role.resign()

    def _step(self) -> float:
        """Publish a batch if this process is the one to do so; return the seconds until the next step."""
        if not self._role.held():
            self._broker.close()
            return _TICK
        told = self._store.outbox.waiting(1 if self._singly else _BATCH)
        if self._singly:
            for change in told:
                self._tell(change)
            self._singly = self._singly - 1 if told else 0
        elif told:
            self._singly = len(told)  # should this fail: one may be refused, or all be too much at once
            try:
                self._broker.publish(told)
            except _Refused:
                self._broker.close()
                return 0.0
            self._singly = 0
        self._store.outbox.remove([change.id for change in told])
        return 0.0 if self._singly or len(told) == _BATCH else _TICK

    def _tell(self, change: Told) -> None:
        """Publish one change, without arguments if it is refused with them; what is refused then, too, is logged."""
        problem: _Refused | None = None
        for args in (True, False):
            try:
                self._broker.publish([change], args=args)
            except _Refused as error:
                self._broker.close()
                problem = error
            else:
                break
        else:
            what = "change %d is not told, so that others are: %s; %s"
            log.error(what, change.id, _name(change), problem, exc_info=problem)
            return
        if problem is not None:
            log.warning("change %d is told without arguments: %s; %s", change.id, _name(change), problem)

    def _remind(self) -> None:
        """Say from time to time how much waits: it is never dropped."""
        if time.monotonic() - self._reminded < _REMINDER:
            return
        try:
            check(self._store)
        except BrokerUnavailable as error:
            self._reminded = time.monotonic()
            log.warning("%s", error)
        except StateUnavailable:
            return


def _name(change: Told) -> str:
    if change.job is not None:
        return f"{change.event} of job {change.job.job_id}, run {change.job.run}"
    assert change.group is not None  # noqa: S101  # it is one of the two
    return f"{change.event} of group {change.group.group_id}, run {change.group.run}"


def check(store: Store) -> None:
    """Raise BrokerUnavailable if changes of state have waited for long: the broker is away, or nobody publishes."""
    count, oldest = store.outbox.size()
    if oldest > _LATE:
        many = f"{count} or more" if count >= outbox.MANY else str(count)
        raise BrokerUnavailable(f"{many} changes of state wait for the broker of events, the oldest for {oldest:.0f} s")


def ask(settings: Settings, store: Store) -> None:
    """Raise BrokerUnavailable if changes wait for long, or a broker of their own does not answer."""
    with contextlib.suppress(StateUnavailable):  # said of the state itself, and none waits where it has no tables yet
        check(store)
    if settings.events.url:
        broker = _Broker(settings)
        try:
            broker.connect()
        except Exception as error:
            raise BrokerUnavailable(f"the broker of events cannot be used: {reason(error)}") from error
        finally:
            broker.close()


class _Refused(Exception):
    """Raised for a message that the broker will never take, or that cannot be built; not for one that is away."""


class _Broker:
    """The connection to the broker that is told; made when it is needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.events.url or settings.broker.url
        self._exchange: Any = Exchange(settings.events.exchange, "topic", durable=True)  # type: ignore[no-untyped-call]
        self._connection: Any = None  # kombu has no types worth the name
        self._confirms: _Confirms | None = None
        self._channel: Any = None

    def publish(self, told: Sequence[Told], *, args: bool = True) -> None:
        """Publish changes in order; return once the broker has them.

        Parameters:
            args: whether the jobs' arguments are told, too.

        Raises:
            _Refused: one of them cannot be told so; the connection is of no more use.
        """
        if self._connection is None:
            self.connect()
        try:
            self._publish(told, args=args)
        # RabbitMQ says so of what is larger than its max_message_size.
        except (PreconditionFailed, ContentTooLarge) as error:
            raise _Refused(error.reply_text) from error

    def _publish(self, told: Sequence[Told], *, args: bool) -> None:
        producer: Any = Producer(self._channel, exchange=self._exchange, auto_declare=False)  # type: ignore[no-untyped-call]
        for change in told:
            key, body = self._message(change, args=args)
            if self._confirms is not None:
                self._confirms.expect()
            producer.publish(
                body,
                routing_key=key,
                delivery_mode="persistent",
                content_type="application/json",
                content_encoding="utf-8",
                message_id=str(change.id),
                app_id="jobber",
            )
        if self._confirms is not None:
            self._confirms.wait()

    def _message(self, change: Told, *, args: bool) -> tuple[str, bytes]:
        """Return the routing key and the body."""
        try:
            if change.job is not None:
                key = f"job.{change.job.state.value}"
                message = notifications.of_job(self._settings, change.event, change.at, change.job)
            else:
                assert change.group is not None  # noqa: S101  # it is one of the two
                key = f"group.{change.group.state.value}"
                message = notifications.of_group(self._settings, change.event, change.at, change.group)
            return key, notifications.encoded(message if args else notifications.without_args(message))
        except Exception as error:  # whatever is wrong with it, it must not hold up the others
            raise _Refused(f"it cannot be built ({type(error).__name__})") from error

    def connect(self) -> None:
        """Connect, and see to it that there is the exchange."""
        url, tls = rabbitqueue.with_tls(self._url)
        rabbitmq = url.startswith("amqp")
        # Queues on Redis are the consumers' own, so no prefix stands before their names.
        options = {} if rabbitmq else {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
        connection: Any = Connection(url, ssl=tls, connect_timeout=_PATIENCE / 2, transport_options=options)  # type: ignore[no-untyped-call]
        self._connection = connection
        self._channel = self._connection.channel()
        try:
            self._exchange(self._channel).declare()
        except (AccessRefused, PreconditionFailed) as error:
            # It may be there already, made by somebody who may, or in another way.
            log.info("the exchange %s is taken as it is: %s", self._exchange.name, type(error).__name__)
            self._channel = self._connection.channel()
            self._exchange(self._channel).declare(passive=True)
        self._confirms = _Confirms(self._channel) if rabbitmq else None

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.collect(socket_timeout=1)
            except Exception as error:  # noqa: BLE001
                log.debug("closing the connection to the broker of events: %s", type(error).__name__)


class _Confirms:
    """Waits until RabbitMQ has what was published, once for many messages: kombu's own way waits after each.

    https://www.rabbitmq.com/docs/confirms#publisher-confirms
    """

    def __init__(self, channel: Any) -> None:
        self._connection = channel.connection
        self._published = 0  # which is the delivery tag of the last message, too
        self._open: set[int] = set()
        self._refused = False
        channel.basic_publish = channel._basic_publish
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)

    def expect(self) -> None:
        """Take note that a message is to be published now."""
        self._published += 1
        self._open.add(self._published)

    def wait(self) -> None:
        """Wait until RabbitMQ has all of them.

        Raises:
            MessageNacked: it could not take one.
            TimeoutError: it does not say.
        """
        deadline = time.monotonic() + _PATIENCE
        while self._open:
            self._connection.drain_events(timeout=max(0.01, deadline - time.monotonic()))
        if self._refused:
            raise MessageNacked

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._open -= {other for other in self._open if other <= tag} if multiple else {tag}

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused = True
        self._on_ack(tag, multiple)

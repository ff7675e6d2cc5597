"""kombu's RabbitMQ transport: a prefix before every name, bounded waits, and queues that suit wake-ups.

Wake-ups may be lost, so a queue is a classic one on one node, and its messages are transient. It is durable all the
same, because RabbitMQ 4.3 refuses queues that are neither durable nor exclusive
(https://www.rabbitmq.com/docs/queues#durability), and it goes by itself when nobody has used it for an hour: queues
that are not served any more would stay for ever. They hang on the default exchange, so no exchange stays either.
"""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from amqp.exceptions import AccessRefused, NotAllowed, PreconditionFailed, RecoverableConnectionError
from celery.app import amqp as celery_amqp
from kombu.entity import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES, pyamqp

#: Seconds without a consumer or a wake-up after which RabbitMQ deletes a queue.
EXPIRES = 3600
#: Seconds that an answer of RabbitMQ, or room in the socket, is waited for.
PATIENCE = 5.0
#: Seconds before a worker that may not use its queues hears so.
_PAUSE = 1.0


class Refused(RecoverableConnectionError):  # type: ignore[misc]  # py-amqp has no types
    """Raised when RabbitMQ lets this user not in; what is wrong may be put right there, so it is tried again."""


class Channel(pyamqp.Channel):
    """A channel on which every exchange and queue has the prefix of its connection."""

    def __init__(self, connection: Connection, *arguments: Any, **options: Any) -> None:
        self._prefix = connection.key_prefix
        super().__init__(connection, *arguments, **options)

    def exchange_declare(self, exchange: str, type: str, **options: Any) -> Any:
        """Declare an exchange."""
        return super().exchange_declare(self._named(exchange), type, **options)

    def queue_declare(self, queue: str = "", passive: bool = False, **options: Any) -> Any:
        """Declare a queue; one that exists with other arguments is taken as it is.

        On a channel of its own: RabbitMQ closes the channel on which it refuses something, with all its consumers.
        """
        if self.connection is None:
            raise RecoverableConnectionError("the connection is closed")
        declare = super(Channel, self.connection.spare()).queue_declare
        try:
            return declare(self._named(queue), passive, **options)
        except PreconditionFailed:
            return declare(self._named(queue), passive=True)
        except AccessRefused:
            time.sleep(_PAUSE)  # Celery tries again at once, and says so each time
            raise Refused(f"the user may not use queues that begin with {self._prefix}") from None

    def queue_bind(self, queue: str, exchange: str = "", **options: Any) -> Any:
        """Bind a queue to an exchange."""
        return super().queue_bind(self._named(queue), self._named(exchange), **options)

    def queue_delete(self, queue: str = "", **options: Any) -> Any:
        """Delete a queue."""
        return super().queue_delete(self._named(queue), **options)

    def basic_consume(self, queue: str = "", consumer_tag: str = "", **options: Any) -> Any:
        """Start to consume from a queue."""
        return super().basic_consume(self._named(queue), consumer_tag, **options)

    def basic_publish_confirm(self, msg: Any, exchange: str = "", routing_key: str = "", **options: Any) -> Any:
        """Publish, and wait until RabbitMQ has the message."""
        if exchange:
            exchange = self._named(exchange)
        else:  # the default exchange takes the name of a queue
            routing_key = self._named(routing_key)
        return super().basic_publish_confirm(msg, exchange, routing_key, **options)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge a message; one that came over a connection that is gone goes to another worker, which is fine."""
        with suppress(OSError, RecoverableConnectionError):
            super().basic_ack(delivery_tag, multiple)

    def prepare_queue_arguments(self, arguments: dict[str, Any] | None, **options: Any) -> dict[str, Any]:
        """Return the arguments that a queue is declared with; the type, as a virtual host may have another default."""
        wanted: dict[str, Any] = super().prepare_queue_arguments(arguments, **options)  # type: ignore[no-untyped-call]
        return {"x-queue-type": "classic", "x-expires": EXPIRES * 1000} | wanted

    def _named(self, name: str) -> str:
        return self._prefix + name


class Connection(pyamqp.Connection):
    """A connection of which every wait has an end.

    Parameters:
        key_prefix: of every name.
        options: of ``amqp.Connection``.
    """

    Channel = Channel

    def __init__(self, *, key_prefix: str = "", **options: Any) -> None:
        self.key_prefix = key_prefix
        self._spare: Any = None
        # Unconfirmed, a message over a connection that RabbitMQ has closed would be lost without a word.
        super().__init__(confirm_publish=True, read_timeout=PATIENCE, write_timeout=PATIENCE, **options)

    def spare(self) -> Any:
        """Return a channel for what RabbitMQ may refuse; py-amqp opens it anew after a refusal."""
        if self._spare is None:
            self._spare = self.channel()
        return self._spare


class _Common:
    """What both transports do in another way than kombu's."""

    def establish_connection(self) -> Connection:
        """Connect; a refusal at the door becomes ``Refused``."""
        try:
            connection: Connection = super().establish_connection()  # type: ignore[misc]
        except AccessRefused:
            raise Refused("the user or the password is wrong") from None
        except NotAllowed:
            raise Refused("there is no such virtual host, or the user may not use it") from None
        return connection

    def on_readable(self, connection: Connection, loop: Any) -> None:  # noqa: ARG002  # kombu's signature
        """Read all that has come; kombu's way leaves a call behind that fails loudly when the connection breaks."""
        with suppress(TimeoutError):
            while connection.connected:
                connection.drain_events(timeout=0)
        if not connection.connected:
            raise RecoverableConnectionError("RabbitMQ closed the connection")


class Transport(_Common, pyamqp.Transport):
    """kombu's RabbitMQ transport with the connection above."""

    Connection = Connection


class SSLTransport(_Common, pyamqp.SSLTransport):
    """The same over TLS."""

    Connection = Connection


def with_tls(url: str) -> tuple[str, dict[str, Any] | None]:
    """Return a URL without its TLS options, and what they say; None without TLS.

    The certificate is checked, and that it is this host's, unless ``ssl_cert_reqs=none`` says otherwise.
    """
    address, _, query = url.partition("?")
    if not address.startswith("amqps:"):
        return address, None
    options: dict[str, Any] = {key.removeprefix("ssl_"): value for key, value in parse_qsl(query)}
    if options.pop("cert_reqs", "required") == "none":
        return address, options | {"cert_reqs": ssl.CERT_NONE}
    # kombu puts the host's name in place of None.
    return address, options | {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}


class Queues(celery_amqp.Queues):  # type: ignore[misc]  # Celery has no types
    """Celery's queues, all of them on the default exchange, whoever names them first."""

    def add_compat(self, name: str, **_: Any) -> Queue:
        """Add a queue by its name."""
        queue: Queue = self.add(self.new_missing(name))
        return queue


class AMQP(celery_amqp.AMQP):  # type: ignore[misc]
    """What Celery makes its queues with."""

    queues_cls = Queues
    default_exchange = Exchange("")  # type: ignore[no-untyped-call]

    @staticmethod
    def autoexchange(_name: str) -> Exchange:
        """Return the exchange of a queue that is named for the first time."""
        return AMQP.default_exchange


TRANSPORT_ALIASES["amqp"] = f"{__name__}:Transport"
TRANSPORT_ALIASES["amqps"] = f"{__name__}:SSLTransport"

"""kombu's Redis transport, made to outlive Redis.

When Redis goes away while wake-ups are being worked on, kombu 5.7 puts unacknowledged messages back through, or
acknowledges them on, a channel that is closed already; the attribute error that follows ends the whole worker (seen in
one of two restarts of Redis under load). A wake-up carries no job, so one that is lost or repeated does no harm.

``queueing`` tells kombu to take it for ``redis://``.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """A channel that lets messages go when its connection breaks."""

    #: Whether unacknowledged messages are put back when the channel closes.
    do_restore = False

    def close(self) -> None:
        """Close the connection, whatever it waits for: kombu waits until the BRPOP is answered that it has sent."""
        waiting: Any = self._in_poll
        self._in_poll = False
        if waiting:
            waiting.disconnect()
        super().close()  # type: ignore[no-untyped-call]

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge a message, unless the connection that it came over is gone."""
        if not self.closed:
            super().basic_ack(delivery_tag, multiple)  # type: ignore[no-untyped-call]


class Transport(redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel

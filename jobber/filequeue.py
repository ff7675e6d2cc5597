"""The embedded broker: kombu's filesystem transport, made safe for several processes.

kombu 5.7 creates a message file first and locks and fills it afterwards; another process that takes it in between reads
nothing, and the decoding error ends its worker (seen within 800 jobs on ten threads). Here a message appears under its
name only when it is complete.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem

#: The URL scheme under which kombu finds this transport.
SCHEME = "jobber-files"

#: How often, and at what interval in seconds, an exchange's table that is being written is read again.
_READS, _PAUSE = 50, 0.01
#: Nanoseconds after which a folder's time of change has moved on: the next change shows.
_TICKED = 2_100_000_000


class Channel(filesystem.Channel):
    """A channel whose messages appear whole or not at all, each taken by one process."""

    def __init__(self, connection: Any, **options: Any) -> None:
        super().__init__(connection, **options)  # type: ignore[no-untyped-call]
        self._empty: dict[str, int] = {}  # by queue: when the folder was changed in which it had no message

    def _put(self, queue: str, payload: dict[str, Any], **kwargs: Any) -> None:  # type: ignore[override]  # noqa: ARG002
        name = f"{time.monotonic_ns():020}_{uuid.uuid4()}.{_file_name(queue)}.msg"
        folder = Path(self.data_folder_out)
        # Readers look for names that end in ".msg".
        unfinished = folder / f"{name}.new"
        unfinished.write_text(json.dumps(payload))
        unfinished.rename(folder / name)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002  # kombu's signature
        folder, taken = self.data_folder_in, self.processed_folder
        try:
            changed = os.stat(folder).st_mtime_ns
            # Asked twenty times a second for each queue; to list the folder takes much longer than this.
            if self._empty.get(queue) == changed:
                raise Empty
            sure = abs(time.time_ns() - changed) > _TICKED
            names = os.listdir(folder)
        except FileNotFoundError:
            raise Empty from None
        # Time and UUID hold no dot, a queue's name may.
        ending = f"{_file_name(queue)}.msg"
        for name in sorted(name for name in names if name.partition(".")[2] == ending):
            there, here = f"{folder}/{name}", f"{taken}/{name}"
            try:
                # One process wins the rename.
                os.rename(there, here)
            except FileNotFoundError:
                sure = False  # it may be the folder that is missing
                continue
            message: dict[str, Any] = json.loads(Path(here).read_text())
            Path(here).unlink(missing_ok=True)
            return message
        if sure:
            self._empty[queue] = changed
        raise Empty

    def get_table(self, exchange: str) -> list[Any]:
        """Return the bindings of an exchange; its file may be in the middle of being written."""
        for _ in range(_READS):
            try:
                return list(super().get_table(exchange))  # type: ignore[no-untyped-call]
            except ValueError:
                time.sleep(_PAUSE)
        return []

    def _exchange_file(self, exchange: str) -> Path:
        """Return the file that holds an exchange's table.

        kombu refuses names that Windows could not give to a file (``reports:eu``, ``aux``), and a worker that serves
        such a queue would not start.
        """
        folder: Path = self.control_folder
        return folder / f"{_file_name(exchange)}.exchange"


class Transport(filesystem.Transport):
    """kombu's filesystem transport with the channel above."""

    Channel = Channel


def _file_name(name: str) -> str:
    """Return a name of a queue or an exchange without slashes: that of a worker's mailbox may hold some."""
    return name.replace("/", "%")


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"

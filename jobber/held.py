"""What a worker process holds: attempts that it was given, until it is written down how they ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from jobber import execution
from jobber.cancellation import Cancellation
from jobber.expecting import Attempt
from jobber.joblog import JobLog
from jobber.jobs import Micros
from jobber.store import Progress, Success

#: Seconds for which a claim may be on its way.
_STRANGE = 20.0


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that this process runs, claimed under the worker ID that it had then."""

    worker: int
    token: Cancellation
    attempt: Attempt
    log: JobLog

    @property
    def progress(self) -> execution.Progress:
        """How far it is."""
        return self.attempt.progress

    def told(self) -> Progress:
        """Return what the store is told of that."""
        at = self.progress
        return Progress(at.phase, at.rows, at.bytes, at.total, at.total_basis)

    @property
    def snapshot_at(self) -> Micros:
        """When its query began to read, by the state database's clock, rather too early than too late."""
        began = self.progress.began
        since = (self.progress.query_at or began) - began
        return (self.attempt.job.started_at or 0) + int(since * 1_000_000)


class Done(NamedTuple):
    """An attempt that succeeded, which this process holds until that is written down."""

    held: Held
    success: Success


class Strangers:
    """Attempts that the store says this process holds, and that it does not know of."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    def lost(self, unknown: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return those that have been unknown for long: a claim may have committed, and its thread not got that far."""
        now = time.monotonic()
        self._since = {key: self._since.get(key, now) for key in unknown}
        return [key for key, since in self._since.items() if now - since >= _STRANGE]

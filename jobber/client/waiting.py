"""Waiting for the end of a job or a group by long polls, through restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from jobber.errors import Unavailable

#: Seconds of one long poll; with a progress callback, of one step.
_STEP, _STEP_PROGRESS = 30.0, 0.5
#: Least seconds between two questions while waiting, and the longest absence of the server that a wait survives.
_PAUSE, _AWAY = 0.5, 30.0


class Status(Protocol):
    """What is waited for, as the server last told it."""

    @property
    def state(self) -> str: ...
    @property
    def finished(self) -> bool: ...


S = TypeVar("S", bound=Status)


def until_finished(
    ask: Callable[[float], S], what: str, timeout: float | None, on_progress: Callable[[S], object] | None
) -> S:
    """Return what ``ask`` tells once that is finished.

    Parameters:
        ask: asks the server, which may wait for so many seconds before it answers.
        what: is waited for, in words.
        timeout: seconds; None waits for ever.
        on_progress: called with each status that is seen, about twice a second.

    Raises:
        TimeoutError: it is not finished.
        Whatever ``ask`` raises; Unavailable only after 30 s of it.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    step = _STEP_PROGRESS if on_progress else _STEP
    away_since: float | None = None
    while True:
        begun = time.monotonic()
        left = step if deadline is None else min(step, deadline - begun)
        try:
            status = ask(max(0.0, left))
        except Unavailable as error:
            away_since = away_since or begun
            if time.monotonic() - away_since > _AWAY or (deadline and time.monotonic() >= deadline):
                raise
            time.sleep(min(error.retry_after, _PAUSE))
            continue
        away_since = None
        if on_progress:
            on_progress(status)
        if status.finished:
            return status
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"{what} is still {status.state} after {timeout:g} s")
        # Where too many wait already, the server answers at once; do not ask it in a spin.
        time.sleep(max(0.0, min(_PAUSE, left) - (time.monotonic() - begun)))

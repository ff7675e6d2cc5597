"""Doing in one go what several threads ask for at the same time: a commit for sixteen costs what one for one does.

Nobody waits to collect: who finds nothing under way does what he asks for at once. Those who come meanwhile wait; the
first of them then does what all of them ask for, in his own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: Things that are done in one go, at most: it must not take long.
MOST = 200
#: Seconds after which one who waits goes ahead with all who wait: what is under way may hang.
PATIENCE = 0.1


class Combiner(Generic[T, R]):
    """Does what threads ask for, together.

    Parameters:
        act: does it; returns an outcome for each, in the order given: what to return, or the exception to raise.
    """

    def __init__(
        self, act: Callable[[Sequence[T]], Sequence[R | Exception]], *, most: int = MOST, patience: float = PATIENCE
    ) -> None:
        self._act = act
        self._most = most
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting: list[_Asked[T, R]] = []
        self._leaders = 0  # threads that do it, or were told to: one, unless that one takes long

    def __call__(self, item: T) -> R:
        """Return what has become of ``item``, or raise it."""
        mine = _Asked[T, R](item)
        with self._lock:
            self._waiting.append(mine)
            if not self._leaders:
                self._appoint(mine)
        while mine.leads or mine.outcome is None:
            if mine.leads:
                self._lead(mine)
            elif not mine.signal.acquire(timeout=self._patience):
                with self._lock:
                    if mine in self._waiting and not mine.leads:
                        self._appoint(mine)
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome[0]

    def _appoint(self, one: _Asked[T, R]) -> None:
        self._leaders += 1
        one.leads = True

    def _lead(self, mine: _Asked[T, R]) -> None:
        """Do what all who wait ask for, and let the first of those lead who have come meanwhile."""
        with self._lock:
            mine.leads = False
            # Without ``mine``, if somebody else has lost his patience and taken all.
            some, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            self._do(some)
        finally:
            with self._lock:
                self._leaders -= 1
                if self._waiting and not self._leaders:
                    self._appoint(self._waiting[0])
                    self._waiting[0].wake()
                for one in some:
                    if one is not mine:
                        one.wake()

    def _do(self, some: Sequence[_Asked[T, R]]) -> None:
        outcomes: Sequence[R | Exception] = [RuntimeError("interrupted")] * len(some)
        try:
            outcomes = self._act([one.item for one in some]) if some else []
        except Exception as error:  # noqa: BLE001 - each of the threads raises it
            outcomes = [error] * len(some)
        finally:
            for one, outcome in zip(some, outcomes, strict=True):
                one.outcome = outcome if isinstance(outcome, Exception) else (outcome,)


class _Asked(Generic[T, R]):
    """What a thread asks for, and what has become of it."""

    __slots__ = ("item", "leads", "outcome", "signal")

    def __init__(self, item: T) -> None:
        self.item = item
        self.leads = False  # whether the thread is to do it, and what others ask for
        self.outcome: tuple[R] | Exception | None = None
        self.signal = threading.Lock()  # free while there is something to look at
        self.signal.acquire()

    def wake(self) -> None:
        """Let the thread look, which holds the combiner's lock for no other purpose than to ask."""
        if self.signal.locked():
            self.signal.release()

"""Which of the databases and servers that an instance depends on answer: what ``GET /readyz`` tells.

Nothing that hangs may hang the answer, or pile up while probes go on: each dependency is asked in a thread of its own,
one question at a time, and everybody who wants to know shares the answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobber.errors import JobberError

log = logging.getLogger(__name__)

#: Seconds: that a dependency has to answer, and that its answer is good for.
PATIENCE, _FRESH = 2.0, 1.0


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that an instance depends on.

    Parameters:
        kind: ``state``, ``broker``, ``events``, ``results`` or ``database``.
        name: of its section in the config; of what there is one only, the kind.
        ask: returns if it answers, and raises why it does not.
        required: whether jobs can be neither accepted nor looked at without it.
    """

    kind: str
    name: str
    ask: Callable[[], None]
    required: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of asking a dependency.

    Parameters:
        error: why it does not answer, for people; empty if it does.
        ms: how long it took, or has taken so far.
    """

    kind: str
    name: str
    ok: bool
    required: bool
    error: str
    ms: int


@dataclass(frozen=True, slots=True)
class Report:
    """Whether an instance can accept jobs, and all that it depends on.

    A database or a broker that is down does not make it unready: jobs are accepted, those of other databases run, and
    no other instance could do more.
    """

    draining: bool
    dependencies: tuple[Finding, ...]

    @property
    def ready(self) -> bool:
        """Whether it can."""
        return not self.why

    @property
    def why(self) -> str:
        """Why it cannot, for people; empty if it can."""
        if self.draining:
            return "this instance is stopping"
        return "; ".join(found.error for found in self.dependencies if found.required and not found.ok)


class Readiness:
    """Asks the dependencies of one process.

    Parameters:
        patience: seconds that each has to answer; they are asked beside each other.
        fresh: seconds that an answer is good for.
    """

    def __init__(
        self, dependencies: Sequence[Dependency], *, patience: float = PATIENCE, fresh: float = _FRESH
    ) -> None:
        self._patience = patience
        self._fresh = fresh
        self._lock = threading.Lock()
        self._questions: dict[Dependency, _Question | None] = dict.fromkeys(dependencies)

    def look(self) -> tuple[Finding, ...]:
        """Return what is known of each dependency, not older than ``fresh``, after ``patience`` at the latest.

        One that still has not answered an earlier question is not asked again before it does.
        """
        with self._lock:
            for of, question in self._questions.items():
                if question is None or question.is_stale(self._fresh):
                    self._questions[of] = _Question(of)
            questions = [question for question in self._questions.values() if question is not None]
        return tuple(question.finding(self._patience) for question in questions)


class _Question:
    """One question to one dependency, in a thread of its own."""

    def __init__(self, of: Dependency) -> None:
        self._of = of
        self._began = time.monotonic()
        self._ended = self._began
        self._error = ""
        self._answered = threading.Event()
        threading.Thread(target=self._run, name=f"ask-{of.kind}-{of.name}", daemon=True).start()

    def is_stale(self, fresh: float) -> bool:
        """Return whether it was answered, and that is too long ago."""
        return self._answered.is_set() and time.monotonic() - self._ended >= fresh

    def finding(self, patience: float) -> Finding:
        """Return the answer as soon as there is one, or that there is none ``patience`` after the question."""
        if self._answered.wait(max(0.0, self._began + patience - time.monotonic())):
            return self._found(self._error, self._ended)
        return self._found(f"{_described(self._of)} gives no answer within {patience:g} s", time.monotonic())

    def _run(self) -> None:
        try:
            self._of.ask()
        except JobberError as error:
            self._error = error.message
        except Exception as error:
            log.exception("asking %s", _described(self._of))
            self._error = f"{_described(self._of)}: internal error ({type(error).__name__}); the log has the details"
        self._ended = time.monotonic()
        self._answered.set()

    def _found(self, error: str, ended: float) -> Finding:
        of, ms = self._of, round((ended - self._began) * 1000)
        return Finding(of.kind, of.name, ok=not error, required=of.required, error=error, ms=ms)


def _described(of: Dependency) -> str:
    return {"state": "the state database", "broker": "the broker", "events": "the outbox of events"}.get(
        of.kind, f"the {'results ' if of.kind == 'results' else ''}database {of.name}"
    )

"""What is done before jobs can run: each database is waited for, brought up to date, and asked about its tasks.

Every database has a thread of its own, which goes on until all is done, also when the start has gone on without it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from jobber import sources
from jobber.errors import JobberError, ResultsUnavailable, SourceUnavailable, TaskFileError, Unavailable
from jobber.instance import Instance
from jobber.tasks.preparing import ANSWER_TIME, prepare_on

log = logging.getLogger(__name__)

#: Seconds in which a database that is there should answer, and then show that it gets on.
_FIRST, _SILENCE = 3.0, 15.0
#: Seconds between two tries: while the start waits, and afterwards.
_SOON, _LATER = 0.5, 3.0
#: Seconds between two looks at the threads.
_LOOK = 0.05


class Start:
    """The databases of an instance, and what is left to do on each of them.

    Parameters:
        instance: closed once everything is done.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._over = False
        self._steps = [
            _Step("the state database", self._state, self),
            *(_Step(f"the results database {name}", partial(self._results, name), self) for name in instance.results),
            *(_Step(f"the database {name}", partial(self._source, name), self) for name in instance.sources),
        ]
        self._threads = [
            threading.Thread(target=step.run, name=f"start {step.what}", daemon=True) for step in self._steps
        ]

    def finish(self) -> None:
        """Wait until everything is done."""
        for thread in self._threads:
            thread.join()

    def wait(self, seconds: float, *, strict: bool) -> list[str]:
        """Do all that can be done, wait up to ``seconds`` for databases that are away, and tell what is missing then.

        What is missing is tried again until it is done.

        Raises:
            TaskFileError: all tasks that databases refuse; those that are away are not waited for.
            Unavailable: with ``strict``, all that is missing.
        """
        began = time.monotonic()
        for thread in self._threads:
            thread.start()
        while True:
            now = time.monotonic()
            if not any(step.busy(now) for step in self._steps):
                self._refuse()
                missing = [step for step in self._steps if step.phase is not _Phase.DONE]
                curable = [step for step in missing if step.curable]
                if not curable or now - began >= seconds or (strict and len(curable) < len(missing)):
                    break
                self._announce([step for step in missing if not step.announced], seconds)
            time.sleep(_LOOK)
        with self._lock:
            self._over = True
            told = [step.told() for step in self._steps if step.phase is not _Phase.DONE]
        self._refuse()
        if strict and told:
            raise Unavailable("\n  ".join(["the start ends, as --strict says; not ready:", *told]))
        return [f"{line} (jobber goes on and tries again)" for line in told]

    def _refuse(self) -> None:
        """Raise TaskFileError if a database refuses tasks."""
        if problems := [problem for step in self._steps for problem in step.problems]:
            raise TaskFileError("\n".join(problems))

    def _announce(self, missing: list[_Step], seconds: float) -> None:
        """Say once what is waited for, and how long."""
        if missing:
            lines = "\n".join(step.told() for step in missing)
            log.warning("waiting up to %g s for:\n%s", seconds, lines)
        for step in missing:
            step.announced = True

    # -- in the threads -----------------------------------------------------------------------------------------------

    def pause(self) -> float:
        """Return the seconds until a database that is away is tried again."""
        return _LATER if self._over else _SOON

    def done(self, step: _Step, problems: list[str]) -> None:
        """Take note that nothing is left to do on a database, and of the tasks that it refuses."""
        with self._lock:
            step.phase = _Phase.DONE
            late = self._over
            if not late:
                step.problems = problems
            last = all(other.phase is _Phase.DONE for other in self._steps)
        if late and problems:
            log.error(
                "%s is there now, and refuses tasks; their jobs will fail there, and the next start:\n%s",
                step.what,
                "\n".join(problems),
            )
        elif late or step.announced:
            log.info("%s is ready", step.what)
        if last:
            self._instance.close()

    def _state(self, step: _Step) -> list[str]:
        self._instance.store.ping()
        step.works()
        self._instance.store.migrate()
        self._instance.announce_limits()
        return []

    def _results(self, name: str, _step: _Step) -> list[str]:
        self._instance.results[name].prepare()
        return []

    def _source(self, name: str, step: _Step) -> list[str]:
        source = self._instance.sources[name]
        sources.ping(source, ANSWER_TIME)
        step.works()
        prepared = prepare_on(name, source, self._instance.tasks().values(), step.works)
        if prepared.unavailable:
            raise SourceUnavailable(prepared.unavailable[name])
        return prepared.problems


class _Phase(Enum):
    TRIED = auto()  # for the first time
    WORKING = auto()  # it answers
    MISSING = auto()
    DONE = auto()


class _Step:
    """One database.

    Parameters:
        what: it is, for people.
        work: does all; returns the tasks that it refuses.
    """

    def __init__(self, what: str, work: Callable[[_Step], list[str]], start: Start) -> None:
        self.what = what
        self.phase = _Phase.TRIED
        self.problems: list[str] = []
        self.announced = False
        self._work = work
        self._start = start
        self._error: JobberError | None = None
        self._heard = time.monotonic()

    @property
    def curable(self) -> bool:
        """Whether time alone may help: it is not there, rather than unwilling."""
        return isinstance(self._error, Unavailable | SourceUnavailable | ResultsUnavailable | None)

    def busy(self, now: float) -> bool:
        """Return whether it is too early to call it missing, or done."""
        patience = {_Phase.TRIED: _FIRST, _Phase.WORKING: _SILENCE}.get(self.phase, 0.0)
        return now - self._heard < patience

    def works(self) -> None:
        """Take note that the database answers."""
        self._heard = time.monotonic()
        self._error = None
        self.phase = _Phase.WORKING

    def told(self) -> str:
        """Return what is missing, and why."""
        why = self._error.message if self._error else "no answer yet"
        kind, _, name = self.what.removeprefix("the ").rpartition(" ")
        quoted = f'{kind} "{name}"'  # as messages about results call it
        if why.startswith((self.what, quoted)):
            return self.what + why.removeprefix(self.what).removeprefix(quoted)
        return f"{self.what}: {why}"

    def run(self) -> None:
        """Try until it is done."""
        while True:
            try:
                problems = self._work(self)
            except JobberError as error:
                self._error = error
            except Exception as error:
                log.exception("%s", self.what)
                self._error = JobberError(f"internal error ({type(error).__name__}); the log has the details")
            else:
                self._start.done(self, problems)
                return
            self.phase = _Phase.MISSING
            time.sleep(self._start.pause())

"""The supervisor: starts the processes of an instance, restarts those that die, and ends them in order."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from jobber.cli.processes import DRAIN, INTERRUPT, RELOAD, Child, Plan
from jobber.errors import ConfigError, JobberError

log = logging.getLogger(__name__)

#: Seconds: between two looks at the children, for the API to close.
_LOOK, _CLOSE = 0.05, 2.0
#: Seconds before a dead child is started again: at first, and at most if it keeps dying young.
_RESPAWN, _RESPAWN_MOST = 1.0, 30.0
#: Seconds beyond the drain timeout after which workers are killed.
_PATIENCE = 10.0


class Supervisor:
    """Runs one API process (unless ``api`` is off) and some worker processes until a signal ends them.

    Parameters:
        plan: for every child.
        workers: worker processes.
        api: whether this instance answers HTTP.
        reload: checks the task files anew and puts the new limits in force; raises what is wrong with them.
    """

    def __init__(self, plan: Plan, *, workers: int, api: bool, reload: Callable[[], str]) -> None:
        self._plan = plan
        self._reload = reload
        self._roles = ["api"] * api + ["worker"] * workers
        self._children: list[Child] = []
        self._signals = 0
        self._pauses: dict[int, float] = {}  # by place: seconds before its child was started the last time
        self._reloads = threading.Event()
        self._note = RunNote(plan.settings.app.data_dir)

    def listen(self) -> None:
        """Take signals from now on; called before ``run``, so that none is lost while databases are waited for."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda _signal, _frame: self._reloads.set())

    def is_stopping(self) -> bool:
        """Return whether a signal has ended this instance."""
        return self._signals > 0

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start everything, watch over it, and return the exit status when all has ended.

        Parameters:
            on_ready: called once, when every process does its work.
        """
        if self.is_stopping():
            log.info("stopped before it was started")
            return 0
        self._note.write()
        try:
            self._children = [Child(role, self._plan) for role in self._roles]
            self._watch(on_ready)
            self._drain()
        finally:
            for child in self._children:
                child.kill()
            self._note.remove()
        return 0

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _watch(self, on_ready: Callable[[], None]) -> None:
        ready = False
        while not self._signals:
            if not ready and all(self._is_ready(child) for child in self._children):
                ready = True
                on_ready()
            if self._reloads.is_set():
                self._reloads.clear()
                self._reload_all()
            for place, child in enumerate(self._children):
                if child.status is not None:
                    self._replace(place, child)
            time.sleep(_LOOK)

    def _replace(self, place: int, child: Child) -> None:
        """Start another child in the place of one that ended, the later the more often it died before it was ready."""
        pause = _RESPAWN if child.ready.is_set() else min(self._pauses.get(place, _RESPAWN) * 2, _RESPAWN_MOST)
        self._pauses[place] = pause
        log.error("the %s process %s; starting another in %g s", child.role, _end(child.status), pause)
        child.kill()
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline and not self._signals:
            time.sleep(_LOOK)
        if not self._signals:
            self._children[place] = Child(child.role, self._plan)

    def _is_ready(self, child: Child) -> bool:
        if child.role == "worker":
            return child.ready.is_set()
        if not child.ready.is_set() and answers(self._plan.host, self._plan.port):
            child.ready.set()
        return child.ready.is_set()

    def _reload_all(self) -> None:
        ok = False
        try:
            said = self._reload()
            ok = True
        except JobberError as error:
            said = error.message
        except Exception as error:  # whatever it is, jobs are running
            log.exception("reload")
            said = f"internal error ({type(error).__name__}); the log has the details"
        if ok:
            for child in self._children:
                child.tell(RELOAD)
            log.info("reloaded: %s", said)
        else:
            log.error("reload refused, the old tasks stay:\n%s", said)
        try:
            self._note.reloaded(ok=ok, message=said)
        except OSError as error:
            log.warning("could not note the reload: %s", error)

    def _drain(self) -> None:
        """Stop claiming, let jobs finish, then close the API; every further signal is less patient."""
        told = 1
        log.info(
            "stopping: running jobs get %g s; a second signal sends them back", self._plan.settings.app.drain_timeout
        )
        for child in self._children:
            child.tell(DRAIN)
        workers = [child for child in self._children if child.role == "worker"]
        deadline = time.monotonic() + self._plan.settings.app.drain_timeout + _PATIENCE
        while any(child.status is None for child in workers) and time.monotonic() < deadline:
            if self._signals > told:
                told += 1
                for child in workers:
                    child.tell(INTERRUPT) if told == 2 else child.kill()
            time.sleep(_LOOK / 5)
        for child in self._children:
            child.tell(INTERRUPT)
        for child in self._children:
            child.wait(_CLOSE)
        log.info("stopped")


def _end(status: int | None) -> str:
    """Say how a process ended, of which ``Popen`` tells a status or, as a negative number, a signal."""
    if status is None or status >= 0:
        return f"ended (status {status})"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed ({name})"


def check_address(host: str, port: int) -> None:
    """Raise ConfigError if nothing can listen on host and port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another address with --server"
            ) from error


def answers(host: str, port: int) -> bool:
    """Return whether something accepts connections on host and port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class RunNote:
    """A file that tells ``jobber reload`` which instances of this data folder run, and how their reload went.

    A lock beside it is held as long as the process lives: a note that nobody locks was left by a process that was
    killed, and its process ID may be somebody else's by now.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = folder(data_dir) / f"{os.getpid()}.json"
        self._lock: IO[str] | None = None
        self._reloads = 0

    def write(self) -> None:
        """Say that this process runs."""
        self._save({"pid": os.getpid(), "reloads": 0})
        self._lock = _lock_of(self._path).open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def reloaded(self, *, ok: bool, message: str) -> None:
        """Say how a reload went."""
        self._reloads += 1
        self._save({"pid": os.getpid(), "reloads": self._reloads, "ok": ok, "message": message})

    def remove(self) -> None:
        """Say that this process is gone."""
        with suppress(OSError):
            self._path.unlink()
            _lock_of(self._path).unlink()

    def _save(self, note: dict[str, object]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(note))
        fresh.replace(self._path)


def folder(data_dir: Path) -> Path:
    """Return where the notes of running instances lie."""
    return data_dir / "run"


def _lock_of(note: Path) -> Path:
    return note.with_suffix(".lock")


def _runs(note: Path) -> bool:
    """Return whether the process that wrote a note still holds its lock."""
    try:
        with _lock_of(note).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def reload_running(data_dir: Path, *, patience: float = 30.0) -> list[tuple[int, bool, str]]:
    """Ask every running instance of ``data_dir`` to reload its tasks; return pid, success and message of each.

    Notes of instances that are gone are removed.
    """
    asked: list[tuple[Path, dict[str, Any]]] = []
    for path in sorted(folder(data_dir).glob("*.json")):
        if not _runs(path):
            path.unlink(missing_ok=True)
            _lock_of(path).unlink(missing_ok=True)
            continue
        before = json.loads(path.read_text())
        os.kill(before["pid"], signal.SIGHUP)
        asked.append((path, before))
    deadline = time.monotonic() + patience
    return [(before["pid"], *_answer(path, before, deadline)) for path, before in asked]


def _answer(path: Path, before: dict[str, Any], deadline: float) -> tuple[bool, str]:
    """Wait for an instance to note how its reload went."""
    while time.monotonic() < deadline:
        try:
            after = json.loads(path.read_text())
        except FileNotFoundError:
            return False, "it stopped meanwhile"
        if after["reloads"] != before["reloads"]:
            return bool(after["ok"]), str(after["message"])
        time.sleep(0.05)
    return False, "no answer in time"

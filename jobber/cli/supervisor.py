"""The supervisor: starts the processes of an instance, restarts those that die, and ends them in order."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any

from jobber import bell
from jobber.cli import child as life
from jobber.cli.processes import DRAIN, INTERRUPT, RELOAD, Child, Plan, ask, ending
from jobber.errors import ConfigError, JobberError

log = logging.getLogger(__name__)

#: Seconds: between two looks at the children while they start or stop, and at the most; for the API to close.
_LOOK, _REST, _CLOSE = 0.05, 2.0, 2.0
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
        reload: checks the task files anew and puts the new limits in force; raises what is wrong with them. It is
            called in a process of its own.
    """

    def __init__(self, plan: Plan, *, workers: int, api: bool, reload: Callable[[], list[str]]) -> None:
        self._plan = plan
        self._reload = reload
        self._roles = ["api"] * api + ["worker"] * workers
        self._children: list[Child] = []
        self._starter: Child | None = None
        self._begin_anew: Callable[[], Child]
        self._signals = 0
        self._pauses: dict[int, float] = {}  # by place: seconds before its child was started the last time
        self._reloads = threading.Event()
        self._note = RunNote(plan.settings.app.data_dir)
        self._bell = bell.pair() if api and workers else None
        self._alarm, self._alarmed = socket.socketpair()  # where the system says that a signal came

    def listen(self) -> None:
        """Take signals from now on; called before ``run``, so that none is lost while databases are waited for."""
        for end in (self._alarm, self._alarmed):
            end.setblocking(False)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)  # it ends the pause
        signal.signal(signal.SIGHUP, lambda _signal, _frame: self._reloads.set())

    def is_stopping(self) -> bool:
        """Return whether a signal has ended this instance."""
        return self._signals > 0

    def answer(self, asked: Child) -> list[str]:
        """Wait for the answer of a process that was asked (``ask``); nothing if a signal ends this instance.

        Raises JobberError: what the answer is.
        """
        while not self._signals:
            if (said := asked.answer(_REST, self._alarmed.fileno())) is not None:
                return said
            self._listen()
            self._pause(0)
        return []

    def run(self, on_ready: Callable[[], None], starter: Child, begin_anew: Callable[[], Child]) -> int:
        """Start everything, watch over it, and return the exit status when all has ended.

        Parameters:
            on_ready: called once, when every process does its work.
            starter: a process that still waits for databases, until it ends; it is told of reloads.
            begin_anew: starts another one, should it die.
        """
        self._starter, self._begin_anew = starter, begin_anew
        try:
            if self.is_stopping():
                log.info("stopped before it was started")
                return 0
            self._note.write()
            self._children = [self._child(role) for role in self._roles]
            self._watch(on_ready)
            self._drain()
        finally:
            for child in [*self._children, *([self._starter] if self._starter else [])]:
                child.kill()
            self._note.remove()
        return 0

    def _child(self, role: str) -> Child:
        """Start a child, with its end of the bell."""
        plan = self._plan
        if self._bell is not None:
            plan = replace(plan, bell=self._bell[role == "worker"].fileno())
        return Child(role, partial(life.run, role, plan), plan.descriptors)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _watch(self, on_ready: Callable[[], None]) -> None:
        ready = False
        while not self._signals:
            at_work = [self._is_ready(child) for child in self._children]
            if not ready and all(at_work):
                ready = True
                on_ready()
            if self._reloads.is_set():
                self._reloads.clear()
                self._reload_all()
            if self._starter is not None and self._starter.status is not None:
                self._starter = self._succeeded(self._starter)
            for place, child in enumerate(self._children):
                if child.status is not None:
                    self._replace(place, child)
            self._pause(_REST if ready else _LOOK)

    def _succeeded(self, starter: Child) -> Child | None:
        """Return what goes on with the start where a process has ended; None if nothing is left to do."""
        starter.kill()
        if not starter.status:
            return None
        log.error("the %s process %s; starting another", starter.role, ending(starter.status))
        time.sleep(_RESPAWN)
        try:
            return self._begin_anew()
        except OSError as error:
            log.error("there is no room for another process: %s", error)
            return starter

    def _pause(self, seconds: float) -> None:
        """Wait for some time, or less: until a signal comes, or a child ends."""
        if select.select([self._alarmed], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                self._alarmed.recv(4096)

    def _replace(self, place: int, child: Child) -> None:
        """Start another child in the place of one that ended, the later the more often it died before it was ready."""
        pause = _RESPAWN if child.ready else min(self._pauses.get(place, _RESPAWN) * 2, _RESPAWN_MOST)
        self._pauses[place] = pause
        log.error("the %s process %s; starting another in %g s", child.role, ending(child.status or 0), pause)
        child.kill()
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline and not self._signals:
            time.sleep(_LOOK)
            self._listen()
        if not self._signals:
            try:
                self._children[place] = self._child(child.role)
            except OSError as error:
                log.error("there is no room for another process: %s", error)

    def _listen(self) -> None:
        """Take what the processes print: a pipe that is full would stop them."""
        for child in self._children:
            child.listen()

    def _is_ready(self, child: Child) -> bool:
        child.listen()
        if child.role == "api" and not child.ready:
            child.ready = answers(self._plan.host, self._plan.port)
        return child.ready

    def _reload_all(self) -> None:
        ok = False
        try:
            asked = ask("reload", self._reload)
        except OSError as error:
            said = f"there is no room for another process: {error}"
        else:
            try:
                said = "\n".join(self.answer(asked))
                ok = True
            except JobberError as error:
                said = error.message
            finally:
                asked.kill()
        if self._signals:
            return
        if ok:
            for child in [*self._children, *([self._starter] if self._starter else [])]:
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
            self._listen()
        for child in self._children:
            child.tell(INTERRUPT)
        for child in self._children:
            child.wait(_CLOSE)
        log.info("stopped")


def check_address(host: str, port: int, *, patience: float = 5.0) -> None:
    """Raise ConfigError if nothing can listen on host and port.

    Parameters:
        patience: seconds to wait for an address that is in use. The processes of an instance whose supervisor was
            killed hold theirs until they notice, and what starts jobber again is faster.
    """
    deadline = time.monotonic() + patience
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise ConfigError(
                        f"cannot listen on {host}:{port}: {error.strerror}; choose another address with --server"
                    ) from error
            else:
                return
        time.sleep(_LOOK)


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

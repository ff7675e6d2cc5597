"""The processes of an instance and how the supervisor talks to them.

``jobber`` itself is the supervisor; below it run one process that answers HTTP and one or more workers. They are forked
from it: what it has imported they need not import again, and all of them share its memory. So it must stay free of what
no fork survives: threads and connections. What needs those and has an end (``ask``), like the check of the databases at
the start, is done by a process of its own, too.

Each gets one-word commands on standard input. The end of that stream means that the supervisor is gone, and then a
child goes too: nothing is left running, whatever happened to its parent.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from jobber.errors import JobberError

if TYPE_CHECKING:
    from jobber.config import Settings

#: Commands to a child.
RELOAD, DRAIN, INTERRUPT = "reload", "drain", "interrupt"
#: What a child says when it is ready, on standard output.
READY = b"ready\n"
#: What stands before an answer; no text holds it.
_ANSWER = b"\0"
#: Seconds between two looks whether a child has ended.
_LOOK = 0.01


@contextmanager
def importing() -> Iterator[None]:
    """Around imports: what they make stays, and the garbage collector would look through it again and again.

    It takes a fifth of the time to import all of jobber; a forked process also shares more memory with its parent.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a child needs to know."""

    settings: Settings
    directories: tuple[Path, ...]
    queues: tuple[str, ...]  # served; empty: the default queue and every queue that the tasks name
    name: str
    slots: int
    host: str
    port: int
    bell: int = -1  # file descriptor of this child's end of the bell; -1: there is none

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The open files that a child takes over."""
        return (self.bell,) if self.bell >= 0 else ()


class Child:
    """A child process, seen from the supervisor. Forked, so there must be no other thread.

    Parameters:
        role: ``api``, ``worker`` or what it is asked.
        live: its whole life; returns its exit status.
        keeps: file descriptors that it takes over; all others it closes.

    Raises:
        OSError: the system has no room for it.
    """

    def __init__(self, role: str, live: Callable[[], int], keeps: Collection[int] = ()) -> None:
        self.role = role
        #: Whether it does its work, as it or somebody else has said.
        self.ready = False
        self._said = b""
        self._status: int | None = None
        pipes = os.pipe(), os.pipe()
        (commands, self._commands), (self._answers, answers) = pipes
        _flush()  # what is written later must not be written twice
        gc.freeze()  # what is there now: a child that looked through it would get a copy of its own
        try:
            #: Its process ID.
            self.pid = os.fork()
        except OSError:
            for descriptor in (*pipes[0], *pipes[1]):
                os.close(descriptor)
            raise
        if not self.pid:
            _become(role, live, commands, answers, keeps)
        os.close(commands)
        os.close(answers)
        os.set_blocking(self._answers, False)

    def listen(self) -> bytes:
        """Take note of what it has said; return all that it said before it was ready."""
        with suppress(BlockingIOError):
            while self._answers >= 0 and (piece := os.read(self._answers, 65536)):
                self._said += b"" if self.ready else piece
        self.ready = self.ready or READY in self._said
        return self._said

    @property
    def status(self) -> int | None:
        """Its exit status, that of a signal as a negative number; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def tell(self, command: str) -> None:
        """Send a command; a child that is gone does not hear it."""
        if self._commands >= 0:
            with suppress(BrokenPipeError):
                os.write(self._commands, command.encode() + b"\n")

    def answer(self, seconds: float, *others: int) -> list[Any] | None:
        """Return what it has answered, if it was started by ``ask``.

        Waits up to ``seconds`` for an answer, or until there is something to read from others.

        Raises:
            JobberError: what the answer is, or why there is none.
        """
        select.select([self._answers, *others], [], [], seconds)
        ended = self.status  # before it is listened to: its answer may come meanwhile
        _, _, said = self.listen().partition(_ANSWER)
        line, whole, _ = said.partition(b"\n")
        if whole:
            ok, answer = json.loads(line)
            if not ok:
                raise JobberError(answer)
            return list(answer)
        if ended is not None:
            raise JobberError(f"the {self.role} process {ending(ended)}")
        return None

    def wait(self, seconds: float) -> bool:
        """Wait for its end; False if it still runs after ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.status is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True

    def kill(self) -> None:
        """End it and every process that it started, at once, and forget it."""
        # Not yet reaped, its process ID cannot be anybody else's group. Once it is, the group may have members still,
        # and an empty one is not given to another within moments.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)  # it may be too young for a group of its own
        while self.status is None:
            time.sleep(_LOOK)
        for descriptor in (self._commands, self._answers):
            if descriptor >= 0:
                os.close(descriptor)
        self._commands = self._answers = -1


def _become(role: str, live: Callable[[], int], commands: int, answers: int, keeps: Collection[int]) -> NoReturn:
    """Be a child from now on: the stack above is that of its parent, and is never returned to."""
    status = 1
    try:
        # A Ctrl-C in the terminal is for the supervisor alone; it tells the others.
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(commands, 0)
        os.dup2(answers, 1)
        # The others' pipes above all: while one of their ends is open here, they would not learn of the parent's end.
        for descriptor in map(int, os.listdir("/dev/fd")):
            if descriptor > 2 and descriptor not in keeps:
                with suppress(OSError):  # that of the list itself is closed
                    os.close(descriptor)
        with suppress(OSError):  # Linux: the name in the list of processes
            Path("/proc/self/comm").write_text(f"jobber-{role}")
        status = live()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter would
        with suppress(Exception):  # nobody may hear it any more
            traceback.print_exc()
    finally:
        leave(status)


def ask(
    role: str,
    question: Callable[[], list[str]],
    *,
    then: Callable[[], None] = lambda: None,
    commands: Mapping[str, Callable[[], None]] = MappingProxyType({}),
) -> Child:
    """Start a process that answers a question: ``Child.answer``.

    Parameters:
        question: returns the answer; may raise errors of jobber.
        then: what else it does before it ends.
        commands: what it does for each.
    """

    def live() -> int:
        obey(commands, orphaned=lambda: os._exit(1))
        try:
            answer: list[Any] = [True, question()]
        except JobberError as error:
            answer = [False, error.message]
        except Exception as error:  # whatever it is, jobs are running
            logging.getLogger(__name__).exception("%s", role)
            answer = [False, f"internal error ({type(error).__name__}); the log has the details"]
        sys.stdout.flush()
        os.write(1, _ANSWER + json.dumps(answer).encode() + b"\n")
        then()
        return 0

    return Child(role, live)


def ending(status: int) -> str:
    """Say how a process ended, by its status as ``Child`` tells it."""
    if status >= 0:
        return f"ended (status {status})"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed ({name})"


def obey(commands: Mapping[str, Callable[[], None]], *, orphaned: Callable[[], None]) -> None:
    """Start the thread that carries out the supervisor's commands in this child.

    Parameters:
        commands: what to do for each.
        orphaned: what to do when the supervisor is gone.
    """

    def listen() -> None:
        pending = b""
        while piece := os.read(0, 4096):
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                command = commands.get(line.decode())
                if command is not None:
                    threading.Thread(target=command, name=line.decode()).start()
        orphaned()

    threading.Thread(target=listen, name="commands", daemon=True).start()


def say_ready() -> None:
    """Tell the supervisor that this child does its work now."""
    os.write(1, READY)


def leave(status: int) -> NoReturn:
    """End this process now.

    Everything is closed already; taking the interpreter apart module by module costs another 0.3 s (measured), and
    stopping is to take less than one.
    """
    with suppress(Exception):
        logging.shutdown()
    _flush()
    os._exit(status)


def _flush() -> None:
    """Write out what was printed, if anybody takes it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed at the start, or since; full; nobody reads it
            stream.flush()

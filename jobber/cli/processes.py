"""The processes of an instance and how the supervisor talks to them.

``jobber`` itself is the supervisor; below it run one process that answers HTTP and one or more workers. Each gets its
``Plan`` and later one-word commands on standard input. The end of that stream means that the supervisor is gone, and
then a child goes too: nothing is left running, whatever happened to its parent.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from jobber.config import Settings

#: Commands to a child.
RELOAD, DRAIN, INTERRUPT = "reload", "drain", "interrupt"
#: What a child says when it is ready, on standard output.
READY = "ready"


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
    """All that a child needs to know. It travels through a pipe: it holds passwords."""

    settings: Settings
    directories: tuple[Path, ...]
    queues: tuple[str, ...]  # served; empty: the default queue and every queue that the tasks name
    name: str
    slots: int
    host: str
    port: int


class Child:
    """A child process, seen from the supervisor.

    Parameters:
        role: ``api`` or ``worker``.
    """

    def __init__(self, role: str, plan: Plan) -> None:
        self.role = role
        self.ready = threading.Event()
        self._process = subprocess.Popen(  # noqa: S603  # our own module, fixed arguments
            [sys.executable, "-m", "jobber.cli.child", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C in the terminal is for the supervisor alone; it tells the others.
            start_new_session=True,
        )
        frozen = pickle.dumps(plan)
        self._send(struct.pack("!I", len(frozen)) + frozen)
        threading.Thread(target=self._listen, name=f"{role}-listener", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def tell(self, command: str) -> None:
        """Send a command; a child that is gone does not hear it."""
        self._send(command.encode() + b"\n")

    def wait(self, seconds: float) -> bool:
        """Wait for its end; False if it still runs after ``seconds``."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and every process that it started, at once."""
        # Not yet reaped, its process ID cannot be anybody else's group. Once it is, the group may have members still,
        # and an empty one is not given to another within moments.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, data: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101  # it is a pipe
        with suppress(BrokenPipeError):
            stdin.write(data)
            stdin.flush()

    def _listen(self) -> None:
        stdout: IO[bytes] | None = self._process.stdout
        assert stdout is not None  # noqa: S101  # it is a pipe
        for line in stdout:
            if line.strip() == READY.encode():
                self.ready.set()


def receive_plan() -> Plan:
    """Read the plan that the supervisor sent; called once, in the child."""
    (size,) = struct.unpack("!I", _read(4))
    plan: Plan = pickle.loads(_read(size))  # noqa: S301  # from our own parent, through a pipe
    return plan


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            raise SystemExit("the supervisor is gone")
        data += piece
    return data


def obey(commands: dict[str, Callable[[], None]], *, orphaned: Callable[[], None]) -> None:
    """Start the thread that carries out the supervisor's commands in this child.

    Parameters:
        commands: what to do for each.
        orphaned: what to do when the supervisor is gone.
    """

    def listen() -> None:
        # Unbuffered: what follows the plan in the pipe must not be swallowed by it.
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
    os.write(1, READY.encode() + b"\n")


def leave(status: int) -> NoReturn:
    """End this process now.

    Everything is closed already; taking the interpreter apart module by module costs another 0.3 s (measured), and
    stopping is to take less than one.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

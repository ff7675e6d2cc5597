"""A real jobber in processes of its own, as users run it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from jobber.client import Client
from jobber.errors import ServerUnreachable
from tests.servers import free_port, is_alive, wait_until


class Running:
    """One ``jobber`` command and everything that it started.

    Parameters:
        folder: of config, tasks and data.
        config: text of the config file, or None for none.
        queries: text of each task file by name.
    """

    def __init__(
        self, folder: Path, config: str, queries: dict[str, str], *flags: str, worker_only: bool = False
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "sql").mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(config)
        for name, text in queries.items():
            (folder / "sql" / name).write_text(text)
        self.log = folder / f"jobber-{self.port}.log"
        self.command = [
            *(sys.executable, "-m", "jobber", "--config", str(folder / "config.toml")),
            *("--sql-directory", str(folder / "sql"), "--server", f"127.0.0.1:{self.port}", *flags),
            *(["--worker-only"] if worker_only else []),
        ]
        self.client = Client(self.url)
        self.start()

    def start(self) -> None:
        """Start it; also again, at the same address, after it has ended."""
        with self.log.open("ab") as log:
            self.said_before = log.tell()
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )

    def text(self) -> str:
        """Return all that it said so far."""
        return self.log.read_text()

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until it says that it is ready."""
        # Not what it said before a restart.
        wait_until(
            lambda: self.process.poll() is not None or b"\nready" in self.log.read_bytes()[self.said_before :], timeout
        )
        assert self.process.poll() is None, self.text()

    def family(self) -> list[psutil.Process]:
        """Return every process that belongs to it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            me = psutil.Process(self.process.pid)
            return [me, *me.children(recursive=True)]
        return []

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        return [process for process in self.family() if role_of(process) == "worker"]

    def stop(self, timeout: float = 20) -> int:
        """Send SIGTERM, wait, and return the exit status; nothing may be left running."""
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout)
        finally:
            self.kill()
        left = [process for process in family if is_alive(process)]
        assert not left, f"still running: {left}\n{self.text()}"
        return status

    def kill(self) -> None:
        """Kill whatever of it still runs; the port is free then."""
        family = self._stopped()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        wait_until(lambda: not any(map(is_alive, family)))
        wait_until(self._has_left_the_port)  # threads may outlive the main one, by a little

    def _stopped(self) -> list[psutil.Process]:
        """Stop all of it, parents before their children are looked for: one that runs would start others meanwhile."""
        family = []
        found = self.family()[:1]
        while found:
            process = found.pop()
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                wait_until(partial(stands_still, process))
                family.append(process)
                found += process.children()
        return family

    def _has_left_the_port(self) -> bool:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self.port))
            return True
        return False


def role_of(process: psutil.Process) -> str:
    """Return what a process below the supervisor does: ``api``, ``worker``, ``start`` or ``reload``."""
    return process.name().removeprefix("jobber-")


def answers(running: Running) -> bool:
    """Whether its API answers."""
    try:
        return bool(running.client.tasks())
    except ServerUnreachable:
        return False


def stands_still(process: psutil.Process) -> bool:
    """Whether a process is stopped, or gone."""
    try:
        return not is_alive(process) or process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def jobber(
    folder: Path, config: str, queries: dict[str, str], *flags: str, worker_only: bool = False
) -> Iterator[Running]:
    """Run jobber while the body runs; it must stop cleanly."""
    running = Running(folder, config, queries, *flags, worker_only=worker_only)
    try:
        running.wait_ready()
        yield running
    except BaseException:
        running.kill()
        print(running.text()[-6000:])  # pytest shows it with the failure
        raise
    else:
        assert running.stop() == 0, running.text()


def in_one_database(folder: Path, url: str) -> str:
    """Return a config of which state, source ``pg`` and results ``main`` are one database.

    The sweep is rare, so that it hides nothing.
    """
    return f"""
[app]
data_dir = "{folder}/data"
sweep = 60
[job_queue.state]
url = "{url}"
[db.pg]
url = "{url}"
[results.main]
url = "{url}"
"""


def seconds(since: float) -> float:
    """Return how long ago ``since`` (monotonic) was."""
    return time.monotonic() - since


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the jobber command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "jobber", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )

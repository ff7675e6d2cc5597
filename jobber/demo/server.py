"""The demo's jobber: set-up, start, and an end that leaves nothing running."""

from __future__ import annotations

import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import urllib3
from sqlalchemy import URL

from jobber.errors import JobberError, Unavailable

HOST = "127.0.0.1"
#: The task files that come with jobber.
QUERIES = Path(str(resources.files("jobber.demo") / "queries"))

#: Seconds: to start, to end by SIGTERM, and between two looks.
_START, _STOP, _LOOK = 60.0, 15.0, 0.05
#: An environment variable that all processes of one demo inherit, and by which they are found.
_MARK = "DEMO_OF_JOBBER"


def write_config(folder: Path, shop: Path) -> Path:
    """Write the config of the demo into ``folder`` and return its path."""

    def url(path: Path) -> str:
        # TOML's basic strings are JSON's (https://toml.io/en/v1.0.0#string).
        return json.dumps(URL.create("sqlite", database=str(path)).render_as_string(), ensure_ascii=False)

    config = folder / "config.toml"
    config.write_text(
        f"""\
# Broker and state need no server: without [job_queue.…] they are files in data_dir.
[app]
data_dir = {json.dumps(str(folder / "data"), ensure_ascii=False)}

# Where the queries read: read-only, whatever a task file says.
[db.shop]
url = {url(shop)}

# Where each result gets a table of its own. For SQLite this is a folder, with one file per result.
[results.reports]
url = {url(folder / "results")}
""",
        encoding="utf-8",
    )
    return config


def command(config: Path, port: int) -> list[str]:
    """Return the command that serves the demo's tasks."""
    return [
        *(sys.executable, "-m", "jobber", "--config", str(config)),
        *("--sql-directory", str(QUERIES), "--server", f"{HOST}:{port}"),
    ]


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def own_environment() -> dict[str, str]:
    """Return the environment without settings for some other jobber."""
    return {name: value for name, value in os.environ.items() if not name.startswith("JOBBER_")}


class Server:
    """A jobber in processes of its own; as a context, started and stopped.

    Parameters:
        config: path of its config file; its log is written beside it.
        port: on loopback.
    """

    def __init__(self, config: Path, port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        self._log = config.with_name("jobber.log")
        self._mark = secrets.token_hex(8)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                command(config, port),
                stdout=log,
                stderr=log,
                env={**own_environment(), _MARK: self._mark, "PYTHONUNBUFFERED": "1"},
                # A Ctrl-C in the terminal is for the demo; it then ends the server in order.
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            self.stop()
        except JobberError:
            # What went wrong first says more.
            if error is None:
                raise

    def wait_ready(self) -> None:
        """Return once the server answers and its workers take jobs.

        Raises:
            Unavailable: it ended, or did not come up in time.
        """
        deadline = time.monotonic() + _START
        while not (self._answers() and "\nready" in self.log()):
            if self._process.poll() is not None:
                raise Unavailable(f"the server ended while it started (status {self._process.returncode})")
            if time.monotonic() > deadline:
                raise Unavailable(f"the server was not ready within {_START:g} s")
            time.sleep(_LOOK)

    def _answers(self) -> bool:
        try:
            return urllib3.request("GET", f"{self.url}/", timeout=1.0, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def log(self) -> str:
        """Return what the server has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def peak_memory(self) -> int:
        """Return the most bytes that the largest of its processes has ever had resident."""
        peaks = [_peak(pid) for pid in self._running()]
        # Where there is no /proc, the kernel tells it of children that have ended.
        unit = 1 if sys.platform == "darwin" else 1024
        return max(peaks, default=0) or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit

    def stop(self) -> None:
        """End it with SIGTERM, wait until nothing of it runs, and kill what would stay.

        Raises:
            JobberError: something did not end by itself, or the server's exit status was not 0.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP
        while (self._process.poll() is None or self._running()) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        stubborn = self._running()
        for pid in stubborn:
            os.kill(pid, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.kill()
        status = self._process.wait()
        if stubborn:
            raise JobberError(f"{len(stubborn)} processes of the server were still running {_STOP:g} s after SIGTERM")
        if status:
            raise JobberError(f"the server ended with status {status}")

    def _running(self) -> list[int]:
        """Return the IDs of its living processes, of its orphans too; without /proc just of the first one."""
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):  # empty once it is a zombie
                    found.append(int(folder.name))
            except OSError:
                continue  # somebody else's, or gone meanwhile
        if not found and not Path("/proc/self/environ").exists() and self._process.poll() is None:
            return [self._process.pid]
        return found


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)

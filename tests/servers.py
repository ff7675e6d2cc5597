"""Private database servers for the tests: free ports, temporary folders, gone with the session."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import redis as redis_client


class ServerMissing(Exception):
    """Raised when the program of a server is not installed."""


def free_port() -> int:
    """Return a TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server process with a folder of its own; ``stop`` and ``start`` keep the data."""

    def __init__(self, name: str, user: str | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"jobber-{name}-"))
        self.user = user if os.geteuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def run(self, command: list[str]) -> None:
        """Run a set-up command as the server's user."""
        subprocess.run(
            command, check=True, cwd=self.folder, user=self.user, capture_output=True, env=self._environment()
        )

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, user=self.user, stdout=log, stderr=log, env=self._environment()
            )
        deadline = time.monotonic() + 30
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command()[0]} did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it as its manual says, or like a power cut."""
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
            self.process = None

    def remove(self) -> None:
        self.stop(kill=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}


class Postgres(Server):
    """A PostgreSQL cluster without fsync, reached by TCP as ``postgres`` without a password."""

    def __init__(self, *options: str) -> None:
        self.bin = self._find()
        self.options = options
        super().__init__("postgres", "postgres")
        self.run([str(self.bin / "initdb"), "-D", "data", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"])
        self._counter = 0

    @staticmethod
    def _find() -> Path:
        candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if candidates:
            return candidates[-1].parent
        if found := shutil.which("postgres"):
            return Path(found).resolve().parent
        raise ServerMissing("PostgreSQL (package postgresql)")

    def command(self) -> list[str]:
        settings = ["fsync=off", "max_connections=200", "shared_buffers=256MB", "autovacuum_naptime=10s", *self.options]
        return [
            *(str(self.bin / "postgres"), "-D", "data", "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"),
            *("-c", f"unix_socket_directories={self.folder}"),
            *(part for setting in settings for part in ("-c", setting)),
        ]

    def ready(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> None:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(sql)  # type: ignore[arg-type]  # tests write their SQL as text

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        self._counter += 1
        name = f"test_{self._counter}"
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


class Redis(Server):
    """A Redis server that writes nothing to disk."""

    def __init__(self) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise ServerMissing("Redis (package redis-server)")
        self.program = found
        super().__init__("redis", None)

    def command(self) -> list[str]:
        return [
            *(self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"),
            *("--dir", str(self.folder)),
        ]

    def ready(self) -> bool:
        try:
            with redis_client.Redis(port=self.port, socket_timeout=2) as client:
                return bool(client.ping())
        except redis_client.ConnectionError:
            return False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        with redis_client.Redis(port=self.port) as client:
            client.flushall()


def wait_until(condition: Callable[[], object], timeout: float = 10.0, interval: float = 0.02) -> None:
    """Return as soon as ``condition()`` is true; fail the test after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {condition}")
        time.sleep(interval)

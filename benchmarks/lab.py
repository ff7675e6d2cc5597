"""The servers that are measured on, how much is measured, and who is told how far it is."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg

import jobber
from tests.servers import MariaDB, Postgres, Redis, Server, ServerMissing

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured.

    Parameters:
        rows, rounds: of transfers; rounds of the rest as well.
        memory_rows: of the large job whose memory is told.
        seconds: for which small jobs and submissions are counted.
        latency: jobs whose time is taken one by one.
        bulks: requests of a thousand jobs.
        queued, history, tables: jobs and results that are there before, for ``crowded``.
        idle: seconds of doing nothing.
        claims: jobs in front of the claims.
    """

    rows: int
    rounds: int
    memory_rows: int
    seconds: float
    latency: int
    bulks: int
    queued: int
    history: int
    tables: int
    idle: float
    claims: int


SCALES = {
    "full": Scale(
        rows=1_000_000,
        rounds=5,
        memory_rows=10_000_000,
        seconds=8,
        latency=200,
        bulks=20,
        queued=1_000_000,
        history=10_000_000,
        tables=100_000,
        idle=60,
        claims=1_000_000,
    ),
    "short": Scale(
        rows=200_000,
        rounds=3,
        memory_rows=1_000_000,
        seconds=2,
        latency=50,
        bulks=5,
        queued=50_000,
        history=200_000,
        tables=1_000,
        idle=8,
        claims=50_000,
    ),
    # Shows that it works, and nothing else.
    "tiny": Scale(
        rows=2_000,
        rounds=1,
        memory_rows=20_000,
        seconds=0.3,
        latency=5,
        bulks=1,
        queued=2_000,
        history=5_000,
        tables=20,
        idle=0.5,
        claims=3_000,
    ),
}


class Lab:
    """Private servers with the durability that is their default; started when they are asked for.

    Parameters:
        scale: how much is measured.
        say: told what is being done.
    """

    def __init__(self, scale: Scale, say: Callable[[str], None] = lambda _: None) -> None:
        self.scale = scale
        self.say = say
        self.folder = Path(tempfile.mkdtemp(prefix="jobber-bench-"))
        self._servers: dict[str, Server] = {}

    def _started(self, name: str, make: Callable[[], Server]) -> Any:
        if name not in self._servers:
            self.say(f"starting {name}")
            server = self._servers[name] = make()
            server.start()
        return self._servers[name]

    @property
    def postgres(self) -> Postgres:
        """PostgreSQL; raises ServerMissing, as the others do."""
        started: Postgres = self._started("postgresql", lambda: Postgres(durable=True))
        return started

    @property
    def mariadb(self) -> MariaDB:
        """MariaDB."""
        started: MariaDB = self._started("mysql", lambda: MariaDB(durable=True))
        return started

    @property
    def redis(self) -> Redis:
        """Redis."""
        started: Redis = self._started("redis", Redis)
        return started

    def has(self, name: str) -> bool:
        """Whether the server is installed; ``name`` is ``postgresql``, ``mysql`` or ``redis``."""
        try:
            {"postgresql": lambda: self.postgres, "mysql": lambda: self.mariadb, "redis": lambda: self.redis}[name]()
        except ServerMissing:
            return False
        return True

    @contextlib.contextmanager
    def database(self, engine: str = "postgresql") -> Iterator[str]:
        """Give the URL of an empty database."""
        server = self.postgres if engine == "postgresql" else self.mariadb
        name = server.new_database()
        try:
            yield server.url(name)
        finally:
            server.drop_database(name)

    @contextlib.contextmanager
    def room(self) -> Iterator[Path]:
        """Give an empty folder."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)

    def versions(self) -> dict[str, str]:
        """Return the versions of the servers that run."""
        found = {}
        if "postgresql" in self._servers:
            with psycopg.connect(self.postgres.dsn("postgres")) as connection:
                found["postgresql"] = str(connection.info.parameter_status("server_version"))
        if "mysql" in self._servers:
            found["mariadb"] = str(self.mariadb.execute("SELECT version()")[0][0])
        if "redis" in self._servers:
            words = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout
            found["redis"] = words.split("v=")[1].split()[0]
        return found

    def close(self) -> None:
        """Stop all servers and remove all that they left."""
        for server in self._servers.values():
            server.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


def machine() -> dict[str, Any]:
    """Return what figures depend on beside the code."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "ram_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "jobber": jobber.__version__,
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Return the commit of the checkout, with a plus sign if files differ from it; None outside of one."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True).stdout.strip()

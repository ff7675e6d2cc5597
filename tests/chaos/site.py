"""Where a run takes place: private servers that may be killed, and instances of jobber that are kept running."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil

from tests.chaos.work import MOST_ROWS, TASKS
from tests.e2e.running import Running, role_of
from tests.servers import MariaDB, Postgres, Redis, Server

S = TypeVar("S", bound=Server)

#: Seconds of a lease; of the pause before an instance that has ended is started again.
LEASE = 3
_RESPAWN = 0.5
#: Where an instance answers HTTP, and how many worker processes it has.
INSTANCES = ((True, 1), (True, 1), (False, 2))


class Site:
    """All servers and instances of one run.

    Parameters:
        folder: of everything but the servers' data.
        state: ``postgresql`` or ``mariadb``.
        shared: whether the state lies on the server that is also source and results, so that all breaks at once.
        instances: how many.
    """

    def __init__(self, folder: Path, *, state: str, shared: bool, instances: int) -> None:
        self.folder = folder
        self.state_engine = state
        self.shared = shared
        self.servers: dict[str, Server] = {}
        self.instances: list[Instance] = []
        self._count = instances

    def start(self) -> None:
        """Start the servers beside each other, fill them, and start the instances."""
        makers: dict[str, Callable[[], Server]] = {"PostgreSQL": _postgres, "MariaDB": _mariadb, "Redis": Redis}
        if not self.shared:
            makers["the state database"] = _postgres if self.state_engine == "postgresql" else _mariadb
        with ThreadPoolExecutor() as pool:
            for name, server in zip(makers, pool.map(lambda make: _started(self, make), makers.values()), strict=True):
                self.servers[name] = server
        if self.shared:
            self.servers["the state database"] = self.servers[
                "PostgreSQL" if self.state_engine == "postgresql" else "MariaDB"
            ]
        self._fill()
        for number in range(self._count):
            api, processes = INSTANCES[number % len(INSTANCES)]
            self.instances.append(Instance(self.folder / f"instance-{number}", self._config, api, processes))
        for instance in self.instances:
            instance.running.wait_ready()
            instance.keep()

    # -- servers ------------------------------------------------------------------------------------------------------

    @property
    def postgres(self) -> Postgres:
        server = self.servers["PostgreSQL"]
        assert isinstance(server, Postgres)
        return server

    @property
    def mariadb(self) -> MariaDB:
        server = self.servers["MariaDB"]
        assert isinstance(server, MariaDB)
        return server

    @property
    def redis(self) -> Redis:
        server = self.servers["Redis"]
        assert isinstance(server, Redis)
        return server

    @property
    def state(self) -> Postgres | MariaDB:
        server = self.servers["the state database"]
        assert isinstance(server, Postgres | MariaDB)
        return server

    @property
    def results_folder(self) -> Path:
        """Where the results in SQLite lie."""
        return self.folder / "results"

    def apis(self) -> list[str]:
        """Return the addresses that answer HTTP."""
        return [instance.running.url for instance in self.instances if instance.api]

    def _fill(self) -> None:
        for server in dict.fromkeys((self.postgres, self.mariadb, self.state)):
            if isinstance(server, Postgres | MariaDB):
                server.execute("CREATE DATABASE chaos")
        sequence = f"SELECT seq FROM seq_1_to_{MOST_ROWS}"
        if self.mariadb.is_mysql:
            sequence = (
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                f"WHERE i < {MOST_ROWS}) SELECT /*+ SET_VAR(cte_max_recursion_depth = {MOST_ROWS}) */ i FROM n"
            )
        self.mariadb.execute("CREATE TABLE numbers (i BIGINT NOT NULL PRIMARY KEY)", "chaos")
        self.mariadb.execute(f"INSERT INTO numbers {sequence}", "chaos")
        with contextlib.closing(sqlite3.connect(self.folder / "source.db")) as lite:
            lite.execute("CREATE TABLE numbers (i INTEGER PRIMARY KEY)")
            lite.executemany("INSERT INTO numbers VALUES (?)", ((i,) for i in range(1, MOST_ROWS + 1)))
            lite.commit()

    def _config(self, folder: Path) -> str:
        return f"""
[app]
data_dir = "{folder}/data"
lease = {LEASE}
heartbeat = 1
sweep = 1
max_rescues = 50
retry_delay = "300ms"
retry_delay_max = "1500ms"
start_timeout = "3s"
drain_timeout = "2s"
[job_queue.broker]
url = "{self.redis.url}"
[job_queue.state]
url = "{self.state.url("chaos")}"
[db.pg]
url = "{self.postgres.url("chaos")}"
connect_timeout = "3s"
[db.my]
url = "{self.mariadb.url("chaos")}"
connect_timeout = "3s"
[db.lite]
url = "sqlite:///{self.folder}/source.db"
[results.pg_results]
url = "{self.postgres.url("chaos")}"
connect_timeout = "3s"
[results.pg_fast]
url = "{self.postgres.url("chaos")}"
results_table = "fast_%s"
unlogged = true
connect_timeout = "3s"
[results.my_results]
url = "{self.mariadb.url("chaos")}"
connect_timeout = "3s"
[results.lite_results]
url = "sqlite:///{self.results_folder}"
"""

    # -- the end ------------------------------------------------------------------------------------------------------

    def stop_instances(self) -> list[str]:
        """Stop all instances as one should; return what did not go as it must."""
        with ThreadPoolExecutor() as pool:
            wrong = [text for text in pool.map(Instance.stop, self.instances) if text]
        if left := self.processes():
            wrong.append(f"processes are left: {[process.name() for process in left]}")
        return wrong

    def processes(self) -> list[psutil.Process]:
        """Return every process of jobber that works in this run's folder."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd().startswith(str(self.folder)) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def remove(self, *, keep_logs: bool) -> None:
        """End everything; the folder stays if its logs are wanted."""
        for instance in self.instances:
            instance.abandon()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for name, server in self.servers.items():
            if keep_logs and (server.folder / "log").exists():
                shutil.copy(server.folder / "log", self.folder / f"{name.replace(' ', '-')}.log")
            server.remove()
        if not keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)


def _postgres() -> Postgres:
    return Postgres("max_connections=300")


def _mariadb() -> MariaDB:
    # A page may be torn when the server is killed while it writes it: this server is killed.
    return MariaDB("innodb-doublewrite=1", "max-connections=400")


def _started(site: Site, make: Callable[[], S]) -> S:
    server = make()
    site.servers[str(server.folder)] = server  # it is removed even if another one does not start
    server.start()
    del site.servers[str(server.folder)]
    return server


def family(server: Server) -> list[psutil.Process]:
    """Return all processes of a server."""
    with contextlib.suppress(psutil.Error):
        if server.process is not None:
            parent = psutil.Process(server.process.pid)
            return [parent, *parent.children(recursive=True)]
    return []


def crash(server: Server) -> None:
    """Kill every process of a server at the same moment."""
    processes = family(server)
    for process in processes:  # the first does not see the others go
        with contextlib.suppress(psutil.Error):
            process.suspend()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, 10)
    server.stop(kill=True)


class Instance:
    """One ``jobber`` command that is started again whenever it ends, as a service manager would.

    Parameters:
        folder: its own; ``config`` makes the text of its config file from it.
        api: whether it answers HTTP.
        processes: worker processes.
    """

    def __init__(self, folder: Path, config: Callable[[Path], str], api: bool, processes: int) -> None:
        self.api = api
        folder.mkdir(parents=True)
        self.running = Running(
            folder,
            config(folder),
            {"tasks.sql": TASKS},
            *("--worker-processes", str(processes), "--worker-concurrency", "8", "--worker-name", folder.name),
            worker_only=not api,
        )
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def keep(self) -> None:
        """Start it again from now on whenever it ends."""
        self._keeper.start()

    def _keep(self) -> None:
        while not self._over.wait(_RESPAWN):
            if self.running.process.poll() is not None:
                self.running.start()

    def members(self, role: str) -> list[psutil.Process]:
        """Return its processes of a role: ``worker``, ``API``, or ``supervisor`` (which also stands for all)."""
        family = self.running.family()
        if role not in ("worker", "API"):
            return family[:1]
        found = []
        for process in family:
            with contextlib.suppress(psutil.Error):
                if role_of(process) == role.lower():
                    found.append(process)
        return found

    def terminate(self) -> None:
        """Ask it to stop; it is started again after that."""
        with contextlib.suppress(ProcessLookupError):
            self.running.process.send_signal(signal.SIGTERM)

    def kill(self, *, all_at_once: bool) -> None:
        """Kill the supervisor, and its children beside it or left to themselves."""
        victims = self.running.family() if all_at_once else self.running.family()[:1]
        for process in victims:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def abandon(self) -> None:
        """Start it no more."""
        self._over.set()
        if self._keeper.ident is not None:
            self._keeper.join(10)

    def stop(self) -> str:
        """Stop it for good with SIGTERM; return what went wrong."""
        self.abandon()
        process = self.running.process
        if process.poll() is not None:
            return f"{self.running.folder.name} had ended with status {process.returncode}"
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while process.poll() is None:
            if time.monotonic() > deadline:
                return f"{self.running.folder.name} does not stop"
            time.sleep(0.05)
        return f"{self.running.folder.name} ended with status {process.returncode}" if process.returncode else ""

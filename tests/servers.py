"""Private database servers for the tests: free ports, temporary folders, gone with the session."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import psutil
import psycopg
import pymysql
import redis as redis_client


class ServerMissing(Exception):
    """Raised when the program of a server is not installed."""


#: Below the ports that systems give to clients: a connection of another test may take such a one before a server does.
_PORTS = range(20_000, 32_000)
# Not the shared generator, which property tests seed.
_random = random.SystemRandom()
#: Those that were given away: who got one may listen on it only later, or at times.
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port on loopback that nothing listens on now, and that no other test was or is given."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    # Test processes that look for one at the same moment must not find the same.
    ours = _PORTS[int(worker.removeprefix("gw")) % int(workers) :: int(workers)]
    while True:
        port = _random.choice(ours)
        if port in _given and len(_given) < len(ours) // 2:
            continue
        _given.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
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

    #: Seconds that it may take to start, on a machine that is busy with others.
    patience = 60

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
        deadline = time.monotonic() + self.patience
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
        # Programs of servers lie where only root looks.
        return {"PATH": f"{os.environ['PATH']}:/usr/sbin", "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}


class Postgres(Server):
    """A PostgreSQL cluster, reached by TCP as ``postgres`` without a password.

    Parameters:
        options: settings, such as ``fsync=on``.
        durable: whether commits survive the machine, as they do by default; without it, they cost little.
    """

    def __init__(self, *options: str, durable: bool = False) -> None:
        self.bin = self._find()
        self.options = options if durable else ("fsync=off", *options)
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
        settings = ["max_connections=200", "shared_buffers=256MB", "autovacuum_naptime=10s", *self.options]
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

    def new_database(self, template: str = "template1") -> str:
        """Create a database, empty or a copy of one that nobody is connected to, and return its name."""
        self._counter += 1
        name = f"test_{self._counter}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


class Redis(Server):
    """A Redis server that writes nothing to disk by itself."""

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

    def start(self) -> None:
        super().start()
        (self.folder / "dump.rdb").unlink(missing_ok=True)  # once is enough

    def flush(self) -> None:
        with redis_client.Redis(port=self.port) as client:
            client.flushall()

    def save(self) -> None:
        """Keep what it holds over its next start."""
        with redis_client.Redis(port=self.port) as client:
            client.save()


class MariaDB(Server):
    """A MariaDB server, reached by TCP as ``root`` without a password.

    With ``JOBBER_TEST_MYSQLD`` set, the ``mysqld`` of that path runs in its place: the same tests on MySQL.

    Parameters:
        options: settings, such as ``innodb-doublewrite=1``.
        durable: whether commits survive the machine, as they do by default; without it, they survive its process.
    """

    def __init__(self, *options: str, durable: bool = False) -> None:
        self.program = self._find()
        self.options = options if durable else ("innodb-flush-log-at-trx-commit=2", "innodb-doublewrite=0", *options)
        super().__init__("mariadb", "mysql")
        if self.is_mysql:
            self.run([self.program, "--no-defaults", "--initialize-insecure", f"--datadir={self.folder}/data"])
        else:
            self.run(
                [
                    *("mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data", "--skip-test-db"),
                    # See ``command``: of two that are installed beside each other, one would fail.
                    *("--auth-root-authentication-method=normal", f"--tmpdir={self.folder}"),
                ]
            )
        self._counter = 0

    @staticmethod
    def _find() -> str:
        if chosen := os.environ.get("JOBBER_TEST_MYSQLD"):
            return chosen
        if found := shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"):
            return found
        raise ServerMissing("MariaDB (package mariadb-server)")

    @property
    def is_mysql(self) -> bool:
        """Whether it is MySQL itself."""
        return "JOBBER_TEST_MYSQLD" in os.environ

    def command(self) -> list[str]:
        settings = [
            *("bind-address=127.0.0.1", "character-set-server=utf8mb4", "local-infile=1", "max-connections=300"),
            "innodb-buffer-pool-size=256M",
            *(["skip-log-bin", "mysqlx=OFF", "secure-file-priv=NULL"] if self.is_mysql else []),
            *self.options,
        ]
        return [
            *(self.program, "--no-defaults", f"--datadir={self.folder}/data", f"--port={self.port}"),
            # A server that starts removes temporary tables of others from a folder that they share.
            *(f"--socket={self.folder}/s", f"--pid-file={self.folder}/pid", f"--tmpdir={self.folder}"),
            *(f"--{setting}" for setting in settings),
        ]

    def ready(self) -> bool:
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def connect(self, database: str | None = None, **options: Any) -> pymysql.Connection[Any]:
        """Return a connection of its administrator."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database=database,
            autocommit=True,
            connect_timeout=2,
            **options,
        )

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        self._counter += 1
        name = f"test_{self._counter}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, and whatever still is connected to it."""
        for (thread,) in self.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
            with contextlib.suppress(pymysql.err.Error):
                self.execute(f"KILL {thread}")
        self.execute(f"DROP DATABASE IF EXISTS {name}")


class RabbitMQ(Server):
    """A RabbitMQ node, reached as ``guest``."""

    patience = 100

    def __init__(self) -> None:
        program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        found = str(program) if program.exists() else shutil.which("rabbitmq-server")
        if found is None:
            raise ServerMissing("RabbitMQ (package rabbitmq-server)")
        self.program = found
        super().__init__("rabbitmq", "rabbitmq")
        self.dist_port = free_port()
        self._node = f"jobber{self.port}@localhost"

    def command(self) -> list[str]:
        return [self.program]

    def ready(self) -> bool:
        # The port answers before the node takes logins.
        try:
            with kombu.Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except (OSError, kombu.exceptions.KombuError, *kombu.Connection(self.url).connection_errors):
            return False
        return True

    def stop(self, *, kill: bool = False) -> None:
        # The program is a script; the node is the Erlang machine that it became, or started.
        node = self._machine() if self.process is not None else None
        if node is not None:
            node.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        super().stop(kill=kill)
        if node is not None:
            # It may outlive the script by a little, and keeps name and ports until then.
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not is_alive(node), timeout=20)
            with contextlib.suppress(psutil.NoSuchProcess):
                node.kill()

    def _machine(self) -> psutil.Process | None:
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess, ValueError):
            return psutil.Process(int((self.folder / "pid").read_text()))
        return None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def eval(self, code: str) -> str:
        """Evaluate Erlang expressions on the node and return the value of the last one as text, in ASCII.

        By a small program of Erlang's own, if it is there: ``rabbitmqctl`` starts an Erlang machine for it.
        """
        caller = _erl_call()
        if caller is None:
            return self.control("eval", f"{code}.").strip()
        cookie = (self.folder / ".erlang.cookie").read_text()
        said = subprocess.run(
            [caller, "-sname", self._node, "-c", cookie, "-e"],
            input=f'lists:flatten(io_lib:format("~0tp", [begin {code} end])).\n',
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        if not said.startswith('{ok, "'):
            raise RuntimeError(f"{code}: {said}")
        return said.removeprefix('{ok, "').removesuffix('"}')

    def names(self, vhost: str = "/") -> set[str]:
        """Return the names of the queues, and of the exchanges that clients declared."""
        found = self.eval(
            f'[element(4, amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list(<<"{vhost}">>)] ++ '
            f'[element(4, element(2, X)) || X <- rabbit_exchange:list(<<"{vhost}">>)]'
        )
        return {name for name in re.findall(r'<<"([^"]+)">>', found) if not name.startswith("amq.")}

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on the node and return what it prints; it takes seconds."""
        program = str(Path(self.program).parent / "rabbitmqctl")
        return subprocess.run(
            [program, "--quiet", *arguments],
            check=True,
            cwd=self.folder,
            user=self.user,
            capture_output=True,
            text=True,
            env=self._environment(),
        ).stdout

    def _environment(self) -> dict[str, str]:
        return {
            **super()._environment(),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # Its schedulers would spin for a while before they sleep, on cores that others need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }


def _erl_call() -> str | None:
    """Return the program that calls an Erlang node, if it is installed."""
    found = sorted(str(path) for path in Path("/usr").glob("lib*/erlang/erts-*/bin/erl_call"))
    return found[-1] if found else shutil.which("erl_call")


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], object], timeout: float = 10.0, interval: float = 0.02) -> None:
    """Return as soon as ``condition()`` is true; fail the test after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {condition}")
        time.sleep(interval)

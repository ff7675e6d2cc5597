"""Carries out the faults of a plan, each in a thread of its own: they overlap."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import psutil
import psycopg
import pymysql
import redis

from tests.chaos.load import Load
from tests.chaos.plan import FAULTS, Fault
from tests.chaos.site import LEASE, Instance, Site, crash, family
from tests.chaos.trail import Trail
from tests.servers import Postgres, Server

#: Seconds to wait for what must be there first: a victim, a job that it holds.
_PATIENCE = 10.0
#: Jobs that a worker should hold when it is stopped for long.
_WORTH_IT = 4
#: Seconds for which a worker that comes back cannot reach the state database.
_IGNORANCE = 2.0
_SERVERS = ("Redis", "PostgreSQL", "MariaDB", "the state database")


class Injector:
    """Breaks things.

    Parameters:
        trail: tells which attempts the workers of an instance hold.
        load: cancels jobs, and runs their IDs once more.
        say: is told of every fault.
    """

    def __init__(
        self,
        site: Site,
        faults: Sequence[Fault],
        *,
        trail: Trail,
        load: Load,
        say: Callable[[str], None],
    ) -> None:
        self.done: Counter[str] = Counter()
        self.trouble: list[str] = []
        #: When a PostgreSQL server that holds results was killed: unlogged tables are empty after it.
        self.crashes: list[datetime] = []
        #: Jobs that were held by workers when those were stopped for longer than their lease.
        self.outlived = 0
        self._site = site
        self._faults = faults
        self._trail = trail
        self._load = load
        self._say = say
        self._locks: defaultdict[Server, threading.Lock] = defaultdict(threading.Lock)
        self._outlived: list[Instance] = []
        # Of those that are stopped for long, so many at a time that somebody is there to take over.
        self._few = threading.Semaphore(max(1, len(site.instances) - 1))
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """Wait until the last fault is over and all that is to run runs."""
        self._thread.join()
        for thread in self._threads:
            thread.join()
        for process in self._site.processes():
            with contextlib.suppress(psutil.Error):
                process.resume()

    def _run(self) -> None:
        begin = time.monotonic()
        for fault in self._faults:
            time.sleep(max(0.0, fault.at - (time.monotonic() - begin)))
            thread = threading.Thread(target=self._inject, args=[fault], daemon=True)
            thread.start()
            self._threads.append(thread)

    def _inject(self, fault: Fault) -> None:
        try:
            if self._do(fault):
                self.done[fault.kind] += 1
                self._say(fault.kind)
        except Exception as error:  # noqa: BLE001  # a fault that cannot be made is told, not raised in a thread
            self.trouble.append(f"{fault.kind}: {error!r}")

    def _do(self, fault: Fault) -> bool:
        for name in _SERVERS:
            if fault.kind.endswith(name):
                return self._server(fault.kind.removesuffix(name).strip(), self._site.servers[name], fault.seconds)
        return self._instance(fault)

    # -- servers ------------------------------------------------------------------------------------------------------

    def _server(self, what: str, server: Server, seconds: float) -> bool:
        with self._locks[server]:
            if what == "FLUSHALL":
                with contextlib.suppress(redis.RedisError):
                    self._site.redis.flush()
            elif what == "SIGSTOP":
                with _frozen(server):
                    time.sleep(seconds)
            else:
                if what == "kill -9":
                    crash(server)
                    if isinstance(server, Postgres) and server is self._site.postgres:
                        self.crashes.append(datetime.now(UTC))
                else:
                    if isinstance(server, Postgres) and server.process is not None:
                        # "Fast": SIGTERM would wait for clients to leave, and those of a pool never do.
                        server.process.send_signal(signal.SIGINT)
                        server.process.wait(30)
                    server.stop()
                time.sleep(seconds)
                server.start()
        return True

    # -- instances ----------------------------------------------------------------------------------------------------

    def _instance(self, fault: Fault) -> bool:
        if "past its lease" in fault.kind:
            with self._few:
                return self._on_instance(fault)
        return self._on_instance(fault)

    def _on_instance(self, fault: Fault) -> bool:
        victims: list[tuple[Instance, psutil.Process]] = []

        def look() -> bool:
            victims[:] = self._members(fault.kind.split()[-1] if fault.kind in _ACTIONS else "worker")
            return bool(victims)

        self._wait(look, _PATIENCE)  # perhaps all of them are just being started
        if not victims:
            return False
        instance, process = victims[int(fault.pick * len(victims))]
        try:
            if "past its lease" in fault.kind:
                self._outlive(instance, process, fault.seconds)
            elif fault.kind in _ACTIONS:
                _ACTIONS[fault.kind](instance, process)
            else:
                process.suspend()
                time.sleep(fault.seconds)
                process.resume()
        except psutil.NoSuchProcess:
            pass  # another fault was faster, and harder
        return True

    def _members(self, role: str) -> list[tuple[Instance, psutil.Process]]:
        """Return processes of a role; those of an instance whose worker is being outlived are left in peace."""
        instances = self._site.instances
        free = [one for one in instances if one not in self._outlived] or instances
        return [(one, process) for one in free for process in one.members(role)]

    def _outlive(self, instance: Instance, process: psutil.Process, more: float) -> None:
        """Stop a worker until its jobs are others', and let it go on: whatever it does then comes too late.

        Half of its jobs are cancelled meanwhile; some of the others end elsewhere, and their IDs run once more.
        """
        name = instance.running.folder.name
        self._outlived.append(instance)
        try:
            self._wait(lambda: len(self._held(name)) >= _WORTH_IT, _PATIENCE)
            process.suspend()
            held = self._held(name)
            self.outlived += len(held)
            jobs = list(held.values())
            again = jobs[1:4:2]
            for job_id in jobs[::2]:
                self._load.cancel_soon(job_id)
            for job_id in again:
                self._load.submit_again(job_id)
            self._wait(lambda: self._taken_over(held), LEASE + _PATIENCE)
            if more < LEASE / 2:  # else the next attempts still run when it goes on
                self._wait(lambda: self._ran_again(again), _PATIENCE)
            state = self._site.state
            with self._locks[state], _frozen(state):
                # It cannot learn that it was declared dead: only results databases can stop it.
                process.resume()
                time.sleep(_IGNORANCE)
        finally:
            self._outlived.remove(instance)
            process.resume()

    def _held(self, name: str) -> dict[tuple[int, int], str]:
        """Return what the workers of an instance hold; nothing while the state database is away."""
        with contextlib.suppress(psycopg.Error, pymysql.Error):
            return self._trail.running(name)
        return {}

    def _taken_over(self, held: dict[tuple[int, int], str]) -> bool:
        """Return whether no attempt of ``held`` counts any more, and a later one of those runs goes on."""
        with contextlib.suppress(psycopg.Error, pymysql.Error):
            now = self._trail.running("").keys()
            return not now & held.keys() and bool({run for run, _ in now} & {run for run, _ in held})
        return False

    def _ran_again(self, jobs: Sequence[str]) -> bool:
        with contextlib.suppress(psycopg.Error, pymysql.Error):
            return not set(jobs) & (self._load.waiting_again | self._trail.alive())
        return False

    @staticmethod
    def _wait(condition: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)


@contextlib.contextmanager
def _frozen(server: Server) -> Iterator[None]:
    """Keep all processes of a server stopped during the body."""
    processes = family(server)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.resume()


_ACTIONS: dict[str, Callable[[Instance, psutil.Process], None]] = {
    "kill -9 a worker": lambda _instance, process: process.kill(),
    "kill -9 the API": lambda _instance, process: process.kill(),
    "kill -9 an instance": lambda instance, _process: instance.kill(all_at_once=True),
    "kill -9 a supervisor": lambda instance, _process: instance.kill(all_at_once=False),
    "stop an instance": lambda instance, _process: instance.terminate(),
}
assert {kind for kind in FAULTS if not kind.endswith(_SERVERS)} > _ACTIONS.keys()

from __future__ import annotations

import multiprocessing
import signal

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text

from jobber.store import Store, migrations
from jobber.store.migrations import VERSION_TABLE
from jobber.store.records import NEW_RUN, values_of
from jobber.store.schema import metadata
from tests.forking import start
from tests.servers import Postgres
from tests.store import crowd
from tests.store.conftest import QUEUES, Bench, new_job


def differences(store: Store) -> object:
    """Return what the tables in the database and those of the code do not have in common."""

    def work(connection: Connection) -> object:
        opts = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=opts), metadata)

    return store._database.read(work)


def test_the_migrations_make_the_tables_that_the_code_uses(store: Store) -> None:
    assert differences(store) == []


def test_small_hot_tables_leave_room_in_their_pages(postgres: Postgres, postgres_url: str) -> None:
    store = Store(postgres_url)
    store.migrate()
    query = text("SELECT relname FROM pg_class WHERE reloptions @> ARRAY['fillfactor=40'] ORDER BY 1")
    names = store._database.read(lambda connection: connection.execute(query).scalars().all())
    hot = ("backlogs", "dispatch", "lanes", "leaders", "rates", "running", "tenants", "workers")
    assert names == [f"jobber_{name}" for name in hot]
    names_in_metadata = [table.name for table in metadata.sorted_tables if table.dialect_options["postgresql"]["with"]]
    assert {*names, "jobber_jobs", "jobber_groups", "jobber_outbox"} == set(names_in_metadata)
    store.close()


def test_processes_that_migrate_at_once_end_with_one_schema(bare_url: str) -> None:
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager:
        barrier = manager.Barrier(4)
        processes = [start(crowd.migrate, bare_url, barrier) for _ in range(4)]
        for process in processes:
            process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    store = Store(bare_url)
    assert len(store.pending("q")) == 4
    store.close()


def test_a_migration_that_dies_half_way_can_be_run_again(bare_url: str) -> None:
    # On MySQL each process leaves the steps behind that it took; elsewhere nothing.
    for attempt in range(20):
        dying = start(crowd.die_migrating, bare_url, 3 if bare_url.startswith("mysql") else 4 * attempt + 1)
        dying.join(60)
        if dying.exitcode == 0:
            break
        assert dying.exitcode == -signal.SIGKILL
    assert attempt > 2
    store = Store(bare_url)
    store.migrate()
    assert differences(store) == []
    for table in ("jobber_dispatch", "jobber_counters"):
        count = text(f"SELECT count(*) FROM {table}")
        assert store._database.read(lambda connection, count=count: connection.execute(count).scalar_one()) == 1
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    bench.submit("a")
    assert bench.ids() == ["a"]
    store.close()


def test_migrating_again_changes_nothing(bench: Bench) -> None:
    bench.submit("a")
    bench.store.migrate()
    assert bench.ids() == ["a"]


def test_other_tables_in_the_database_are_left_alone(bare_url: str) -> None:
    store = Store(bare_url)
    store._database.write(lambda connection: connection.execute(text("CREATE TABLE jobs (mine int)")))
    store._database.write(lambda connection: connection.execute(text("CREATE TABLE alembic_version (mine int)")))
    store.migrate()
    for name in ("jobs", "alembic_version"):
        query = text(f"SELECT mine FROM {name}")
        assert store._database.read(lambda connection, query=query: connection.execute(query).all()) == []
    store.close()


def test_jobs_of_the_first_schema_live_on(bare_url: str) -> None:
    store = Store(bare_url)
    store._database.write(lambda connection: migrations.upgrade(connection, "0001"))
    tables = MetaData()

    def fill(connection: Connection) -> None:
        tables.reflect(connection, only=["jobber_jobs", "jobber_lanes"])
        lane = {"queue": "q", "task": "t", "db": "db0", "tenant": "", "job_group": "", "suspect": False}
        row = {**NEW_RUN, **values_of(new_job("old"), 7, 1), "lane": 1, "ord": 7}
        row |= {"due": None, "ended_attempt": 0, "ended_as": ""}
        kept = {name: row[name] for name in tables.tables["jobber_jobs"].columns.keys()}  # noqa: SIM118
        connection.execute(tables.tables["jobber_lanes"].insert().values(id=1, head=7, version=1, **lane))
        connection.execute(tables.tables["jobber_jobs"].insert().values(kept))

    store._database.write(fill)
    store.migrate()
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    (job,) = bench.claim().jobs
    assert (job.job_id, job.group_id, job.group_run) == ("old", "", None)
    store.succeed(job, rows=1, columns=[])
    store.close()

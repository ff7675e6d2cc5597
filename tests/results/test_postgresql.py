"""What results on PostgreSQL promise beyond the conformance suite."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.errors import Cancelled, ConfigError, ResultsFailed, ResultsGone, ResultsUnavailable, ValueNotRepresentable
from jobber.results import open_results
from jobber.results.postgresql import PostgresResults
from jobber.results.postgresql_pool import Connection
from jobber.sources.base import Chunk
from tests.results.conftest import COLUMNS, PostgresLab, load, postgres_lab, read, target, write
from tests.servers import Postgres, free_port, wait_until

ONE: list[Row] = [(1, "one")]
TWO: list[Row] = [(1, "uno"), (2, "dos")]
BULKY: list[Row] = [(n, "x" * 1_500_000) for n in range(4)]


@pytest.fixture(params=[False, True], ids=["logged", "unlogged"])
def either(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[PostgresLab]:
    yield from postgres_lab(postgres, unlogged=request.param)


@contextmanager
def transaction(lab: PostgresLab, sql: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Keep a transaction open that has run ``sql``."""
    with lab.connect() as connection, connection.transaction():
        connection.execute(sql)  # type: ignore[call-overload]
        yield connection


def settings_for(postgres: Postgres, database: str, user: str = "postgres", **more: object) -> ResultsSettings:
    url = make_url(postgres.url(database)).set(username=user).render_as_string(hide_password=False)
    return ResultsSettings(name="main", url=url, engine="postgresql", **more)  # type: ignore[arg-type]


# -- readers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_a_reader_that_keeps_the_old_result_open_holds_up_no_other_reader(pg: PostgresLab, rows: list[Row]) -> None:
    write(pg.backend, target(run=1), ONE)
    waits = []
    with ThreadPoolExecutor(1) as pool:
        with transaction(pg, 'SELECT * FROM "results_a"'):
            publishing = pool.submit(write, pg.another(), target(run=2), rows)
            wait_until(lambda: pg.query("SELECT 1 FROM pg_locks WHERE NOT granted"), interval=0.001)
            with pg.connect() as reader:
                until = time.monotonic() + 1
                while time.monotonic() < until:
                    started = time.perf_counter()
                    assert reader.execute('SELECT * FROM "results_a"').fetchall() == ONE
                    waits.append(time.perf_counter() - started)
            assert not publishing.done()
        assert publishing.result(20) == len(rows)
    # The lock timeout is 0.1 s, the rest is a loaded machine's; without one, readers wait for a whole second.
    assert max(waits) < 0.3
    assert read(pg.backend, 2) == rows
    assert pg.tables() == {"results_a"}


def test_publishing_fails_clearly_when_the_reader_stays_and_the_old_result_stays_too(pg: PostgresLab) -> None:
    write(pg.backend, target(run=1), ONE)
    impatient = pg.another(publish_timeout=0.3)
    with transaction(pg, 'SELECT * FROM "results_a"'):
        with pytest.raises(ResultsFailed, match=r"held open by a reader for more than 0\.3 s") as caught:
            write(impatient, target(run=2), TWO)
        with pytest.raises(ResultsFailed, match="held open by a reader"):
            impatient.drop("results_a", 1)
    assert caught.value.retryable
    assert read(pg.backend, 1) == ONE
    assert pg.tables() == {"results_a"}
    assert impatient.drop("results_a", 1)


def test_expiry_leaves_a_result_that_is_being_read_for_later(pg: PostgresLab) -> None:
    for table in ("results_a", "results_b"):
        write(pg.backend, target(table, ttl=1), ONE)
        pg.overdue(table)
    with transaction(pg, 'SELECT * FROM "results_a"'):
        assert pg.backend.expire() == ["results_b"]
    assert pg.backend.expire() == ["results_a"]


def test_maintenance_on_the_old_result_delays_publishing_but_no_reader(pg: PostgresLab) -> None:
    """Autovacuum yields only to who waits for a second; a reader must not wait behind that."""
    write(pg.backend, target(run=1), ONE)
    with ThreadPoolExecutor(1) as pool:
        with transaction(pg, 'LOCK TABLE "results_a" IN SHARE UPDATE EXCLUSIVE MODE'):
            publishing = pool.submit(write, pg.another(), target(run=2), TWO)
            wait_until(lambda: pg.query("SELECT 1 FROM pg_locks WHERE NOT granted"))
            with pg.connect(connect_timeout=5) as reader:
                reader.execute("SET lock_timeout = '10ms'")
                for _ in range(20):
                    assert reader.execute('SELECT * FROM "results_a"').fetchall() == ONE
                    time.sleep(0.01)
            assert not publishing.done()
        assert publishing.result(20) == 2


def test_readers_never_see_the_rows_of_another_run_while_reruns_are_published(pg: PostgresLab) -> None:
    stop = threading.Event()
    write(pg.backend, target(run=1), [(1, "x")])
    seen = []

    def reader() -> None:
        backend = pg.another()
        while not stop.is_set():
            [(run,)] = pg.query("SELECT run FROM jobber_ledger")
            with suppress(ResultsGone):  # replaced between the two looks
                seen.append(read(backend, run) == [(run, "x")] * run)

    thread = threading.Thread(target=reader)
    thread.start()
    for run in range(2, 30):
        write(pg.backend, target(run=run), [(run, "x")] * run)
    stop.set()
    thread.join()
    assert seen
    assert all(seen)


def test_a_view_on_the_old_result_makes_the_rerun_fail_and_stays(pg: PostgresLab) -> None:
    write(pg.backend, target(run=1), ONE)
    pg.query('CREATE VIEW mine AS SELECT * FROM "results_a"')
    with pytest.raises(ResultsFailed, match="view mine depends on") as caught:
        write(pg.backend, target(run=2), TWO)
    assert not caught.value.retryable
    assert pg.query("SELECT * FROM mine") == ONE
    assert read(pg.backend, 1) == ONE


@pytest.mark.parametrize("made", ["VIEW {} AS SELECT 1", "TYPE {} AS ENUM ('x')", "SEQUENCE {}"])
def test_nothing_else_of_that_name_is_replaced(pg: PostgresLab, made: str) -> None:
    pg.query("CREATE " + made.format('"results_a"'))
    with pytest.raises(ResultsFailed, match="not made by jobber"):
        write(pg.backend, target(), ONE)
    assert pg.tables() == set()


# -- loading ----------------------------------------------------------------------------------------------------------


def test_encoded_rows_are_stored_as_they_come(either: PostgresLab) -> None:
    columns = [Column("a", Kind.INTEGER), Column("b", Kind.FLOAT), Column("c", Kind.BOOLEAN), Column("d", Kind.TEXT)]
    with either.backend.begin(target(), columns, Cancellation()) as writer:
        writer.write_chunk(Chunk(b"1\t0.1\tt\ta\\tb\\\\\n\\N\t\\N\t\\N\t\\N\n", 2))
        writer.write_chunk(Chunk(b"3\tNaN\tf\t\\\\N\n", 1))
        assert writer.publish() == 3
    rows = read(either.backend, 1, columns)
    assert rows[:2] == [(1, 0.1, True, "a\tb\\"), (None, None, None, None)]
    assert repr(rows[2]) == repr((3, float("nan"), False, "\\N"))


def test_a_chunk_that_lies_about_its_rows_fails_the_attempt(pg: PostgresLab) -> None:
    with pytest.raises(ResultsFailed, match="stored 2 rows of 3"):
        load(pg.backend, target(), Chunk(b"1\ta\n2\tb\n", 3))


@pytest.mark.parametrize("bad", [b"ok\xff", b"nul\0"])
def test_bytes_that_are_no_text_are_traced_to_their_column(pg: PostgresLab, bad: bytes) -> None:
    columns = [*COLUMNS, Column("last", Kind.TEXT)]
    good, wrong = Chunk(b"1\ta\tb\n2\tc\td\n", 2), Chunk(b"3\te\tf\n4\tg\t" + bad + b"\n", 2)
    with pytest.raises(ValueNotRepresentable) as caught:
        load(pg.backend, target(), good, wrong, columns=columns)
    assert caught.value.details["column"] == "last"


def test_a_bad_value_deep_in_a_large_load_is_named(either: PostgresLab) -> None:
    with pytest.raises(ValueNotRepresentable, match=r'column "id" cannot hold "x1"'):
        load(either.backend, target(), *[BULKY] * 5, Chunk(b"x1\tbad\n", 1))
    assert either.tables() == set()


def test_a_load_that_failed_once_cannot_go_on_without_the_lost_rows(pg: PostgresLab) -> None:
    with pg.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        writer.write_chunk(Chunk(b"x1\tbad\n", 1))
        with pytest.raises(ValueNotRepresentable):
            writer.publish()
        with pytest.raises(ValueNotRepresentable):
            writer.write_batch(BULKY)
        with pytest.raises(ValueNotRepresentable):
            writer.publish()
    assert pg.tables() == set()


def test_a_slow_load_keeps_no_transaction_open_and_the_order_of_its_rows(either: PostgresLab) -> None:
    backend = either.another(segment_seconds=0.05)
    rows: list[Row] = []
    with backend.begin(target(), COLUMNS, Cancellation()) as writer:
        for part in range(3):
            batch: list[Row] = [(part * 100 + n, "x" * width) for n, width in enumerate([900_000, 20, 7000] * 5)]
            rows += batch
            writer.write_batch(batch)
            wait_until(lambda n=part + 1: len(either.tables()) == n)
            busy = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'jobber results main' AND state <> 'idle'"
            assert either.query(f"{busy} AND xact_start IS NOT NULL") == []
        assert "results_a" not in either.tables()
        writer.publish()
    assert read(backend) == rows
    assert either.tables() == {"results_a"}
    assert either.ledger("SELECT staging, leftovers, rows FROM jobber_ledger") == [(None, [], len(rows))]


def test_whoever_overtakes_a_slow_load_drops_what_it_committed(pg: PostgresLab) -> None:
    slow = pg.another(segment_seconds=0.05)
    with slow.begin(target(attempt=1), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        wait_until(pg.tables)
        write(pg.backend, target(attempt=2), ONE)
        assert pg.tables() == {"results_a"}
        with pytest.raises(Exception, match="overtaken"):
            writer.publish()
    assert read(pg.backend) == ONE


def test_a_staging_table_that_somebody_keeps_open_is_dropped_by_the_janitor(pg: PostgresLab) -> None:
    slow = pg.another(segment_seconds=0.05)
    slow.give_up = lambda *_, **__: None  # type: ignore[method-assign]  # a dead process cleans up nothing
    with slow.begin(target(attempt=1), COLUMNS, Cancellation()) as writer:
        writer.write_batch(BULKY)
        wait_until(pg.tables)
        [staging] = pg.tables()
        with transaction(pg, f"SELECT count(*) FROM {staging}"):
            pg.backend.fence("results_a", 1, 1)
            write(pg.backend, target(attempt=2), ONE)
            assert pg.tables() == {"results_a", staging}
    pg.backend.expire()
    assert pg.tables() == {"results_a"}
    assert pg.ledger("SELECT leftovers FROM jobber_ledger") == [([],)]


def test_a_worker_that_dies_leaves_a_staging_table_that_the_next_attempt_drops(pg: PostgresLab) -> None:
    dying = pg.another(segment_seconds=0.05)
    context = dying.begin(target(attempt=1), COLUMNS, Cancellation())
    context.__enter__().write_batch(BULKY)
    wait_until(pg.tables)
    dying.give_up = lambda *_, **__: None  # type: ignore[method-assign]  # a dead process cleans up nothing
    write(pg.backend, target(attempt=2), ONE)
    assert pg.tables() == {"results_a"}
    context.__exit__(None, None, None)


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_publishing_again_after_a_lost_acknowledgement_is_harmless(either: PostgresLab, rows: list[Row]) -> None:
    with either.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(rows)
        assert writer.publish() == len(rows)
        writer._published = False  # the answer never arrived
        assert writer.publish() == len(rows)
    assert read(either.backend) == rows
    assert either.tables() == {"results_a"}


def test_unlogged_tables_are_unlogged_however_they_were_filled(postgres: Postgres) -> None:
    with contextmanager(postgres_lab)(postgres, unlogged=True) as lab:
        slow = lab.another(segment_seconds=0.01)
        write(lab.backend, target("results_small"), ONE)
        write(lab.backend, target("results_bulky"), BULKY)
        with slow.begin(target("results_slow"), COLUMNS, Cancellation()) as writer:
            for count in (1, 2):
                writer.write_batch(BULKY)
                wait_until(lambda n=count + 2: len(lab.tables()) == n)
            writer.publish()
        kinds = lab.query(
            "SELECT DISTINCT relpersistence FROM pg_class "
            "WHERE relname LIKE 'results\\_%' AND relnamespace = current_schema()::regnamespace"
        )
        assert kinds == [("u",)]


# -- cancelling -------------------------------------------------------------------------------------------------------

CANCELLED = Cancelled("the job was cancelled")


def attempt(backend: PostgresResults, token: Cancellation, rows: list[Row], *parts: Callable[[], object]) -> int:
    """Load and publish run 2; what is in ``parts`` is called before publishing."""
    with backend.begin(target(run=2), COLUMNS, token) as writer:
        writer.write_batch(rows)
        for part in parts:
            part()
        return writer.publish()


def ended(future: Future[int], within: float = 5) -> BaseException | None:
    """Return the error of an attempt that was cancelled, once it has ended."""
    return future.exception(within)


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
@pytest.mark.parametrize("lock", ["ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"])
def test_a_cancel_is_heard_while_publishing_waits_for_a_reader(pg: PostgresLab, rows: list[Row], lock: str) -> None:
    write(pg.backend, target(run=1), ONE)
    token = Cancellation()
    with ThreadPoolExecutor(1) as pool, transaction(pg, f'LOCK TABLE "results_a" IN {lock} MODE'):
        publishing = pool.submit(attempt, pg.another(), token, rows)
        wait_until(lambda: pg.query("SELECT 1 FROM pg_locks WHERE NOT granted"), interval=0.001)
        began = time.monotonic()
        token.pull(CANCELLED)
        assert ended(publishing) is CANCELLED
        assert time.monotonic() - began < 3
    assert read(pg.backend, 1) == ONE
    wait_until(lambda: pg.tables() == {"results_a"})
    wait_until(lambda: pg.backend.abandoned(-60) == [])


@contextmanager
def hung(server: Postgres) -> Iterator[None]:
    """Stop every process of a server while the body runs; the kernel still takes connections for it."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    pids = [server.process.pid, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """A server that may be stopped while other tests use theirs."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.mark.parametrize("at", ["begin", "load", "seal", "publish", "leave"])
def test_a_cancel_is_heard_though_the_server_hangs_and_nothing_is_published_when_it_goes_on(
    own_server: Postgres, at: str
) -> None:
    with contextmanager(postgres_lab)(own_server) as lab, ThreadPoolExecutor(1) as pool:
        write(lab.backend, target(run=1), ONE)
        backend = lab.another(segment_seconds=0.5 if at == "seal" else 60)
        backend.prepare()
        token, reached, go_on = Cancellation(), threading.Event(), threading.Event()

        def run() -> int:
            if at == "begin":
                reached.set()
                go_on.wait(10)
            with backend.begin(target(run=2), COLUMNS, token) as writer:
                writer.write_batch(TWO if at == "publish" else BULKY)
                reached.set()
                go_on.wait(10)
                if at == "leave":
                    raise ZeroDivisionError
                if at != "publish":
                    for _ in range(20):
                        writer.write_batch(BULKY)
                return writer.publish()

        running = pool.submit(run)
        assert reached.wait(10)
        with hung(own_server):
            if at == "seal":
                time.sleep(0.6)  # the timer's thread waits for the server now
            go_on.set()
            time.sleep(0.3)
            assert not running.done()
            token.pull(CANCELLED)
            error = ended(running)
        assert isinstance(error, ZeroDivisionError) if at == "leave" else error is CANCELLED
        wait_until(lambda: lab.backend.abandoned(-60) == [] or at == "begin")
        lab.backend.fence("results_a", 2, 1)
        assert lab.backend.abandoned(-60) == []
        wait_until(lambda: lab.tables() == {"results_a"})
        assert read(lab.backend, 1) == ONE


@pytest.mark.parametrize(("seconds", "published"), [(0.3, True), (60, False)])
def test_a_cancel_during_the_commit_tells_what_became_of_it(pg: PostgresLab, seconds: float, published: bool) -> None:
    write(pg.backend, target(run=1), ONE)
    pg.query(
        f"""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER dawdle AFTER UPDATE ON jobber_ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.run = 2) EXECUTE FUNCTION dawdle()
        """
    )
    token = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(attempt, pg.another(), token, TWO)
        committing = "SELECT 1 FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'"
        wait_until(lambda: pg.query(committing), interval=0.001)
        token.pull(CANCELLED)
        assert ended(publishing) is (None if published else CANCELLED)
    run = 2 if published else 1
    assert pg.ledger("SELECT run FROM jobber_ledger") == [(run,)]
    assert read(pg.backend, run) == (TWO if published else ONE)
    wait_until(lambda: pg.tables() == {"results_a"})


def test_a_commit_whose_answer_is_lost_is_asked_after(pg: PostgresLab) -> None:
    backend = pg.another()
    with backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_batch(TWO)
        commit = writer._commit

        def lose(connection: Connection) -> None:
            commit(connection)
            connection.close()
            connection.execute("SELECT 1")

        writer._commit = lose  # type: ignore[method-assign]
        assert writer.publish() == 2
    assert read(backend) == TWO


# -- rights -----------------------------------------------------------------------------------------------------------


def test_roles_of_grant_select_to_may_read_every_published_result(postgres: Postgres) -> None:
    role = 'weird "role" %s'
    postgres.execute('CREATE ROLE "weird ""role"" %s" LOGIN')
    with contextmanager(postgres_lab)(postgres, grant_select_to=(role,)) as lab:
        lab.query(f'GRANT USAGE ON SCHEMA {lab.schema} TO "weird ""role"" %s"')
        slow = lab.another(segment_seconds=0.01)
        write(lab.backend, target("results_small"), ONE)
        with slow.begin(target("results_slow"), COLUMNS, Cancellation()) as writer:
            for count in (1, 2):
                writer.write_batch(BULKY)
                wait_until(lambda n=count + 1: len(lab.tables()) == n)
            writer.publish()
        with lab.connect(user=role) as connection:
            assert connection.execute("SELECT * FROM results_small").fetchall() == ONE
            assert connection.execute("SELECT count(*) FROM results_slow").fetchall() == [(8,)]


def test_a_role_that_does_not_exist_is_named(postgres: Postgres) -> None:
    with contextmanager(postgres_lab)(postgres, grant_select_to=("no such role",)) as lab:
        with pytest.raises(ResultsFailed, match='role "no such role" does not exist') as caught:
            write(lab.backend, target(), ONE)
        assert not caught.value.retryable
        assert lab.tables() == set()


def test_missing_rights_are_told_in_the_servers_words(postgres: Postgres) -> None:
    name = postgres.new_database()
    postgres.execute("CREATE ROLE powerless LOGIN")
    backend = PostgresResults(settings_for(postgres, name, "powerless"))
    with pytest.raises(ResultsFailed, match="permission denied for schema public") as caught:
        write(backend, target(), ONE)
    assert not caught.value.retryable
    backend.close()
    postgres.drop_database(name)


def test_a_database_without_a_schema_to_use_is_told_so(postgres: Postgres) -> None:
    url = f"{postgres.url('postgres')}?options=-csearch_path%3Dnowhere"
    backend = PostgresResults(ResultsSettings(name="main", url=url, engine="postgresql"))
    with pytest.raises(ResultsFailed, match="search_path"):
        backend.prepare()
    backend.close()


def test_a_read_only_database_fails_clearly_and_keeps_what_it_has(postgres: Postgres) -> None:
    name = postgres.new_database()
    first = PostgresResults(settings_for(postgres, name))
    write(first, target(run=1), ONE)
    first.close()
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    second = PostgresResults(settings_for(postgres, name))
    with pytest.raises(ResultsFailed, match="read-only transaction") as caught:
        write(second, target(run=2), TWO)
    assert caught.value.retryable
    assert read(second, 1) == ONE
    second.close()
    postgres.drop_database(name)


def test_defaults_of_the_database_change_no_value(postgres: Postgres) -> None:
    name = postgres.new_database()
    for setting in (
        "datestyle = 'German'",
        "timezone = 'Asia/Tokyo'",
        "default_transaction_isolation = 'serializable'",
    ):
        postgres.execute(f"ALTER DATABASE {name} SET {setting}")
    backend = PostgresResults(settings_for(postgres, name))
    columns = [Column("d", Kind.DATE), Column("t", Kind.TIMESTAMP)]
    rows: list[Row] = [
        ("2024-03-04", "2024-03-04 05:06:07.8"),
        ("infinity", "-infinity"),
        ("0044-03-15 BC", "0044-03-15 12:00:00 BC"),
        ("12345-01-01", "12345-01-01 00:00:00"),
    ]
    write(backend, target(), rows, columns)
    assert read(backend, 1, columns) == rows
    backend.close()
    postgres.drop_database(name)


# -- connections ------------------------------------------------------------------------------------------------------


def test_opening_connects_to_nothing() -> None:
    url = f"postgresql+psycopg://user:hunter2@127.0.0.1:{free_port()}/nowhere"
    open_results(ResultsSettings(name="main", url=url, engine="postgresql")).close()


def test_a_server_that_is_down_is_unavailable_and_no_secret_is_told() -> None:
    url = f"postgresql+psycopg://someuser:hunter2@127.0.0.1:{free_port()}/somewhere"
    backend = PostgresResults(ResultsSettings(name="main", url=url, engine="postgresql"))
    with pytest.raises(ResultsUnavailable, match='"main" is not available: Connection refused') as caught:
        write(backend, target(), ONE)
    assert caught.value.retryable
    for secret in ("hunter2", "someuser", "127.0.0.1", "somewhere"):
        assert secret not in caught.value.message


def test_a_database_that_does_not_exist_and_one_that_is_full_are_told_in_the_servers_words(postgres: Postgres) -> None:
    backend = PostgresResults(settings_for(postgres, "no_such_database"))
    with pytest.raises(ResultsUnavailable, match='database "no_such_database" does not exist'):
        backend.prepare()
    name = postgres.new_database()
    postgres.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
    backend = PostgresResults(settings_for(postgres, name, "limited"))
    with pytest.raises(ResultsUnavailable, match="too many connections for role"):
        backend.prepare()
    postgres.drop_database(name)


def test_a_pool_that_is_used_up_says_so(pg: PostgresLab) -> None:
    pg.backend.prepare()
    backend = PostgresResults(replace(pg.settings, pool_size=1, connect_timeout=0.1))
    backend.prepare()
    with backend.connections.connection(), pytest.raises(ResultsUnavailable, match="raise its pool_size"):
        write(backend, target(), ONE)
    write(backend, target(), ONE)
    backend.close()


def test_connections_that_the_server_closed_while_idle_cost_no_attempt(pg: PostgresLab) -> None:
    write(pg.backend, target(), ONE)
    pg.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'jobber results main'"
    )
    assert read(pg.backend) == ONE


def test_a_connection_that_breaks_in_the_middle_of_a_load_ends_the_attempt_and_leaves_the_old_result(
    pg: PostgresLab,
) -> None:
    write(pg.backend, target(run=1), ONE)
    loader = pg.another()
    kill = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'COPY %'"
        " AND application_name = 'jobber results main'"
    )
    with pytest.raises(ResultsUnavailable):
        load(loader, target(run=2), BULKY, lambda _: pg.query(kill), BULKY)
    assert read(pg.backend, 1) == ONE
    assert pg.tables() == {"results_a"}


@pytest.mark.parametrize("unlogged", [False, True])
def test_a_server_that_crashes_in_the_middle_of_a_load_and_comes_back(unlogged: bool) -> None:
    server = Postgres()
    server.start()
    staged = "SELECT 1 FROM pg_class WHERE relname LIKE 'jobber_staging%'"

    def crash(_: object) -> None:
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as look:
            wait_until(lambda: look.execute(staged).fetchall())
            look.execute("CHECKPOINT")
        server.stop(kill=True)

    try:
        backend = PostgresResults(settings_for(server, "postgres", unlogged=unlogged), segment_seconds=0.05)
        write(backend, target(run=1), ONE)
        with pytest.raises(ResultsUnavailable):
            load(backend, target(run=2), BULKY, crash, BULKY)
        server.start()
        if unlogged:
            with pytest.raises(ResultsGone, match="emptied by a crash"):
                read(backend, 1)
        else:
            assert read(backend, 1) == ONE
        write(backend, target(run=2, attempt=2), TWO)
        assert read(backend, 2) == TWO
        with psycopg.connect(server.dsn("postgres")) as look:
            assert look.execute(staged).fetchall() == []
        backend.close()
    finally:
        server.remove()


@pytest.mark.parametrize("unlogged", [False, True])
def test_a_server_that_crashes_between_loading_and_publishing_publishes_all_rows_or_none(unlogged: bool) -> None:
    """A crash empties an UNLOGGED staging table; a fresh connection alone would not notice."""
    server = Postgres()
    server.start()
    try:
        backend = PostgresResults(settings_for(server, "postgres", unlogged=unlogged), segment_seconds=0.05)
        with backend.begin(target(), COLUMNS, Cancellation()) as writer:
            writer.write_batch(BULKY)
            with psycopg.connect(server.dsn("postgres"), autocommit=True) as look:
                staged = "SELECT 1 FROM pg_class WHERE relname LIKE 'jobber_staging%'"
                wait_until(lambda: look.execute(staged).fetchall())
                look.execute("CHECKPOINT")
            server.stop(kill=True)
            server.start()
            with pytest.raises(ResultsUnavailable):
                writer.publish()
            if unlogged:
                with pytest.raises(ResultsFailed, match="lost rows"):
                    writer.publish()
            else:
                assert writer.publish() == len(BULKY)
        if not unlogged:
            assert read(backend) == BULKY
        with psycopg.connect(server.dsn("postgres")) as look:
            assert look.execute(staged).fetchall() == []
        backend.close()
    finally:
        server.remove()


@pytest.fixture
def small_disk(tmp_path: Path, postgres: Postgres) -> Iterator[Path]:
    """A file system of 8 MB that the server may write to."""
    folder = postgres.folder / "small"
    folder.mkdir()
    owner = postgres.folder.stat()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=8m,uid={owner.st_uid},gid={owner.st_gid}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_fails_the_attempt_in_the_servers_words_and_leaves_nothing(
    pg: PostgresLab, small_disk: Path
) -> None:
    pg.query(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    url = pg.settings.url + "%20-cdefault_tablespace%3Dsmall"
    backend = PostgresResults(replace(pg.settings, url=url))
    noise = [(n, os.urandom(700_000).hex()) for n in range(4)]
    with pytest.raises(ResultsFailed, match="No space left on device") as caught:
        load(backend, target(), *[noise] * 5)
    assert caught.value.retryable
    assert pg.tables() == set()
    write(backend, target(attempt=2), ONE)
    assert read(backend) == ONE
    backend.drop("results_a", 1)
    backend.close()
    pg.query("DROP TABLE jobber_ledger")
    pg.query("CHECKPOINT")
    pg.query("DROP TABLESPACE small")


@pytest.mark.parametrize("template", ["%s", "results", "%s_%s", "jobber_%s", "JOBBER_%s", "a/%s", ".%s", "a\\%s"])
@pytest.mark.parametrize("engine", ["postgresql", "sqlite"])
def test_templates_that_could_meet_other_tables_are_refused(template: str, engine: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}" if engine == "sqlite" else "postgresql+psycopg://127.0.0.1/x"
    with pytest.raises(ConfigError, match=r"\[results.main\]"):
        open_results(ResultsSettings(name="main", url=url, engine=engine, results_table=template))


def test_an_engine_that_results_cannot_be_written_to_is_refused() -> None:
    with pytest.raises(ConfigError, match="oracle"):
        open_results(ResultsSettings(name="main", url="oracle://x", engine="oracle"))

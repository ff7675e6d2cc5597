"""Statements that go together: few round trips, one answer each, errors as of any other statement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Connection, Text, bindparam, cast, literal, select, text, true, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from jobber.errors import StateUnavailable
from jobber.store import Store
from jobber.store.database import Database
from jobber.store.engines import pipelining
from jobber.store.engines import postgresql as on_postgresql
from jobber.store.exchange import Request
from jobber.store.schema import dispatch
from tests.blackhole import Proxy
from tests.servers import Postgres, wait_until
from tests.store.conftest import Bench, new_job

#: Of a claim: all else waits for the lock that it holds meanwhile. And of one that ends other jobs, too.
ROUND_TRIPS = {"postgresql": 2, "mysql": 4}
WITH_ENDS = {"postgresql": 2, "mysql": 5}
_ECHO = select(bindparam("what", type_=BigInteger).label("said"), true().label("sure"))
_TURN = update(dispatch).values(turn=bindparam("to", type_=BigInteger))


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[Store]:
    store = Store(postgres_url)
    yield store
    store.close()


def turn(store: Store) -> int:
    return int(store._database.read(lambda connection: connection.execute(select(dispatch.c.turn)).scalar_one()))


def test_a_claim_takes_few_round_trips(server_url: str) -> None:
    url = make_url(server_url)
    assert url.port is not None
    with Proxy(url.port) as proxy:
        store = Store(url.set(port=proxy.port).render_as_string(hide_password=False), pool_size=1)
        bench = Bench(store, store.register("w", ["q"], 10, lease=60))
        store.submit([new_job(f"j{n}", tenant="ab"[n % 2], task="tu"[n // 2 % 2]) for n in range(40)])
        trips = []
        for _ in range(10):
            before = proxy.round_trips
            assert len(bench.claim().jobs) == 1
            trips.append(proxy.round_trips - before)
        store.close()
    # The first ones learn what limits there are.
    assert max(trips[1:]) == ROUND_TRIPS[url.get_backend_name()]


def test_jobs_end_together_with_a_claim_in_as_few_round_trips(server_url: str) -> None:
    url = make_url(server_url)
    assert url.port is not None
    with Proxy(url.port) as proxy:
        store = Store(url.set(port=proxy.port).render_as_string(hide_password=False), pool_size=1)
        bench = Bench(store, store.register("w", ["q"], 10, lease=60))
        store.submit([new_job(f"j{n}") for n in range(40)])
        running, trips = bench.claim(4).jobs, []
        for _ in range(6):
            before = proxy.round_trips
            claim = bench.turn(*running, limit=4)
            trips.append(proxy.round_trips - before)
            assert (len(claim.jobs), len(claim.ended)) == (4, 4)
            running = claim.jobs
        store.close()
    # The plans of the first are renewed.
    assert min(trips) == WITH_ENDS[url.get_backend_name()]


def test_each_request_has_its_answer(bench: Bench) -> None:
    def work(connection: Connection) -> Any:
        return bench.store._database.exchange(
            connection,
            Request(_ECHO, {"what": 7}),
            Request(_TURN, {"to": 3}),
            Request(select(dispatch.c.turn.label("now"), literal("100%").label("share"))),
        )

    echo, changed, now = bench.store._database.write(work)

    assert echo.mappings() == [{"said": 7, "sure": True}]
    assert isinstance(echo.rows[0][1], bool)  # on MySQL it is a number
    assert list(changed.rows) == []
    assert now.mappings() == [{"now": 3, "share": "100%"}]
    assert turn(bench.store) == 3


_TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)


@given(told=_TEXTS, number=st.integers(-(2**63), 2**63 - 1), missing=st.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_comes_back(bench: Bench, told: str, number: int, missing: bool) -> None:
    columns = (bindparam("told", type_=Text), bindparam("number", type_=BigInteger), bindparam("none", type_=Text))
    echo = select(*(column.label(f"a{place}") for place, column in enumerate(columns)))
    values = {"told": told, "number": number, "none": None if missing else told[::-1]}

    answers = bench.store._database.read(
        lambda connection: bench.store._database.exchange(connection, Request(echo, values), Request(echo, values))
    )

    assert [list(answer.rows) for answer in answers] == [[tuple(values.values())]] * 2


@given(
    texts=st.lists(st.none() | _TEXTS | st.sampled_from(["NULL", '"', "\\", "{a,b}", ""])),
    numbers=st.lists(st.integers(-9, 9)),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_list_comes_back(postgres_store: Store, texts: list[str | None], numbers: list[int]) -> None:
    wanted = {"texts": (texts, postgresql.ARRAY(Text())), "numbers": (numbers, postgresql.ARRAY(BigInteger()))}
    echo = select(*(cast(bindparam(name, type_=kind), kind).label(name) for name, (_, kind) in wanted.items()))
    database = postgres_store._database
    request = Request(echo, {"texts": texts, "numbers": numbers})
    (answer,) = database.read(lambda connection: database.exchange(connection, request))
    assert list(answer.rows) == [(texts, numbers)]


def test_a_text_that_postgresql_cannot_have_is_refused_and_the_connection_serves_on(postgres_store: Store) -> None:
    database = postgres_store._database
    echo = select(bindparam("what", type_=Text))
    with pytest.raises(StateUnavailable, match="NUL"):
        database.read(lambda connection: _exchanged(database, connection, Request(echo, {"what": "a\0b"})))
    assert database.read(lambda connection: _exchanged(database, connection, Request(echo, {"what": "a"}))) == [("a",)]


def _exchanged(database: Database, connection: Connection, request: Request) -> list[Any]:
    return list(database.exchange(connection, request)[0].rows)


def test_a_claim_that_finds_nothing_waits_for_no_disk(postgres_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that has locked a row, and nothing else, writes to the log, and its commit waits for that."""
    bench = Bench(postgres_store, postgres_store.register("w", ["q"], 10, lease=60))
    bench.submit("a", "b")
    asked: list[str] = []
    run = pipelining.run

    def noted(connection: Any, names: Any, statements: Any, transformer: Any) -> Any:
        asked.extend(statement.text for statement in statements)
        return run(connection, names, statements, transformer)

    monkeypatch.setattr(pipelining, "run", noted)
    assert bench.ids(9) == ["a", "b"]
    assert (asked[0], asked[-1]) == ("BEGIN", "COMMIT")
    asked.clear()
    assert bench.ids(9) == []
    assert (asked[0], asked[-1]) == ("BEGIN", "ROLLBACK")


@pytest.mark.parametrize("commit", [False, True])
def test_after_an_error_nothing_of_it_stands(bench: Bench, commit: bool) -> None:
    def work(connection: Connection) -> None:
        wrong = Request(text("SELECT x FROM nowhere"))
        bench.store._database.exchange(connection, Request(_TURN, {"to": 5}), wrong, commit=commit)

    before = turn(bench.store)
    with pytest.raises(StateUnavailable, match="tables"):
        bench.store._database.write(work)

    assert turn(bench.store) == before
    bench.submit("a")
    assert len(bench.claim().jobs) == 1  # over the same connection


def test_what_went_with_the_commit_stands_and_the_connection_serves_on(bench: Bench) -> None:
    def work(connection: Connection) -> None:
        bench.store._database.exchange(connection, Request(_TURN, {"to": 9}), commit=True)

    bench.store._database.write(work)

    assert turn(bench.store) == 9
    bench.store._database.write(lambda connection: connection.execute(_TURN, {"to": 10}))
    assert turn(bench.store) == 10


def test_an_empty_transaction_does_not_begin_with_the_next_read(bench: Bench) -> None:
    """On servers a transaction begins with its first statement: one without any must not leave that to others."""
    bench.store._database.write(lambda _: None)
    bench.store._database.read(lambda connection: connection.execute(_ECHO, {"what": 1}).one())
    bench.store._database.write(lambda connection: connection.execute(_TURN, {"to": 4}))
    assert turn(bench.store) == 4


@pytest.mark.parametrize("how", ["ALTER SEQUENCE jobber_run_seq NO CYCLE", "DEALLOCATE ALL"])
def test_statements_that_are_deallocated_are_prepared_anew(postgres_url: str, how: str) -> None:
    """psycopg says DEALLOCATE ALL after an ALTER; a pooler may do so between any two."""
    store = Store(postgres_url, pool_size=1)
    database = store._database
    for _ in range(8):  # psycopg prepares what comes so often
        turn(store)
        database.write(lambda connection: database.exchange(connection, Request(_TURN, {"to": 0})))
    with database._pool.connect() as connection:
        if how.startswith("ALTER"):
            connection.execute(text(how))
        else:
            connection.connection.dbapi_connection.pgconn.exec_(how.encode())  # type: ignore[union-attr]
    for to in (3, 4):
        database.write(lambda connection, to=to: database.exchange(connection, Request(_TURN, {"to": to})))
    (echo,) = database.read(lambda connection: database.exchange(connection, Request(_ECHO, {"what": 5})))
    assert echo.rows[0][0] == 5
    store.close()


@pytest.mark.parametrize("while_", ["waits for a lock", "lies idle"])
def test_a_connection_that_postgresql_ends_is_lost_and_replaced(
    postgres: Postgres, postgres_url: str, while_: str
) -> None:
    store, ended = Store(postgres_url), list[str]()
    database = store._database
    mine = "application_name = 'jobber state' AND pid <> pg_backend_pid()"

    def end(where: str) -> None:
        with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as admin:
            kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine} AND {where}"
            wait_until(lambda: admin.execute(kill).fetchall())  # type: ignore[call-overload]
        ended.append(where)

    def work(connection: Connection) -> Any:
        if while_ == "lies idle":
            database.exchange(connection, Request(_ECHO, {"what": 1}))
            if not ended:
                end("state LIKE 'idle in transaction%'")
            return database.exchange(connection, Request(_TURN, {"to": 8}))
        return database.exchange(connection, Request(select(dispatch).with_for_update()), Request(_TURN, {"to": 8}))

    if while_ == "lies idle":
        database.write(work)
    else:
        with ThreadPoolExecutor(1) as pool:

            def block(connection: Connection) -> Future[Any]:
                connection.execute(select(dispatch).with_for_update())
                waiting = pool.submit(database.write, work)
                end("wait_event_type = 'Lock'")
                return waiting

            database.write(block).result()
    assert (turn(store), len(ended)) == (8, 1)
    store.close()


def test_a_connection_that_was_lost_while_idle_costs_no_submission(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(postgres_url)
    assert url.port is not None
    with Proxy(url.port) as proxy:
        store = Store(url.set(port=proxy.port).render_as_string(hide_password=False), pool_size=1)
        store.submit([new_job("a")])
        store.submit([new_job("b")])
        proxy.drop()
        monkeypatch.setattr(on_postgresql, "PLANS_LAST", 0.05)
        time.sleep(0.1)
        (job,) = store.submit([new_job("c")])
        assert store.get("c") == job
        store.close()


def test_a_lost_connection_is_replaced(server_url: str) -> None:
    url = make_url(server_url)
    assert url.port is not None
    with Proxy(url.port) as proxy:
        store = Store(url.set(port=proxy.port).render_as_string(hide_password=False), pool_size=1)
        database, dropped = store._database, []

        def work(connection: Connection) -> Any:
            database.exchange(connection, Request(_ECHO, {"what": 1}))
            if not dropped:
                dropped.append(proxy.drop())
            return database.exchange(connection, Request(_TURN, {"to": 6}))

        database.write(work)
        assert turn(store) == 6

        def break_off(connection: Connection) -> None:
            database.exchange(connection, Request(_ECHO, {"what": 1}))
            proxy.drop()
            with pytest.raises(DBAPIError) as caught:
                database.exchange(connection, Request(_ECHO, {"what": 1}))
            assert caught.value.connection_invalidated
            raise caught.value

        with pytest.raises(StateUnavailable):
            database.write(break_off)
        store.close()

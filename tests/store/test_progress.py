"""What is to be expected of jobs: their rows, their place in the queue, about when they start; and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Select, String, Table, cast, insert, select, text, update

from jobber.jobs import Job, Micros
from jobber.store import Gate, GateKind, Progress, Store
from jobber.store.progress import FARTHEST, SAMPLE, End, Outlook, ahead, earlier, newest_ends, pace
from jobber.store.schema import finished_jobs, jobs
from tests.store.conftest import COLUMNS, QUEUES, Bench

SECOND = 1_000_000


def outlook(bench: Bench, job_id: str) -> Outlook:
    bench.store.prospects._paces = None
    return bench.store.prospects.outlook(bench.store.get(job_id))


def finished(bench: Bench, job_id: str, rows: int = 7, **fields: Any) -> Job:
    """Run a job to its end."""
    job = bench.started(job_id, **fields)
    bench.store.succeed(job, rows=rows, columns=COLUMNS)
    return bench.store.get(job_id)


def set_times(store: Store, job_id: str, **times: Micros) -> None:
    """Change times of a finished job."""
    changed = update(finished_jobs).where(finished_jobs.c.job_id == job_id).values(**times)
    store._database.write(lambda connection: connection.execute(changed))


# -- rows that are expected -------------------------------------------------------------------------------------------


def test_as_many_rows_are_expected_as_the_newest_success_of_the_same_on_the_same_database_had(bench: Bench) -> None:
    def expected(**fields: Any) -> int | None:
        bench.submit("next", **fields)
        job = bench.claim().jobs[0]
        found = bench.store.prospects.expected(job)
        bench.store.fail(job, error="no", code="query_failed")
        return found

    assert expected(fingerprint=5) is None  # there was none
    finished(bench, "older", 10, fingerprint=5)
    finished(bench, "newer", 20, fingerprint=5)
    finished(bench, "elsewhere", 30, fingerprint=5, db="db1")
    finished(bench, "another", 40, fingerprint=6)
    finished(bench, "unknown", 50)
    assert expected(fingerprint=5) == 20
    assert expected(fingerprint=5, db="db1") == 30
    assert expected(fingerprint=-7) is None
    assert expected() is None  # of what has no fingerprint nobody knows what is the same


def test_what_a_worker_expects_of_an_attempt_is_told_until_that_ends(bench: Bench) -> None:
    job = bench.started("a", retries=1)
    assert (job.total, job.total_basis) == (None, "")
    step = Progress("writing", 10, 200, 1000, "planner")
    bench.store.heartbeat(bench.worker, {job.run: step}, lease=60)
    told = bench.store.get("a")
    assert (told.rows_so_far, told.bytes_so_far, told.total, told.total_basis) == (10, 200, 1000, "planner")
    bench.store.retry(job, error="no", code="query_failed", delay=0)
    (again,) = bench.claim().jobs
    assert (bench.store.get("a").total, bench.store.get("a").total_basis) == (None, "")
    bench.store.succeed(again, rows=7, columns=COLUMNS)
    assert bench.store.get("a").total is None


def test_the_time_of_the_newest_report_is_told_while_a_job_runs(bench: Bench) -> None:
    bench.store.heartbeat(bench.worker, {}, lease=60)
    job = bench.started("a", retries=1)
    assert job.told_at is None
    assert bench.store.get("a").told_at is None  # that report was before it
    bench.store.heartbeat(bench.worker, {job.run: Progress("writing", 10, 200)}, lease=60)
    told = bench.store.get("a")
    assert told.told_at is not None
    assert (told.started_at or 0) < told.told_at <= bench.store.now()
    bench.store.retry(job, error="no", code="query_failed", delay=60)
    assert bench.store.get("a").told_at is None


# -- place and start --------------------------------------------------------------------------------------------------


def test_the_position_is_the_place_among_the_ready_jobs_of_the_queue_in_the_order_in_which_they_run(
    bench: Bench,
) -> None:
    bench.submit("first", "second", db="db1")
    bench.submit("elsewhere", queue="p", priority=10)
    bench.submit("third")
    bench.submit("urgent", priority=10)
    bench.submit("late", eta=bench.store.now() + 3600 * SECOND)
    order = [job.job_id for job in bench.store.pending("q")]
    assert order == ["urgent", "first", "second", "third", "late"]
    assert [outlook(bench, job_id).position for job_id in order] == [1, 2, 3, 4, None]
    assert outlook(bench, "elsewhere").position == 1
    (job,) = bench.claim(queues=["q"]).jobs
    assert job.job_id == "urgent"
    assert outlook(bench, "urgent") == Outlook()
    assert outlook(bench, "first").position == 1


def test_a_start_is_predicted_by_how_fast_the_queue_has_gone_of_late(bench: Bench) -> None:
    bench.submit("a", "b", "c")
    assert outlook(bench, "b") == Outlook(2)  # nothing of it has ended yet
    now = bench.store.now()
    for job_id, queue, ago in (("x", "q", 0), ("y", "q", 10), ("z", "p", 0), ("old", "q", 3600)):
        finished(bench, job_id, queue=queue, priority=10)
        ended = now - ago * SECOND
        set_times(bench.store, job_id, started_at=ended - 10 * SECOND, finished_at=ended)
    # Two of the queue in the last 20 s: one in 10 s, and a little more, as the clock goes on.
    starts = [outlook(bench, job_id).starts_at for job_id in ("a", "b", "c")]
    for place, at in enumerate(starts, 1):
        assert at is not None
        assert 9.9 * place <= (at - now) / SECOND <= 10 * place + 60
    assert starts == sorted(starts, key=lambda at: at or 0)


def test_no_start_is_predicted_of_what_somebody_has_to_let_go_first(bench: Bench) -> None:
    finished(bench, "x")
    bench.submit("a")
    bench.store.set_limits({Gate(GateKind.QUEUE, "q"): 1})
    assert outlook(bench, "a").starts_at is not None  # a limit ends by itself
    for gate in (Gate(GateKind.QUEUE, "q"), Gate(GateKind.DATABASE, "db0")):
        bench.store.pause(gate, "migration")
        assert outlook(bench, "a") == Outlook(1)
        bench.store.resume(gate)
    assert outlook(bench, "a").starts_at is not None
    bench.store.serves(bench.worker, ["p"])
    assert outlook(bench, "a") == Outlook(1)


def test_one_that_took_very_long_does_not_slow_the_prediction_for_the_others() -> None:
    now = 1000 * SECOND
    short = [End((989 - n) * SECOND, (990 - n) * SECOND) for n in range(10)]
    assert pace(short, now) == 2 * SECOND  # ten in the last twenty seconds
    assert pace([*short, End(0, 990 * SECOND)], now) < 2 * SECOND
    assert pace([End(400 * SECOND, 900 * SECOND)], now) == 600 * SECOND


def test_the_memory_of_the_worker_is_told_of_what_it_runs(bench: Bench) -> None:
    job = bench.started("a")
    assert outlook(bench, "a").worker_memory is None
    bench.store.heartbeat(bench.worker, {}, lease=60, memory=2**31 + 1)
    assert outlook(bench, "a") == Outlook(worker_memory=2**31 + 1)
    bench.store.requeue(job)
    assert outlook(bench, "a").worker_memory is None


# -- what it costs ----------------------------------------------------------------------------------------------------

DOUBLINGS = {jobs: 17, finished_jobs: 14}  # 131,072 live jobs, 16,384 in the history


def multiply(connection: Connection, table: Table, doublings: int) -> None:
    """Make 2^doublings rows of one, each with a run, a job ID and a place of its own."""
    for step in (2**n for n in range(doublings)):
        changed: dict[str, Any] = {"run": table.c.run + step, "job_id": cast(table.c.run + step, String(30))}
        if table is jobs:
            changed["ord"] = table.c.ord + step
        else:
            changed |= {"finished_at": table.c.finished_at - step, "fingerprint": table.c.fingerprint + step}
        values = {column.name: changed.get(column.name, column) for column in table.columns}
        connection.execute(insert(table).from_select(list(values), select(*values.values())))


@pytest.fixture
def crowded(server_url: str) -> Iterator[tuple[Bench, int, Job]]:
    """A store with very many jobs, and the run of the first."""
    store = Store(server_url)
    bench = Bench(store, store.register("w1", QUEUES, 10, lease=60))
    done = finished(bench, "done", fingerprint=5)
    bench.submit("first")
    store._database.write(lambda connection: [multiply(connection, *each) for each in DOUBLINGS.items()])
    store._database.write(
        lambda connection: [connection.execute(text(_ANALYZE[connection.dialect.name].format(table))) for table in _BIG]
    )
    yield bench, store.get("first").run, done
    for table in _BIG:  # faster than to delete so many
        store._database.write(lambda connection, table=table: connection.execute(text(f"TRUNCATE {table}")))
    store.close()


_BIG = ("jobber_jobs", "jobber_finished_jobs")
_ANALYZE = {"postgresql": "ANALYZE {}", "mysql": "ANALYZE TABLE {}"}


def plan(store: Store, statement: Select[Any]) -> str:
    """Return how the engine would find what a statement asks for."""

    def work(connection: Connection) -> str:
        sql = statement.compile(connection, compile_kwargs={"literal_binds": True})
        return "\n".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN {sql}".replace("%", "%%")))

    return store._database.read(work)


def test_looking_ahead_reads_a_bounded_number_of_rows_over_an_index(crowded: tuple[Bench, int, Job]) -> None:
    bench, first, done = crowded
    store = bench.store
    ready = [job for job in store.pending("q", limit=1000) if job.job_id != "first"]
    assert store.prospects.outlook(ready[500]).position == 502  # "first" is before them
    last = store.get(str(first + 2 ** DOUBLINGS[jobs] - 1))
    assert store.prospects.outlook(last).position is None

    before = ahead().params(of_queue="q", of_run=last.run)
    for statement, index in (
        (before, "ix_jobber_jobs_queue_ord"),
        (newest_ends(), "ix_jobber_finished_jobs_finished_at"),
        (earlier(done.fingerprint), "ix_jobber_finished_jobs_fingerprint_run"),
    ):
        how = plan(store, statement)
        assert index in how
        assert "Seq Scan" not in how
        assert "Sort" not in how
        assert "filesort" not in how
    found = store._database.read(lambda connection: connection.execute(before).scalar_one())
    assert found == FARTHEST
    assert len(store._database.read(lambda connection: connection.execute(newest_ends()).all())) == SAMPLE

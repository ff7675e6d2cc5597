"""Thousands of jobs at once take a number of statements that hardly grows with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event

from jobber.jobs import JobState, NewGroup, NewJob, fingerprint
from jobber.store import Store
from jobber.store.history import move
from jobber.store.parts import parts
from tests.store.conftest import Bench, new_job

#: More than two of the parts in which long lists are sent.
MANY = 2000


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Give the statements of the body; one that is sent with many rows is one."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    pool = store._database._pool
    event.listen(pool, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(pool, "before_cursor_execute", note)


def asking(job_id: str, n: int, **fields: Any) -> NewJob:
    """Return a job that asks the nth question."""
    return new_job(job_id, args=[n], version="v", fingerprint=fingerprint("t", "v", [n]), **fields)


def finish(bench: Bench, new: Sequence[NewJob]) -> None:
    """Have jobs run and succeed without a worker."""
    database = bench.store._database
    for some in parts(new):
        runs = [job.run for job in bench.store.submit(some)]
        ended = {"state": JobState.SUCCESS.value, "started_at": bench.store.now(), "rows": 1}
        database.write(lambda connection, runs=runs, ended=ended: move(database, connection, runs, ended))  # type: ignore[misc]


def test_thousands_of_jobs_take_earlier_results_with_some_dozens_of_statements(bench: Bench) -> None:
    store = bench.store
    finish(bench, [asking(f"a{n}", n) for n in range(MANY)])
    ways: dict[str, Callable[[list[NewJob]], Any]] = {
        "group": lambda new: store.submit_group(NewGroup(group_id="g", jobs=new, callback=None)).jobs,
        "bulk": store.batches.submit,
    }
    for way, submit in ways.items():
        new = [asking(f"{way}{n}", n, max_age=3600) for n in range(MANY)]
        with counted(store) as statements:
            jobs = submit(new)
        assert len(statements) < 50, way
        assert {job.state for job in jobs} == {JobState.SUCCESS}
        assert all(job.reused.job_id == f"a{n}" for n, job in enumerate(jobs))


def test_many_jobs_share_or_lead_runs_and_end_with_others_with_few_statements(bench: Bench) -> None:
    store, few = bench.store, 40
    leading = [asking(f"a{n}", n, single_flight=True) for n in range(300)]
    sharing = [asking(f"b{n}", n, single_flight=True) for n in range(300)]
    waiting = [new_job(f"c{n}", depends_on=(f"b{n}",)) for n in range(300)]

    def cancel(new: Sequence[NewJob]) -> None:
        store.changes.cancel([*store.changes.newest_runs([job.job_id for job in new]).values()])

    does: dict[str, Callable[[], Any]] = {
        "lead": lambda: store.submit(leading),
        "share": lambda: store.submit(sharing),
        "wait": lambda: store.submit(waiting),
        "pass on": lambda: cancel(leading),
        "cancel": lambda: cancel(sharing),
    }
    for what, do in does.items():
        with counted(store) as statements:
            do()
        assert len(statements) < few, what
        if what == "pass on":
            assert {store.get(f"b{n}").state for n in (0, 299)} == {JobState.PENDING}
    ended = store.changes.newest([job.job_id for job in waiting])
    assert [ended[f"c{n}"].error for n in (0, 299)] == [
        f"job b{n}, which it depends on, was cancelled" for n in (0, 299)
    ]
    assert {job.state for job in ended.values()} == {JobState.CANCELLED}


def test_a_result_is_found_without_going_through_all_runs_that_came_after_it(tmp_path: Path) -> None:
    # The plan of a server depends on what its tables hold; that of SQLite does not.
    store = Store(f"sqlite:///{tmp_path}/state.db")
    store.migrate()
    bench = Bench(store)
    finish(bench, [asking("a", 1)])
    with counted(store) as statements:
        store.submit([asking("b", 1, max_age=3600)])
    (find,) = (statement for statement in statements if "NOT (EXISTS" in statement)
    with store._database._pool.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {find}", (None,) * find.count("?")).scalars(3).all()
    store.close()
    assert [line for line in plan if "jobber_finished_jobs_1" in line] == [
        "SEARCH jobber_finished_jobs_1 USING INDEX ix_jobber_finished_jobs_job_id_run (job_id=? AND run>?)"
    ]

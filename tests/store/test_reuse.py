"""Results of earlier runs (``max_age``), and runs that equal jobs share (``single_flight``)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event as listening
from sqlalchemy import text

from jobber.errors import JobIsLive
from jobber.jobs import Args, Job, JobState, NewJob, Policy, fingerprint
from jobber.store import Gate, GateKind, Limits
from tests.store.conftest import COLUMNS, Bench, new_group, new_job

AGE = 3600


def asking(job_id: str, args: Args | None = None, **fields: Any) -> NewJob:
    """Return a job that takes an earlier result, and whose own serves others."""
    args = ["x"] if args is None else args
    task, version = fields.setdefault("task", "t"), fields.setdefault("version", "v1")
    fields.setdefault("fingerprint", fingerprint(task, version, args))
    return new_job(job_id, args=args, **{"max_age": AGE, **fields})


def sharing(job_id: str, args: Args | None = None, **fields: Any) -> NewJob:
    """Return a job that shares the run of an equal one."""
    return asking(job_id, args, **{"max_age": None, "single_flight": True, **fields})


def submit(bench: Bench, *new: NewJob) -> list[Job]:
    return bench.store.submit(new)


def run(bench: Bench, new: NewJob) -> Job:
    """Submit a job and run it to its end."""
    submit(bench, new)
    job = next(job for job in bench.claim(100).jobs if job.job_id == new.job_id)
    bench.store.succeed(job, rows=7, columns=COLUMNS)
    return bench.store.get(new.job_id)


def change(bench: Bench, statement: str) -> None:
    bench.store._database.write(lambda connection: connection.execute(text(statement)))


# -- results of earlier runs -------------------------------------------------------------------------------------------


def test_a_job_takes_the_result_of_an_equal_one_under_its_own_id(bench: Bench) -> None:
    first = run(bench, asking("a", ttl=600))
    (job,) = submit(bench, asking("b", ttl=5, tags={"by": "me"}, callback_url=""))
    assert bench.store.get("b") == job
    assert (job.state, job.rows, job.columns, job.table) == (JobState.SUCCESS, 7, tuple(COLUMNS), first.table)
    assert (job.db, job.results, job.expires_at) == (first.db, first.results, first.expires_at)
    assert job.reused is not None
    assert (job.reused.job_id, job.reused.run) == ("a", first.run)
    assert job.reused.at == (first.snapshot_at or first.started_at)
    assert (job.attempt, job.worker, job.tags) == (0, "", {"by": "me"})
    assert (job.run > first.run, job.finished_at is not None, job.started_at) == (True, True, None)
    assert not bench.claim(9).jobs
    (again,) = submit(bench, asking("b"))  # an ID may be used again, as ever
    assert (again.reused, bench.store.last_success("b")) == (job.reused, again)
    assert [job.run for job in bench.store.finished("b")] == [again.run, job.run]


def test_what_differs_in_anything_runs_itself(bench: Bench) -> None:
    run(bench, asking("a"))
    fingerprint_of_a = fingerprint("t", "v1", ["x"])
    others = {
        "other SQL": asking("b0", version="v2"),
        "another task": asking("b1", task="u"),
        "another database": asking("b2", db="db1"),
        "another results database was named": asking("b3", results="s", results_named=True),
        "nobody asked": asking("b4", max_age=None),
        "what it will be asked is not known yet": asking("b5", fingerprint=0),
        "other args": asking("b6", ["y"]),
        "other args of the same fingerprint": asking("b7", ["z"], fingerprint=fingerprint_of_a),
        "other SQL of the same fingerprint": asking("b8", version="v3", fingerprint=fingerprint_of_a),
    }
    for why, job in zip(others, submit(bench, *others.values()), strict=True):
        assert (job.state, job.reused) == (JobState.PENDING, None), why


def test_args_are_compared_to_the_last_digit_and_type(bench: Bench) -> None:
    kinds: list[Args] = [[1], ["1"], [Decimal("1.0")], [Decimal("1.00")], [None], ["null"], [True], {"a": 1}, [], [""]]
    for n, args in enumerate(kinds):
        run(bench, asking(f"first{n}", args))
    for n, args in enumerate(kinds):
        (job,) = submit(bench, asking(f"second{n}", args))
        assert job.reused is not None, args
        assert job.reused.job_id == f"first{n}", args
    run(bench, asking("named", {"a": 1, "b": "x"}))
    (job,) = submit(bench, asking("turned", {"b": "x", "a": 1}))
    assert job.reused is not None


def test_what_any_of_the_replicas_or_any_results_database_gives_is_taken(bench: Bench) -> None:
    run(bench, asking("a", db="db1", results="s"))
    (job,) = submit(bench, asking("b", db="db0", replicas=("db0", "db1")))
    assert job.reused is not None
    assert (job.db, job.results) == ("db1", "s")


def test_no_result_is_taken_that_is_too_old_expired_replaced_forgotten_or_none(bench: Bench) -> None:
    def taken() -> bool:
        (job,) = submit(bench, asking("b"))
        if job.live:
            bench.store.cancel("b")
        return job.reused is not None

    bench.store.fail(_started(bench, asking("a")), error="no", code="c")
    assert not taken()
    run(bench, asking("a"))
    assert taken()
    older = f"started_at = started_at - {AGE * 1_000_000}, snapshot_at = snapshot_at - {AGE * 1_000_000}"
    change(bench, f"UPDATE jobber_finished_jobs SET {older}")
    assert not taken()
    change(bench, f"UPDATE jobber_finished_jobs SET {older.replace('-', '+')}")
    assert taken()
    change(bench, "UPDATE jobber_finished_jobs SET expires_at = 1 WHERE job_id = 'a'")
    assert not taken()
    change(bench, "UPDATE jobber_finished_jobs SET expires_at = NULL WHERE job_id = 'a'")
    assert taken()
    run(bench, new_job("a"))  # another job of that ID took its table
    assert not taken()
    run(bench, asking("c"))
    assert taken()
    bench.store.purge("c")
    assert not taken()


def test_of_several_results_the_newest_data_are_taken_whoever_took_them_since(bench: Bench) -> None:
    older, newer = run(bench, asking("older")), run(bench, asking("newer", max_age=None))
    change(bench, f"UPDATE jobber_finished_jobs SET started_at = started_at - 9000000 WHERE run = {older.run}")
    change(bench, f"UPDATE jobber_finished_jobs SET snapshot_at = snapshot_at - 9000000 WHERE run = {older.run}")
    submit(bench, *(asking(f"b{n}") for n in range(150)))  # more than are looked at
    (job,) = submit(bench, asking("b"))
    assert job.reused is not None
    assert job.reused.run == newer.run
    bench.store.purge("newer")
    (job,) = submit(bench, asking("c"))
    assert job.reused is None  # those hundred tell of a result that is gone
    bench.store.cancel("c")


def test_a_live_id_is_refused_though_there_is_a_result_to_take(bench: Bench) -> None:
    run(bench, asking("a"))
    (live,) = bench.submit("b")
    with pytest.raises(JobIsLive) as refused:
        submit(bench, asking("c"), asking("b"))
    assert refused.value.job == live
    assert bench.store.live(["b", "c"]) == {"b"}


def test_who_takes_a_result_needs_no_room_in_a_full_backlog(bench: Bench) -> None:
    run(bench, asking("a"))
    bench.store.announce({Gate(GateKind.QUEUE, "q"): Limits(pending=1)}, {})
    bench.submit("waits")
    (job,) = submit(bench, asking("b"))
    assert job.state is JobState.SUCCESS


def test_jobs_of_a_group_take_results_and_a_group_of_such_jobs_is_finished_at_once(bench: Bench) -> None:
    first = run(bench, asking("a"))
    group = bench.store.submit_group(new_group("g", jobs=[asking("b"), new_job("c"), asking("d")]))
    assert [job.state for job in group.jobs] == [JobState.SUCCESS, JobState.PENDING, JobState.SUCCESS]
    assert (group.counts[JobState.SUCCESS], group.live) == (2, True)
    assert bench.store.group("g") == group
    bench.store.succeed(bench.claim().jobs[0], rows=1, columns=[])
    (callback,) = bench.claim(9).jobs
    assert isinstance(callback.args, dict)
    assert (callback.args["succeeded"], callback.args["tables"]) == (
        3,
        f'["{first.table}","results_c","{first.table}"]',
    )

    group = bench.store.submit_group(new_group("h", jobs=[asking("e"), asking("f")]))
    assert (group.state, group.live, group.finished_at is not None) == (JobState.SUCCESS, False, True)
    assert bench.ids(9) == ["h-done"]


def test_a_job_that_depends_on_one_that_takes_a_result_runs_at_once(bench: Bench) -> None:
    run(bench, asking("a"))
    bench.store.submit_group(new_group("g", jobs=[asking("b"), new_job("c", depends_on=("b",))]))
    assert bench.ids(9) == ["c"]


# -- shared runs -------------------------------------------------------------------------------------------------------


def _started(bench: Bench, new: NewJob) -> Job:
    submit(bench, new)
    (job,) = bench.claim().jobs
    return job


def test_equal_jobs_share_one_run_and_end_as_it_does(bench: Bench) -> None:
    leader, first, second = submit(bench, *(sharing(name) for name in "abc"))
    (third,) = submit(bench, sharing("d", tags={"by": "me"}))
    assert [job.depends_on for job in (leader, first, second, third)] == [(), ("a",), ("a",), ("a",)]
    assert third.depends_policy is Policy.SHARE
    (job,) = bench.claim(9).jobs
    assert job.job_id == "a"
    bench.store.succeed(job, rows=7, columns=COLUMNS)
    ended = bench.store.get("a")
    for name in "bcd":
        shared = bench.store.get(name)
        assert (shared.state, shared.rows, shared.table, shared.attempt) == (JobState.SUCCESS, 7, ended.table, 0)
        assert shared.reused is not None
        assert (shared.reused.run, shared.expires_at) == (ended.run, ended.expires_at)
    (late,) = submit(bench, sharing("e"))
    assert late.live
    assert bench.ids(9) == ["e"]


def test_a_failure_is_shared_with_its_error(bench: Bench) -> None:
    submit(bench, sharing("a"), sharing("b"))
    (job,) = bench.claim(9).jobs
    bench.store.fail(job, error="syntax", code="query_failed")
    shared = bench.store.get("b")
    assert (shared.state, shared.error, shared.error_code) == (JobState.FAILURE, "syntax", "query_failed")


def test_a_follower_is_cancelled_alone_and_when_the_leader_is_the_next_one_leads(bench: Bench) -> None:
    submit(bench, *(sharing(name) for name in "abcd"))
    bench.store.cancel("b")
    assert bench.store.get("b").state is JobState.CANCELLED
    (leader,) = bench.claim(9).jobs
    bench.store.cancel("a")
    bench.store.cancelled(leader)
    assert bench.ids(9) == ["c"]
    (late,) = submit(bench, sharing("e"))
    assert late.depends_on == ("c",)
    bench.store.succeed(bench.store.get("c"), rows=1, columns=[])
    assert [bench.store.get(name).state for name in "de"] == [JobState.SUCCESS] * 2


def test_many_leaders_that_are_cancelled_at_once_give_their_flights_away_at_once(bench: Bench) -> None:
    for of in "ab":
        submit(bench, *(sharing(f"{of}{n}", [n]) for n in range(20)))
    leaders = [bench.store.get(f"a{n}").run for n in range(20)]
    statements: list[str] = []
    listening.listen(bench.store._database._pool, "before_execute", lambda _, what, *__: statements.append(str(what)))

    bench.store.changes.cancel(leaders)

    assert len([told for told in statements if "jobber_flights" in told]) == 2  # a look, and a change
    assert bench.ids(30) == [f"b{n}" for n in range(20)]
    assert submit(bench, sharing("late", [2]))[0].depends_on == ("b2",)


def test_only_who_asks_for_it_shares_or_leads_and_only_what_is_equal(bench: Bench) -> None:
    submit(bench, sharing("plain", single_flight=False), sharing("a"))
    others = [
        sharing("b", single_flight=False),
        sharing("c", ["y"]),
        sharing("d", version="v2"),
        sharing("e", db="db1"),
        sharing("f", replicas=("db0", "db1")),
        sharing("g", results_named=True),
        sharing("h", fingerprint=0),
    ]
    assert all(not job.depends_on for job in submit(bench, *others))
    joined = submit(bench, sharing("e2", db="db1"), sharing("f2", db="db1", replicas=("db1", "db0")))
    assert [job.depends_on for job in joined] == [("e",), ("f",)]


def test_a_result_is_taken_before_a_run_is_shared(bench: Bench) -> None:
    submit(bench, sharing("a"))
    (job,) = submit(bench, sharing("b", max_age=AGE))
    assert job.depends_on == ("a",)
    bench.store.succeed(bench.claim().jobs[0], rows=1, columns=[])
    submit(bench, sharing("c"))
    (job,) = submit(bench, sharing("d", max_age=AGE))
    assert job.reused is not None


def test_of_twenty_equal_jobs_at_once_one_runs(bench: Bench) -> None:
    barrier = threading.Barrier(20)

    def ask(job_id: str) -> None:
        barrier.wait(30)
        submit(bench, sharing(job_id))

    with ThreadPoolExecutor(20) as pool:
        for first in (0, 20):  # also where there was such a run before
            ids = [f"j{first + n}" for n in range(20)]
            list(pool.map(ask, ids))
            (job,) = bench.claim(100).jobs
            bench.store.succeed(job, rows=1, columns=[])
            ended = [bench.store.get(job_id) for job_id in ids]
            assert {one.state for one in ended} == {JobState.SUCCESS}
            assert sum(one.reused is None for one in ended) == 1
            assert not bench.claim(100).jobs


def test_while_leaders_are_cancelled_one_run_at_a_time_is_all_there_is(bench: Bench) -> None:
    over = threading.Event()

    def ask(thread: int) -> None:
        n = 0
        while not over.is_set():
            submit(bench, sharing(f"{thread}-{n}"))
            n += 1

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, thread) for thread in range(3)]
        try:
            for n in range(12):
                found = bench.claim(100).jobs
                assert len(found) <= 1
                for job in found:
                    bench.store.cancel(job.job_id)
                    if n % 3:
                        bench.store.cancelled(job)
                    else:
                        bench.store.succeed(job, rows=1, columns=[])
        finally:
            over.set()
        for done in asked:
            done.result()
    while found := bench.claim(100).jobs:
        assert len(found) == 1
        bench.store.succeed(found[0], rows=1, columns=[])
    assert bench.store.pending("q") == []


def test_flights_that_are_over_are_forgotten_and_those_that_are_not_stay(bench: Bench) -> None:
    submit(bench, sharing("a"), sharing("b", ["y"]))
    bench.store.succeed(bench.claim().jobs[0], rows=1, columns=[])
    bench.store.prune(3600)
    count = text("SELECT count(*) FROM jobber_flights")
    assert bench.store._database.read(lambda connection: connection.execute(count).scalar_one()) == 1
    (job,) = submit(bench, sharing("c", ["y"]))
    assert job.depends_on == ("b",)

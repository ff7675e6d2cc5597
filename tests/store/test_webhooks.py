"""Calls that are owed: made with the end of a job or a group, and given to one who makes them at a time."""

from __future__ import annotations

import threading

import pytest

from jobber.jobs import JobState
from jobber.store.lanes import LaneBook
from jobber.store.webhooks import Call
from tests.store.conftest import Bench, end, new_group

URL = "https://Hooks.example.com/x?key=1"


def take(bench: Bench, limit: int = 10, **options: object) -> list[Call]:
    return bench.store.calls.take(limit, lease=60, **options)  # type: ignore[arg-type]


def test_a_job_with_a_url_owes_a_call_when_it_ends_and_not_before(bench: Bench) -> None:
    for how, state in (("succeed", "success"), ("fail", "failure"), ("cancelled", "cancelled")):
        job = bench.started(how, callback_url=URL)
        assert not bench.store.calls.due()

        end(bench, how, job)

        assert bench.store.calls.due()
        (call,) = take(bench)
        assert (call.event, call.url, call.host, call.tries) == (state, URL, "hooks.example.com", 1)
        assert call.job == bench.store.get(how)
        assert call.at == call.job.finished_at


def test_a_job_that_nobody_runs_owes_its_call_too(bench: Bench) -> None:
    bench.submit("waiting", callback_url=URL)
    bench.submit("parent", priority=9)
    bench.submit("child", depends_on=("parent",), callback_url=URL)
    bench.store.cancel("waiting")
    bench.store.cancel("parent")

    assert sorted(call.job.job_id for call in take(bench) if call.job) == ["child", "waiting"]


def test_a_retry_owes_nothing_and_neither_does_a_job_without_a_url(bench: Bench) -> None:
    end(bench, "retry", bench.started("a", callback_url=URL))
    end(bench, "succeed", bench.started("b"))

    assert not bench.store.calls.due()


def test_a_group_owes_a_call_with_its_last_job(bench: Bench) -> None:
    bench.store.submit_group(new_group("g", "m1", "m2", callback_url=URL))
    first, last = bench.claim(2).jobs
    end(bench, "succeed", first)
    assert not bench.store.calls.due()

    end(bench, "fail", last)

    (call,) = take(bench)
    assert call.job is None
    assert call.group is not None
    assert (call.event, call.group.group_id, call.group.state) == ("failure", "g", JobState.FAILURE)
    assert call.at == call.group.finished_at


def test_an_end_that_is_rolled_back_owes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.started("a", callback_url=URL)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(LaneBook, "wake", fail)
        end(bench, "succeed", job)

    assert not bench.store.calls.due()
    end(bench, "succeed", job)
    assert len(take(bench)) == 1


def test_a_call_that_is_taken_is_nobody_elses_until_its_time_is_over(bench: Bench) -> None:
    end(bench, "succeed", bench.started("a", callback_url=URL))

    (first,) = bench.store.calls.take(1, lease=0)
    (second,) = take(bench)

    assert (first.id, first.tries, second.tries) == (second.id, 1, 2)
    assert not bench.store.calls.due()
    assert take(bench) == []


def test_calls_that_nobody_has_made_for_long_are_counted_and_taken_apart(bench: Bench) -> None:
    end(bench, "succeed", bench.started("a", callback_url=URL))

    assert (bench.store.calls.overdue(3600), take(bench, overdue=3600)) == (0, [])
    assert bench.store.calls.overdue(0) == 1
    assert len(take(bench, overdue=0)) == 1


def test_of_many_who_take_calls_at_once_each_gets_others(bench: Bench) -> None:
    for number in range(20):
        bench.submit(f"j{number}", callback_url=URL)
        bench.store.cancel(f"j{number}")
    taken: list[Call] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        while calls := take(bench, 3):
            taken.extend(calls)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(call.id for call in taken) == sorted({call.id for call in taken})
    assert len(taken) == 20


def test_a_host_that_has_enough_to_do_is_left_out(bench: Bench) -> None:
    for job_id, host in (("a", "slow"), ("b", "slow"), ("c", "quick")):
        bench.submit(job_id, callback_url=f"http://{host}/")
        bench.store.cancel(job_id)

    (call,) = take(bench, without=["slow"])

    assert call.host == "quick"
    assert {call.host for call in take(bench)} == {"slow"}


def test_a_call_that_failed_is_due_again_after_its_pause_and_one_that_was_made_never(bench: Bench) -> None:
    for job_id in ("a", "b", "c"):
        bench.submit(job_id, callback_url=URL)
        bench.store.cancel(job_id)
    first, second, third = take(bench)
    bench.store.calls.failed(first, "status 500", pause=3600)
    bench.store.calls.failed(second, "status 500\x00", pause=0)
    bench.store.calls.made(third)

    (again,) = take(bench)

    assert (again.id, again.tries) == (second.id, 2)


def test_a_call_says_that_what_it_would_tell_of_was_purged(bench: Bench) -> None:
    for job_id in ("a", "b"):
        bench.submit(job_id, callback_url=URL)
        bench.store.cancel(job_id)
    bench.store.submit_group(new_group("g", "m1", callback_url=URL, callback=None))
    bench.store.cancel_group("g")
    bench.store.purge("a")
    bench.store.purge_group("g")

    purged, job, group = take(bench)

    assert (purged.job, purged.group) == (None, None)
    assert (job.job.job_id if job.job else None) == "b"
    assert (group.job, group.group) == (None, None)

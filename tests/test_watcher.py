"""Waiting for jobs and groups: one query for all waiters, none while nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from jobber.errors import StateUnavailable
from jobber.service import Service
from jobber.watcher import Watcher
from tests.servers import wait_until


class Jobs:
    """What a watcher asks of the store, counting calls."""

    def __init__(self, *live: str) -> None:
        self.now_live = set(live)
        self.asked: list[set[str]] = []
        self.away = False

    def live(self, job_ids: Collection[str]) -> set[str]:
        self.asked.append(set(job_ids))
        if self.away:
            raise StateUnavailable("away")
        return self.now_live & set(job_ids)


def waiting(watcher: Watcher, job_id: str, seconds: float = 10) -> tuple[threading.Thread, list[bool]]:
    """Wait in a thread; the list holds the answer afterwards."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(watcher.wait(job_id, seconds)))
    thread.start()
    return thread, answers


def test_a_waiter_is_told_as_soon_as_its_job_is_finished() -> None:
    jobs = Jobs("a", "b")
    watcher = Watcher(jobs.live, threading.Semaphore(500))
    thread, answers = waiting(watcher, "a")
    other, other_answers = waiting(watcher, "b", seconds=0.5)
    wait_until(lambda: {"a", "b"} in jobs.asked)

    jobs.now_live.remove("a")
    thread.join(2)

    assert answers == [True]
    other.join(2)
    assert other_answers == [False]


def test_a_hundred_waiters_cost_one_query_at_a_time() -> None:
    ids = [f"job{number}" for number in range(100)]
    jobs = Jobs(*ids)
    watcher = Watcher(jobs.live, threading.Semaphore(500))
    threads = [waiting(watcher, job_id)[0] for job_id in ids]
    wait_until(lambda: set(ids) in jobs.asked)
    before = len(jobs.asked)

    time.sleep(0.5)

    assert len(jobs.asked) - before < 110  # at the shortest interval; a loop per waiter would ask thousands of times
    watcher.close()
    for thread in threads:
        thread.join(2)
        assert not thread.is_alive()


def test_nobody_is_asked_while_nobody_waits() -> None:
    jobs = Jobs()
    watcher = Watcher(jobs.live, threading.Semaphore(500))
    assert watcher.wait("done", 5) is True
    before = len(jobs.asked)

    time.sleep(0.2)

    assert len(jobs.asked) == before


def test_beyond_the_cap_the_answer_comes_at_once() -> None:
    jobs = Jobs("a", "b")
    watcher = Watcher(jobs.live, threading.Semaphore(1))
    thread, _ = waiting(watcher, "a")
    wait_until(lambda: jobs.asked)
    began = time.monotonic()

    assert watcher.wait("b", 5) is False

    assert time.monotonic() - began < 1
    watcher.close()
    thread.join(2)


def test_watchers_may_share_their_seats() -> None:
    jobs, groups, seats = Jobs("a"), Jobs("g"), threading.Semaphore(1)
    watchers = [Watcher(jobs.live, seats), Watcher(groups.live, seats)]
    thread, _ = waiting(watchers[0], "a")
    wait_until(lambda: jobs.asked)

    assert watchers[1].wait("g", 60) is False
    assert groups.asked == []

    watchers[0].close()
    thread.join(2)
    groups.now_live.clear()
    assert watchers[1].wait("g", 60) is True


def test_an_outage_of_the_store_keeps_waiters_waiting() -> None:
    jobs = Jobs("a")
    jobs.away = True
    watcher = Watcher(jobs.live, threading.Semaphore(500))
    thread, answers = waiting(watcher, "a")
    wait_until(lambda: len(jobs.asked) > 2)

    jobs.now_live.clear()
    jobs.away = False
    thread.join(2)

    assert answers == [True]


def test_who_is_told_is_let_go_before_anybody_looks() -> None:
    jobs = Jobs("a", "b")
    watcher = Watcher(jobs.live, threading.Semaphore(500))
    thread, answers = waiting(watcher, "a")
    other, other_answers = waiting(watcher, "b", seconds=0.5)
    wait_until(lambda: {"a", "b"} in jobs.asked)
    jobs.away = True

    watcher.told("a")
    thread.join(2)
    other.join(2)

    assert (answers, other_answers) == ([True], [False])


def test_a_job_of_which_only_an_attempt_ended_is_waited_for_on() -> None:
    """What workers tell is a hint: the attempt may have failed, and the job be tried again."""
    jobs = Jobs("a")
    watcher = Watcher(jobs.live, threading.Semaphore(500))
    seen = iter([SimpleNamespace(live=True), SimpleNamespace(live=True), SimpleNamespace(live=False)])
    service: Any = SimpleNamespace(
        settings=SimpleNamespace(app=SimpleNamespace(max_wait=60)),
        _store=SimpleNamespace(live=jobs.live, get=lambda _job_id: next(seen)),
        _jobs_watcher=watcher,
    )
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(Service.wait(service, "a", 30)))
    thread.start()

    while thread.is_alive():
        watcher.told("a")
        thread.join(0.05)

    assert [answer.live for answer in answers] == [False]
    assert next(seen, None) is None

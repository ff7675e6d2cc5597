"""Threads that end their jobs and get their next ones together, on a store that does what it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobber.errors import Fenced, StateUnavailable
from jobber.jobs import Job, NewJob
from jobber.relay import Relay, Seat, Served
from jobber.store import Apart, Claim, Finished, Gate, GateKind, Success
from jobber.store.records import job_as_submitted
from tests.servers import wait_until


def job(run: int) -> Job:
    return job_as_submitted(NewJob(job_id=f"j{run}", task="t", queue="q", db="d", results="r", table=f"t{run}"), run, 0)


def success(run: int) -> Success:
    return Success(job(run), 1, [])


class Told:
    """A store that notes what it is asked; each call together does what ``plans`` says, at first the first."""

    def __init__(self, *plans: Callable[[], None]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.plans = list(plans)
        self.lost: set[int] = set()  # runs that do not end
        self.runs = iter(range(100, 200))
        self.freed: frozenset[Gate] = frozenset()
        self.asked: list[threading.Thread] = []  # who asked for room

    def _ended(self, ends: Sequence[Success]) -> frozenset[tuple[int, int]]:
        return frozenset(each.key for each in ends if each.job.run not in self.lost)

    def finish_and_claim(self, _worker: int, ends: Sequence[Success], *, limit: int, **_served: Any) -> Claim:
        self.calls.append(("together", [each.job.run for each in ends], limit))
        if self.plans:
            self.plans.pop(0)()
        ended = self._ended(ends)
        most = limit - (len(ends) - len(ended))
        return Claim(tuple(job(next(self.runs)) for _ in range(most)), frozenset({"q"}), ended, self.freed)

    def finish(self, ends: Sequence[Success]) -> Finished:
        self.calls.append(("finish", [each.job.run for each in ends]))
        return Finished(self._ended(ends), frozenset({"woken"}), self.freed)

    def open_behind(self, gates: Collection[Gate]) -> frozenset[str]:
        self.asked.append(threading.current_thread())
        return frozenset(gate.name for gate in gates)

    def claim(self, _worker: int, *, limit: int, **_served: Any) -> Claim:
        self.calls.append(("claim", limit))
        return Claim((job(next(self.runs)),), frozenset())


class Site:
    """A relay whose first caller is held up until all others wait."""

    def __init__(self, *plans: Callable[[], None]) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.store = Told(self._linger, *plans)
        self.woken: list[str] = []
        self.draining = False
        tasks: Any = {"t": "the task"}
        served = Served(7, ["q"], tasks, ["d"])
        self.relay = Relay(
            self.store,  # type: ignore[arg-type]
            served=lambda: None if self.draining else served,
            wake=self.woken.append,
        )

    def _linger(self) -> None:
        self.inside.set()
        assert self.go_on.wait(10)

    def together(self, *ends: Success | None) -> list[Seat]:
        """Have one thread go ahead, and so many wait for it; return what these get."""
        with ThreadPoolExecutor(len(ends) + 1) as pool:
            ahead = pool.submit(self.relay.take, None)
            assert self.inside.wait(10)
            seats = []
            for number, end in enumerate(ends, 1):
                seats.append(pool.submit(self.relay.take, end))
                wait_until(lambda number=number: len(self.relay._together._waiting) == number)
            self.go_on.set()
            assert ahead.result(10).job is not None
            return [seat.result(10) for seat in seats]


def raising(error: Exception) -> Callable[[], None]:
    def plan() -> None:
        raise error

    return plan


def test_those_who_come_while_one_is_at_it_are_served_together() -> None:
    site = Site()
    seats = site.together(success(1), None, success(2))
    assert site.store.calls == [("together", [], 1), ("together", [1, 2], 3)]
    assert [seat.stands for seat in seats] == [True, False, True]
    assert [(seat.job and seat.job.run, seat.worker) for seat in seats] == [(101, 7), (102, 7), (103, 7)]


def test_one_whose_end_does_not_stand_gets_no_job_and_the_others_do() -> None:
    site = Site()
    site.store.lost = {2}
    one, two, three = site.together(success(1), success(2), success(3))
    assert (two.stands, two.claimed, two.job) == (False, False, None)
    assert one.stands
    assert three.stands
    assert None not in (one.job, three.job)


def test_what_cannot_end_with_a_claim_ends_before_it() -> None:
    site = Site(raising(Apart()))
    seats = site.together(success(1), success(2))
    assert site.store.calls[1:] == [("together", [1, 2], 2), ("finish", [1, 2]), ("together", [], 2)]
    assert all(seat.stands and seat.job for seat in seats)
    assert site.woken == ["woken"]


def test_what_ended_before_its_claim_had_to_wait_is_ended_once() -> None:
    site = Site(raising(Apart({(1, 0)})))
    seats = site.together(success(1), success(2))
    assert site.store.calls[2:] == [("finish", [2]), ("together", [], 2)]
    assert all(seat.stands and seat.job for seat in seats)


def test_whoever_holds_a_job_does_not_look_for_those_who_wait_for_room() -> None:
    site = Site()
    site.store.plans, site.store.freed = [], frozenset({Gate(GateKind.QUEUE, "full")})
    assert site.relay.take(success(1)).job is not None
    wait_until(lambda: site.woken == ["full"])
    assert site.store.asked != [threading.current_thread()]


def test_a_worker_that_drains_tells_those_who_wait_for_room_before_it_goes() -> None:
    site = Site()
    site.store.plans, site.store.freed = [], frozenset({Gate(GateKind.QUEUE, "full")})
    site.draining = True
    site.relay.take(success(1))
    assert site.woken == ["woken", "full"]


def test_nobody_waits_for_ever_behind_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobber.relay._PATIENCE", 0.1)
    site = Site()
    with ThreadPoolExecutor(2) as pool:
        ahead = pool.submit(site.relay.take, None)
        assert site.inside.wait(10)
        assert pool.submit(site.relay.take, success(1)).result(10).job is not None
        assert not ahead.done()
        site.go_on.set()
        assert ahead.result(10).job is not None


def test_who_would_have_to_wait_for_a_job_does_that_alone() -> None:
    site = Site(raising(Apart()), raising(Apart()))
    seats = site.together(success(1), None)
    assert site.store.calls[2:] == [("finish", [1]), ("together", [], 2), ("claim", 1), ("claim", 1)]
    assert all(seat.job for seat in seats)


def test_a_mistake_in_one_end_costs_nobody_else_a_job() -> None:
    site = Site(raising(ZeroDivisionError()))
    ended, other = site.together(success(1), None)
    assert (ended.stands, ended.job, ended.error) == (False, None, None)
    assert other.job is not None


@pytest.mark.parametrize(
    ("error", "calls", "stands"), [(StateUnavailable("away"), [], False), (Fenced("dead"), [("finish", [1])], True)]
)
def test_an_error_is_told_to_all_and_what_ended_stands(
    error: Exception, calls: list[tuple[Any, ...]], stands: bool
) -> None:
    site = Site(raising(error))
    seats = site.together(success(1), None)
    assert site.store.calls[2:] == calls
    assert [(seat.error, seat.job, seat.stands) for seat in seats] == [(error, None, stands), (error, None, False)]
    assert site.relay.take(None).job is not None  # somebody leads again


def test_a_worker_that_drains_ends_its_jobs_and_claims_none() -> None:
    site = Site()
    site.store.plans = []
    site.draining = True
    seat = site.relay.take(success(1))
    assert site.store.calls == [("finish", [1])]
    assert (seat.stands, seat.job) == (True, None)

"""What becomes of the jobs of a worker that died: on a real store, with real results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from jobber.errors import ResultsUnavailable
from jobber.jobs import Job, JobState
from jobber.leading import Role
from jobber.rescue import Outages, Rescuer
from tests.api.site import Site
from tests.servers import wait_until

JOBS = "/tasks/entries_of/jobs"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(f"sqlite:///{tmp_path}/state.db", tmp_path)
    yield site
    site.instance.close()


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def rescuer(site: Site, woken: list[str]) -> Rescuer:
    settings = site.instance.settings
    return Rescuer(
        settings=replace(settings, app=replace(settings.app, max_rescues=1)),
        store=site.instance.store,
        queueing=SimpleNamespace(wake=woken.append),  # type: ignore[arg-type]  # it has the one method that is called
        results=site.instance.results,
        holder="test",
    )


def lose(site: Site, job_id: str, *, published: bool = False) -> Job:
    """Have a job claimed by a worker that dies, on request after it has published."""
    site.http.post(JOBS, {"job_id": job_id, "args": ["U"]})
    job = site.claim()
    if published:
        site.publish(job)
    expire_leases(site)
    return job


def expire_leases(site: Site) -> None:
    statement = text("UPDATE jobber_workers SET lease_until = 0")
    site.instance.store._database.write(lambda connection: connection.execute(statement))


def test_what_was_published_before_its_worker_died_is_a_success_and_is_not_run_again(
    site: Site, rescuer: Rescuer
) -> None:
    job = lose(site, "a", published=True)

    rescuer.rescue()

    after = site.http.get("/jobs/a").data
    assert (after["state"], after["count"], after["attempt"]) == ("SUCCESS", 2, 1)
    assert [column["name"] for column in after["columns"]] == ["id", "amount"]
    assert [row["id"] for row in site.http.get("/jobs/a/results").data] == [1, 2]
    # The worker was only slow: saying the same once more is quiet.
    site.instance.store.succeed(job, rows=2, columns=site.instance.store.get("a").columns)


@pytest.mark.parametrize("end", ["cancelled", "lost too often"])
def test_a_run_that_was_published_has_succeeded_though_it_would_have_ended_otherwise(
    site: Site, rescuer: Rescuer, end: str
) -> None:
    """Its table has taken the place of an older result: ending it in any other way would lose both."""
    site.http.post(JOBS, {"job_id": "a", "args": ["V"]})
    site.work()
    rescuer._max_rescues = 0
    lose(site, "a", published=True)
    if end == "cancelled":
        site.http.delete("/jobs/a")

    rescuer.rescue()

    assert site.http.get("/jobs/a").data["state"] == "SUCCESS"
    assert [row["id"] for row in site.http.get("/jobs/a/results").data] == [1, 2]


def test_an_attempt_that_published_nothing_goes_back_and_can_publish_nothing_any_more(
    site: Site, rescuer: Rescuer, woken: list[str]
) -> None:
    job = lose(site, "a")

    rescuer.rescue()

    assert (site.instance.store.get("a").state, woken) == (JobState.PENDING, ["reports"])
    with pytest.raises(Exception, match="was overtaken"):
        site.publish(job)
    assert [attempt.ending for attempt in site.instance.store.attempts(site.instance.store.get("a"))] == ["rescued"]


def test_the_older_result_survives_a_rerun_that_loses_one_worker_too_many(site: Site, rescuer: Rescuer) -> None:
    site.http.post(JOBS, {"job_id": "a", "args": ["V"]})
    site.work()
    rescuer._max_rescues = 0
    lose(site, "a")

    rescuer.rescue()

    failed = site.http.get("/jobs/a").data
    assert (failed["state"], failed["error_code"], failed["rescues"]) == ("FAILURE", "worker_lost", 1)
    assert "w1" in failed["error"]
    assert [row["id"] for row in site.http.get("/jobs/a/results").data] == [3]


def test_a_worker_that_is_alive_keeps_its_job_and_may_publish(site: Site, rescuer: Rescuer) -> None:
    site.http.post(JOBS, {"job_id": "a", "args": ["U"]})
    job = site.claim()

    rescuer.rescue()

    site.finish(job)
    assert site.http.get("/jobs/a").data["state"] == "SUCCESS"


@pytest.mark.parametrize("how", ["down", "silent"])
def test_a_job_whose_results_database_is_away_is_rescued_when_that_is_back_or_has_been_away_for_long(
    site: Site, rescuer: Rescuer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whether it had published is known then; and one round waits for a silent database once."""
    monkeypatch.setattr("jobber.rescue._PATIENCE", 0.2)
    monkeypatch.setattr("jobber.rescue._GLANCE", 0.2)
    for job_id in ("a", "b", "c"):
        lose(site, job_id, published=job_id == "a")
        statement = text("UPDATE jobber_workers SET lease_until = 9000000000000000")
        site.instance.store._database.write(lambda connection, statement=statement: connection.execute(statement))
    expire_leases(site)
    asked: list[str] = []
    real = site.instance.results["reports"].fence

    def fence(table: str, run: int, attempt: int) -> Any:
        asked.append(table)
        if table == "results_a" and len(asked) > 1:
            return real(table, run, attempt)
        if how == "down":
            raise ResultsUnavailable("away")
        time.sleep(1)
        return None

    def states() -> list[str]:
        return [site.instance.store.get(job_id).state.value for job_id in ("a", "b", "c")]

    def ping() -> None:
        if how == "down":
            raise ResultsUnavailable("away")
        time.sleep(1)

    monkeypatch.setattr(site.instance.results["reports"], "fence", fence)
    monkeypatch.setattr(site.instance.results["reports"], "ping", ping)
    rescuer.rescue()
    assert (len(asked), states()) == (1, ["STARTED"] * 3)
    rescuer.rescue()
    assert (len(asked), states()) == (3, ["SUCCESS", "STARTED", "STARTED"])

    monkeypatch.setattr("jobber.rescue._PERSISTENCE", 0)
    rescuer.rescue()
    assert (len(asked), states()) == (4, ["SUCCESS", "PENDING", "PENDING"])


def test_a_job_that_cannot_be_rescued_yet_keeps_no_other_waiting(
    site: Site, rescuer: Rescuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker was stopped while it published and holds its table up, or there is a bug."""
    real = site.instance.results["reports"].fence
    for job_id in ("held up", "a bug", "fine"):
        site.http.post(JOBS, {"job_id": job_id.replace(" ", "-"), "args": ["U"]})
    assert len(site.claim_all()) == 3
    expire_leases(site)

    def fence(table: str, run: int, attempt: int) -> Any:
        if "held" in table:
            raise TimeoutError
        return 1 / 0 if "bug" in table else real(table, run, attempt)

    def states() -> list[str]:
        return [site.instance.store.get(job_id).state.value for job_id in ("held-up", "a-bug", "fine")]

    monkeypatch.setattr(site.instance.results["reports"], "fence", fence)
    rescuer.rescue()
    assert states() == ["STARTED", "STARTED", "PENDING"]

    monkeypatch.setattr("jobber.rescue._PERSISTENCE", 0)
    rescuer.rescue()
    assert states() == ["PENDING"] * 3


# -- outages ----------------------------------------------------------------------------------------------------------


class Clocks:
    """This machine's clock and the database's, which go where a test wants them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here, self.there, self.answering = 1000.0, 5000.0, 0.0
        monkeypatch.setattr("jobber.rescue.time.monotonic", lambda: self.here)

    def pass_by(self, seconds: float) -> None:
        self.here += seconds
        self.there += seconds

    def read(self) -> int:
        self.pass_by(self.answering)
        return int(self.there * 1_000_000)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def calm_after(outages: Outages, clocks: Clocks) -> float:
    """Return the seconds until leases are relied on again, looking every 5 s."""
    began = clocks.here
    while not outages.none_of_late(clocks.read):
        clocks.pass_by(5)
    return clocks.here - began


@pytest.fixture
def outages(clocks: Clocks) -> Outages:
    """Of leases of 30 s, after the first of them."""
    outages = Outages(30, 5)
    assert calm_after(outages, clocks) == 30
    return outages


def test_while_all_is_well_leases_count(outages: Outages, clocks: Clocks) -> None:
    for _ in range(100):
        clocks.pass_by(5)
        assert outages.none_of_late(clocks.read)


def _failed(outages: Outages, _clocks: Clocks) -> None:
    outages.note()


def _hung(_outages: Outages, clocks: Clocks) -> None:
    clocks.answering = 11


def _slept(_outages: Outages, clocks: Clocks) -> None:
    clocks.pass_by(40)


def _jumped(_outages: Outages, clocks: Clocks) -> None:
    clocks.there += 60


def _set_back(_outages: Outages, clocks: Clocks) -> None:
    clocks.there -= 3600


@pytest.mark.parametrize("event", [_failed, _hung, _slept, _jumped, _set_back])
def test_after_an_outage_or_a_jump_of_the_clock_nobody_is_declared_dead_for_one_lease(
    outages: Outages, clocks: Clocks, event: Any
) -> None:
    clocks.pass_by(5)
    event(outages, clocks)
    assert not outages.none_of_late(clocks.read)
    clocks.answering = 0
    assert 25 <= calm_after(outages, clocks) <= 35


def test_a_results_database_that_is_silent_is_no_outage_of_the_state(
    site: Site, rescuer: Rescuer, outages: Outages, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would be rescued for a lease after each round that has waited for one."""
    rescuer._outages = outages
    lose(site, "a")
    monkeypatch.setattr(site.instance.results["reports"], "fence", lambda *_: clocks.pass_by(20))

    rescuer.rescue()

    clocks.pass_by(5)
    assert outages.none_of_late(clocks.read)
    clocks.pass_by(25)
    assert not outages.none_of_late(clocks.read)


# -- roles ------------------------------------------------------------------------------------------------------------


def test_a_role_that_is_left_is_free_at_once(site: Site) -> None:
    first, second = (Role(site.instance.store, "role", holder, lease=0.3) for holder in ("a", "b"))
    assert first.held()
    assert not second.held()
    first.resign()
    wait_until(second.held, timeout=2)
    assert not Role(site.instance.store, "role", "a", lease=30).held()

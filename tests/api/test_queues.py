"""Queues, databases and workers: looking at them, pausing, resuming."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobber.config.settings import LimitSettings
from jobber.instance import Instance
from tests.api.site import Site
from tests.servers import wait_until

SUBMIT = "/tasks/between/jobs"
ONE = {"args": {"first": 1}}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that all tests of this module share; each has queues of its own."""
    folder = tmp_path_factory.mktemp("site")
    site = Site(f"sqlite:///{folder}/state.db", folder)
    yield site
    site.instance.close()


def queues(site: Site) -> dict[str, dict[str, Any]]:
    return {item["queue"]: item for item in site.http.get("/queues").data}


def test_a_paused_database_starts_nothing_says_why_and_goes_on_when_it_is_resumed(site: Site) -> None:
    site.http.post(SUBMIT, {"job_id": "a", **ONE})
    site.http.post(SUBMIT, {"job_id": "b", "queue": "reports", **ONE})
    assert site.http.get("/jobs/a").data["waiting_for"] == []

    paused = site.http.post("/databases/main/pause", {"reason": "migration"}).data

    assert (paused["database"], paused["paused"], paused["reason"]) == ("main", True, "migration")
    assert site.claim_all() == ()
    for job_id in ("a", "b"):
        assert site.http.get(f"/jobs/{job_id}").data["waiting_for"] == [
            {"gate": "database", "name": "main", "text": "database main is paused: migration"}
        ]
    assert site.http.post("/databases/main/pause", {"reason": "upgrade"}).data["reason"] == "upgrade"
    # Others that start, or load their tasks anew, announce their limits: the pause stays.
    other = Instance(site.instance.settings, site.instance.directories)
    other.announce_limits()
    other.close()
    assert site.claim_all() == ()
    resumed = site.http.post("/databases/main/resume").data
    assert (resumed["paused"], resumed["reason"]) == (False, None)
    assert sorted(job.job_id for job in site.claim_all()) == ["a", "b"]

    def figures() -> Any:
        (told,) = site.http.get("/databases").data
        return told["database"], told["pending"], told["running"]

    wait_until(lambda: figures() == ("main", 0, 2), 10)
    assert site.http.get("/databases/main").data["running"] == 2


def test_a_paused_queue_starts_nothing_says_why_and_the_others_go_on(embedded: Site) -> None:
    site = embedded
    site.http.post(SUBMIT, {"job_id": "q1", "queue": "q", **ONE})
    site.http.post(SUBMIT, {"job_id": "d1", **ONE})
    paused = site.http.post("/queues/q/pause", {"reason": "migration"}).data
    assert (paused["paused"], paused["reason"]) == (True, "migration")
    assert [job.job_id for job in site.claim_all()] == ["d1"]
    (hold,) = site.http.get("/jobs/q1").data["waiting_for"]
    assert hold["text"] == "queue q is paused: migration"
    assert site.http.post("/queues/q/pause", "").data["reason"] == ""
    (hold,) = site.http.get("/jobs/q1").data["waiting_for"]
    assert hold["text"] == "queue q is paused"
    assert site.http.post("/queues/q/resume").data["reason"] is None
    assert site.http.post("/queues/q/resume", {}).data["paused"] is False  # a second time changes nothing
    assert [job.job_id for job in site.claim_all()] == ["q1"]


def test_queues_are_told_with_what_waits_and_runs_their_age_and_those_who_serve_them(embedded: Site) -> None:
    site = embedded
    site.http.post(SUBMIT, {"job_id": "w1", "queue": "unserved", **ONE})
    assert site.http.post("/queues/empty-and-paused/pause", {}).data["paused"]
    wait_until(lambda: queues(site).get("unserved", {}).get("pending") == 1, 10)

    told = queues(site)

    assert {"default", "reports", "q", "unserved", "empty-and-paused"} <= set(told)
    unserved = told["unserved"]
    assert 0 <= unserved.pop("oldest_age_s") < 60
    assert unserved == {
        "queue": "unserved",
        "paused": False,
        "reason": None,
        "pending": 1,
        "running": 0,
        "workers": 0,
        "max_concurrent": 0,
        "max_pending": 0,
    }
    assert (told["default"]["workers"], told["reports"]["oldest_age_s"]) == (1, None)
    assert told["empty-and-paused"]["paused"] is True
    assert site.http.get("/queues/any-name").data["pending"] == 0


def test_what_can_be_no_queue_and_databases_that_nobody_knows_are_refused(embedded: Site) -> None:
    for method, path in (("GET", "/queues/a.b"), ("POST", "/queues/a.b/pause"), ("POST", "/queues/a.b/resume")):
        refused = embedded.http.send(method, path)
        assert (refused.status, refused.error["code"], refused.error["field"]) == (400, "invalid_request", "queue")
    for method, path in (("GET", "/databases/mian"), ("POST", "/databases/mian/pause")):
        refused = embedded.http.send(method, path)
        assert (refused.status, refused.error["code"]) == (404, "unknown_database")
        assert (refused.error["database"], refused.error["nearest"]) == ("mian", "main")
    assert embedded.http.send("POST", "/databases/zzz/resume").status == 404
    assert embedded.http.post("/queues/q/pause", {"reason": 5}).error["field"] == "reason"
    assert embedded.http.post("/queues/q/pause", {"why": "no"}).error["field"] == "why"


def test_the_limits_of_queues_and_databases_are_told(tmp_path: Path) -> None:
    site = Site(f"sqlite:///{tmp_path}/state.db", tmp_path)
    settings = site.instance.settings
    site.instance.settings = replace(
        settings,
        queues={"low": LimitSettings(name="low", max_concurrent=3, max_pending=500)},
        databases={"main": replace(settings.databases["main"], max_concurrent=4, max_starts=2.5)},
    )
    site.instance.announce_limits()
    low = queues(site)["low"]
    assert (low["max_concurrent"], low["max_pending"]) == (3, 500)
    site.instance.close()

"""``max_age`` and ``single_flight`` over the real service: what is answered, and what becomes of the rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.site import Site

PATH = "/tasks/entries_of/jobs"
ASK = {"args": ["U"], "max_age": 600}


def test_rows_of_an_earlier_run_are_read_under_the_new_id_until_that_is_purged(site: Site, tmp_path: Path) -> None:
    http = site.http
    http.post(PATH, {"job_id": "a", "args": ["U"]})
    site.work()
    first = http.get("/jobs/a").data
    for job_id in ("b", "c"):
        job = http.post(PATH, ASK | {"job_id": job_id}).data
        assert (job["state"], job["reused"], job["reused_job_id"], job["count"]) == ("SUCCESS", True, "a", 2)
        assert (job["table"], job["columns"], job["expires_at"]) == (
            first["table"],
            first["columns"],
            first["expires_at"],
        )
        assert 0 <= job["result_age_s"] < 600
        assert (job["attempt"], job["attempts"], job["waiting_for"]) == (0, None, [])
    told = http.get("/jobs/b").data
    assert (told["attempts"], told["progress"]["phase"], told["run_ms"]) == ([], "done", None)
    page = http.get("/jobs/b/results")
    assert page.envelope["data"] == http.get("/jobs/a/results").envelope["data"]
    assert (page.envelope["count"], page.envelope["newest"]) == (2, True)

    assert http.delete("/jobs/b?purge=true").status == 200
    assert len(http.get("/jobs/c/results").data) == 2  # the table is a's
    assert http.delete("/jobs/a?purge=true").status == 200
    assert http.get("/jobs/c/results").error["code"] == "results_gone"
    assert not list((tmp_path / "site" / "results").glob("results_*"))
    fresh = http.post(PATH, ASK).data
    assert (fresh["state"], fresh["reused"], fresh["reused_job_id"], fresh["result_age_s"]) == (
        "PENDING",
        False,
        None,
        None,
    )


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_a_result_that_is_lost_is_taken_by_one_who_finds_out_and_by_nobody_after(site: Site, tmp_path: Path) -> None:
    http = site.http
    http.post(PATH, {"job_id": "a", "args": ["U"]})
    site.work()
    for file in (tmp_path / "site" / "results").glob("results_a.db*"):
        file.unlink()
    assert http.post(PATH, ASK | {"job_id": "b"}).data["reused"]
    assert http.get("/jobs/b/results").error["code"] == "results_gone"
    assert not http.post(PATH, ASK | {"job_id": "c"}).data["reused"]


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_those_who_share_a_run_wait_for_it_and_read_its_rows(site: Site) -> None:
    http, ask = site.http, {"args": ["U"], "single_flight": True}
    http.post(PATH, ask | {"job_id": "a"})
    job = http.post(PATH, ask | {"job_id": "b"}).data
    assert (job["state"], job["depends_on"], job["depends_policy"]) == ("PENDING", ["a"], "share")
    (hold,) = [hold for hold in http.get("/jobs/b").data["waiting_for"] if hold["gate"] == "parent"]
    assert hold["name"] == "a"
    site.work()
    job = http.get("/jobs/b").data
    assert (job["state"], job["reused"], job["reused_job_id"], job["table"]) == ("SUCCESS", True, "a", "results_a")
    assert len(http.get("/jobs/b/results").data) == 2


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("asked", [{"max_age": 5}, {"single_flight": True}], ids=["max_age", "single_flight"])
def test_what_waits_for_something_of_its_own_takes_and_shares_nothing(site: Site, asked: dict[str, object]) -> None:
    (name,) = asked
    for waits in ({"depends_on": ["a"]}, {"eta": "2199-01-01"}):
        refused = site.http.post(PATH, asked | waits)
        assert (refused.status, refused.error["field"]) == (400, name)
        assert f"does not go with {next(iter(waits))}" in refused.message
    callback = {"task": "outcome", **asked}
    refused = site.http.post("/groups", {"jobs": [{"task": "entries_of", "args": ["U"]}], "callback": callback})
    assert (refused.status, refused.error["field"]) == (400, f"callback.{name}")

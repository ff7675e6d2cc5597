"""The API over the real service: every state store, a real source and real results; what the fake cannot promise."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobber.api import create_app
from jobber.config import StateSettings
from jobber.instance import Instance
from tests.api.http import Http
from tests.api.site import Site

JOBS = "/tasks/entries_of/jobs"


def test_a_job_goes_from_submission_to_its_rows(site: Site) -> None:
    http = site.http
    submitted = http.post(JOBS, '{"job_id": "a", "args": ["U"], "tags": {"kind": "x"}}').data
    assert (submitted["state"], submitted["queue"], submitted["args"]) == ("PENDING", "reports", ["U"])
    site.work()
    done = http.get("/jobs/a").data
    assert (done["state"], done["count"], done["results"]) == ("SUCCESS", 2, [{"Type": "int64", "Value": 2}])
    assert (done["tags"], done["attempt"], done["worker"]) == ({"kind": "x"}, 1, "w1")
    assert done["run_ms"] >= 0
    page = http.get("/jobs/a/results?limit=1")
    assert (page.data, page.envelope["count"], page.envelope["next"]) == ([{"id": 1, "amount": Decimal("12.5")}], 2, 1)
    assert http.get("/jobs/a/results?offset=1").data == [{"id": 2, "amount": Decimal("-0.01")}]


def test_the_older_result_stays_readable_until_a_rerun_has_published_and_outlives_one_that_fails(site: Site) -> None:
    http, rows = site.http, "/jobs/a/results"
    http.post(JOBS, {"job_id": "a", "args": ["U"]})
    assert (http.get(rows).status, http.get(rows).error["job"]["state"]) == (409, "PENDING")
    site.work()
    old = http.get(rows)
    assert ([row["id"] for row in old.data], old.envelope["newest"]) == ([1, 2], True)

    http.post(JOBS, {"job_id": "a", "args": ["V"]})
    job = site.claim()
    during = http.get(rows)
    assert (during.data, during.envelope["run"], during.envelope["newest"]) == (old.data, old.envelope["run"], False)
    http.delete("/jobs/a")
    site.instance.store.cancelled(job)
    http.post(JOBS, {"job_id": "a", "args": [1, 2]})  # one argument too many
    site.work()
    assert http.get("/jobs/a").data["state"] == "FAILURE"
    after = http.get(rows)
    assert (after.data, after.envelope["newest"]) == (old.data, False)

    http.post(JOBS, {"job_id": "a", "args": ["V"]})
    site.work()
    new = http.get(rows)
    assert ([row["id"] for row in new.data], new.envelope["newest"]) == ([3], True)
    # A run whose older result is gone has nothing to read: not ready, while it is not.
    http.post(JOBS, {"job_id": "a", "args": ["V"]})
    site.instance.results["reports"].drop(new_table(site), new.envelope["run"])
    assert (http.get(rows).status, http.get(rows).error["code"]) == (409, "results_not_ready")


def new_table(site: Site) -> str:
    return str(site.http.get("/jobs/a").data["table"])


@pytest.mark.parametrize("when", ["before the rerun was accepted", "while it ran"])
def test_a_reader_who_is_overtaken_by_a_rerun_gets_the_new_rows(
    site: Site, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It had looked the older run up, whose rows were replaced before it could read them."""
    backend = site.instance.results["reports"]
    real, rerun = backend.rows, {"job_id": "a", "args": ["V"]}
    site.http.post(JOBS, {"job_id": "a", "args": ["U"]})
    site.work()
    if when == "while it ran":
        site.http.post(JOBS, rerun)

    def overtaken(*args: Any, **page: Any) -> Any:
        monkeypatch.undo()
        if when != "while it ran":
            site.http.post(JOBS, rerun)
        site.work()
        return real(*args, **page)

    monkeypatch.setattr(backend, "rows", overtaken)
    answer = site.http.get("/jobs/a/results")
    assert (answer.status, answer.envelope["newest"]) == (200, True)
    assert [row["id"] for row in answer.data] == [3]


def test_attempts_are_told_with_their_errors_and_where_they_were_not_looked_up_as_null(site: Site) -> None:
    http, store = site.http, site.instance.store
    assert http.post(JOBS, {"job_id": "a", "args": ["U"]}).data["attempts"] is None
    assert http.get("/jobs/a").data["attempts"] == []
    store.retry(site.claim(), error="deadlock", code="query_failed", delay=0)
    site.work()
    answer = http.get("/jobs/a").data
    told = [(a["attempt"], a["ending"], a["error"], a["worker"], a["db"]) for a in answer["attempts"]]
    assert told == [(1, "retry", "deadlock", "w1", "main"), (2, "success", "", "w1", "main")]
    assert (answer["attempt"], answer["rescues"]) == (2, 0)
    assert answer["attempts"][0]["ended_at"] <= answer["attempts"][1]["started_at"]


def test_a_generated_id_leads_to_its_job(site: Site) -> None:
    job_id = site.http.post(JOBS, {"args": ["U"]}).data["job_id"]
    assert site.http.get(f"/jobs/{job_id}").data["job_id"] == job_id


def test_a_live_id_is_refused_and_free_again_once_the_job_is_finished(site: Site) -> None:
    http = site.http
    http.post(JOBS, {"job_id": "a", "args": ["U"]})
    answer = http.post(JOBS, {"job_id": "a", "args": ["V"]})
    assert (answer.status, answer.error["job"]["args"]) == (409, ["U"])
    assert http.post(JOBS, {"job_id": "A", "args": ["V"]}).status == 200  # compared byte for byte
    site.work()
    assert http.post(JOBS, {"job_id": "a", "args": ["V"]}).status == 200


def test_a_wait_ends_when_the_job_does(site: Site) -> None:
    site.http.post(JOBS, {"job_id": "a", "args": ["U"]})
    worker = threading.Timer(0.1, site.work)
    worker.start()
    assert site.http.get("/jobs/a?wait=30").data["state"] == "SUCCESS"
    worker.join()


def test_a_wait_that_is_over_tells_the_job_and_its_group_as_they_are_then(tmp_path: Path) -> None:
    site = Site(f"sqlite:///{tmp_path}/state.db", tmp_path)  # what is asked when is the same for every store
    group = {"group_id": "g", "jobs": [{"task": "entries_of", "job_id": "a", "args": ["U"]}]}
    assert site.http.post("/groups", group).status == 200
    paths = ("/jobs/a?wait=1.5", "/groups/g?wait=1.5&jobs=false")
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(lambda path=path: site.http.get(path).data) for path in paths]
        time.sleep(0.2)
        site.claim()
    job, whole = (answer.result() for answer in answers)
    assert (job["state"], job["attempt"], len(job["attempts"]), whole["state"]) == ("STARTED", 1, 1, "STARTED")
    site.instance.close()


def test_arguments_keep_every_digit_through_the_store(site: Site) -> None:
    numbers = "1.10, 12345678901234567890.123456789, 100000000000000000000000000000000000001"
    text = f'[{numbers}, "\\u0000\\ud83d\\ude00", null, true]'
    site.http.post(JOBS, f'{{"job_id": "a", "args": {text}}}')
    answer = site.http.get("/jobs/a")
    assert f'"args":{text.replace(", ", ",")}' in answer.text


def test_a_wrong_number_of_arguments_fails_the_job_and_not_the_request(site: Site) -> None:
    assert site.http.post(JOBS, {"job_id": "a", "args": [1, 2]}).status == 200
    site.work()
    job = site.http.get("/jobs/a").data
    assert (job["state"], job["error_code"]) == ("FAILURE", "bad_arguments")


@pytest.mark.parametrize("args", [{}, {"first": "x"}, {"first": 1, "other": 2}])
def test_declared_parameters_are_checked_at_once(site: Site, args: dict[str, object]) -> None:
    answer = site.http.post("/tasks/between/jobs", {"args": args})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert site.http.get("/jobs/queue/default").data == []


def test_a_pending_job_says_why_it_does_not_run(site: Site) -> None:
    site.http.post(JOBS, {"job_id": "a", "eta": "2100-01-01 00:00:00", "args": ["U"]})
    (hold,) = site.http.get("/jobs/a").data["waiting_for"]
    assert hold["gate"] == "start"
    assert hold["text"]


def test_a_job_whose_database_was_taken_out_of_the_config_says_so(site: Site) -> None:
    site.http.post(JOBS, {"job_id": "a", "args": ["U"]})
    site.instance.settings = replace(site.instance.settings, databases={})
    http = Http(create_app(site.instance.service(waiters=1)))
    (hold,) = http.get("/jobs/a").data["waiting_for"]
    assert (hold["gate"], hold["name"]) == ("database", "main")


def test_a_queue_lists_its_jobs_as_they_will_run(site: Site) -> None:
    for name, priority in [("low", 1), ("normal", 0), ("critical", 10)]:
        site.http.post(JOBS, {"job_id": name, "priority": priority, "queue": "q"})
    site.http.post(JOBS, {"job_id": "later", "eta": "2100-01-01 00:00:00", "queue": "q"})
    listed = [item["ID"] for item in site.http.get("/jobs/queue/q").data]
    assert listed == ["critical", "normal", "low", "later"]
    assert [site.claim().job_id] == listed[:1]


def test_cancelling_and_purging(site: Site) -> None:
    http = site.http
    http.post(JOBS, {"job_id": "a", "args": ["U"]})
    assert http.delete("/jobs/a").data["state"] == "CANCELLED"
    assert http.delete("/jobs/a").error["code"] == "job_is_finished"
    assert http.get("/jobs/a/results").error["code"] == "results_not_ready"
    http.post(JOBS, {"job_id": "a", "args": ["U"]})
    site.work()
    assert http.delete("/jobs/a?purge=true").data["state"] == "SUCCESS"
    assert http.get("/jobs/a").status == 404
    assert http.get("/jobs/a/results").status == 404


def test_purging_drops_what_a_run_published_that_nobody_heard_of(site: Site, tmp_path: Path) -> None:
    """Its worker died between the two."""
    site.http.post(JOBS, {"job_id": "a", "args": ["U"]})
    job = site.claim()
    site.publish(job)
    site.instance.store.fail(job, error="worker died", code="worker_lost")
    results = tmp_path / "site" / "results"
    assert list(results.glob("results_*"))
    assert site.http.delete("/jobs/a?purge=true").data["state"] == "FAILURE"
    assert not list(results.glob("results_*"))


def test_cancelling_a_running_job_asks_it_to_stop(site: Site) -> None:
    site.http.post(JOBS, {"job_id": "a", "args": ["U"]})
    site.claim()
    data = site.http.delete("/jobs/a").data
    assert (data["state"], data["cancel_requested"]) == ("STARTED", True)


def test_an_unreachable_state_database_is_503(site: Site) -> None:
    away = replace(site.instance.settings, state=StateSettings(url="postgresql+psycopg://postgres@127.0.0.1:1/none"))
    instance = Instance(away, site.instance.directories)
    http = Http(create_app(instance.service(waiters=10)))
    of_jobs = (http.get("/jobs/a"), http.post(JOBS, {}), http.delete("/jobs/a"), http.get("/jobs/queue/q"))
    group = {"jobs": [{"task": "entries_of"}]}
    of_groups = (http.get("/groups/g"), http.post("/groups", group), http.delete("/groups/g"))
    for answer in (*of_jobs, *of_groups):
        assert (answer.status, answer.error["code"]) == (503, "state_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert http.get("/tasks").status == 200
    instance.close()

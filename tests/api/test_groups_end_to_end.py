"""Groups over the real service: what is promised of them holds together, from the request to the callback's rows."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobber.errors import ResultsUnavailable
from tests.api.site import Site
from tests.servers import wait_until

#: What does not differ between the engines of the state.
on_sqlite = pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)

PAIR = [
    {"task": "entries_of", "job_id": "good", "args": ["U"]},
    {"task": "entries_of", "job_id": "bad", "args": ["U", "V"]},
]
CALLBACK = {"task": "outcome", "job_id": "after", "args": {"channel": "mail"}}


def test_a_group_goes_from_submission_to_the_rows_of_its_callback(site: Site) -> None:
    http = site.http
    submitted = http.post("/groups", {"group_id": "g", "concurrency": 1, "jobs": PAIR, "callback": CALLBACK}).data
    assert (submitted["state"], submitted["concurrency"], submitted["counts"]["PENDING"]) == ("PENDING", 1, 2)
    assert [job["group_id"] for job in submitted["jobs"]] == ["g", "g"]
    assert http.get("/groups/g").data["callback"]["waiting_for"][0]["gate"] == "parent"
    (first,) = site.claim_all()  # one at a time
    assert http.get("/groups/g").data["state"] == "STARTED"
    site.finish(first)
    waiter = threading.Timer(0.1, site.work)
    waiter.start()
    done = http.get("/groups/g?wait=60").data
    waiter.join()
    assert (done["state"], done["counts"]["SUCCESS"], done["counts"]["FAILURE"]) == ("FAILURE", 1, 1)
    assert [(job["job_id"], job["state"]) for job in done["jobs"]] == [("good", "SUCCESS"), ("bad", "FAILURE")]
    assert (done["callback"]["state"], done["callback"]["waiting_for"]) == ("PENDING", [])

    assert http.delete("/groups/g?purge=true").error["job"]["job_id"] == "after"  # not before its callback has run
    site.work()
    (row,) = http.get("/jobs/after/results").data
    tables = [done["jobs"][0]["table"]]
    assert (row["group_id"], row["succeeded"], row["failed"], row["cancelled"]) == ("g", 1, 1, 0)
    assert (json.loads(row["tables"]), row["channel"]) == (tables, "mail")
    assert http.get("/groups/g").data["callback"]["state"] == "SUCCESS"
    assert http.get("/groups/g?jobs=false").data["jobs"] == []


def test_cancelling_a_group_and_purging_it_with_its_tables(site: Site, tmp_path: Path) -> None:
    http, results = site.http, tmp_path / "site" / "results"
    jobs = [{"task": "entries_of", "job_id": name, "args": ["U"]} for name in ("done", "runs", "waits")]
    http.post("/groups", {"group_id": "g", "jobs": jobs, "callback": CALLBACK})
    site.work()
    running = site.claim()
    data = http.delete("/groups/g").data
    assert [job["state"] for job in data["jobs"]] == ["SUCCESS", "STARTED", "CANCELLED"]
    assert (data["state"], data["jobs"][1]["cancel_requested"]) == ("STARTED", True)
    assert http.delete("/groups/g?purge=true").data["state"] == "STARTED"  # it is live: nothing is removed
    site.instance.store.cancelled(running)
    assert http.get("/groups/g").data["state"] == "CANCELLED"
    answer = http.delete("/groups/g")
    assert (answer.status, answer.error["group"]["counts"]["CANCELLED"]) == (409, 2)
    site.work()
    assert http.get("/jobs/after/results").data[0]["cancelled"] == 2

    assert len(list(results.glob("results_*"))) == 2
    assert http.delete("/groups/g?purge=true").data["callback"]["job_id"] == "after"
    assert not list(results.glob("results_*"))
    for path in ("/groups/g", "/jobs/done", "/jobs/runs", "/jobs/waits", "/jobs/after"):
        assert http.get(path).status == 404


@on_sqlite
def test_a_group_with_a_live_member_creates_nothing(site: Site) -> None:
    site.http.post("/tasks/entries_of/jobs", {"job_id": "bad", "queue": "q"})
    answer = site.http.post("/groups", {"group_id": "g", "jobs": PAIR})
    assert (answer.status, answer.error["field"], answer.error["job"]["queue"]) == (409, "jobs[1].job_id", "q")
    assert site.http.get("/groups/g").status == site.http.get("/jobs/good").status == 404
    assert site.http.post("/groups", {"jobs": [{"task": "between"}]}).error["field"] == "jobs[0].args"


@on_sqlite
def test_a_live_group_is_refused_and_its_id_free_again_once_it_is_finished(site: Site) -> None:
    http = site.http
    http.post("/groups", {"group_id": "g", "jobs": PAIR[:1]})
    answer = http.post("/groups", {"group_id": "g", "jobs": [{"task": "entries_of"}]})
    assert (answer.status, answer.error["group"]["counts"]["PENDING"]) == (409, 1)
    site.work()
    assert http.post("/groups", {"group_id": "g", "jobs": PAIR}).status == 200
    assert http.get("/groups/g").data["counts"]["PENDING"] == 2


@on_sqlite
def test_each_queue_is_woken_once_and_for_no_more_jobs_than_may_run(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[tuple[str, int]] = []
    monkeypatch.setattr(site.instance.queueing, "wake", lambda queue, slots=1: woken.append((queue, slots)))

    def submit(**group: Any) -> Counter[tuple[str, int]]:
        woken.clear()
        queues = ["reports", "q", "reports", "reports"]
        jobs: list[dict[str, Any]] = [{"task": "entries_of", "queue": queue} for queue in queues]
        later = {"task": "entries_of", "queue": "later", "eta": "2100-01-01 00:00:00"}
        site.http.post("/groups", {"jobs": [*jobs, later], "callback": CALLBACK | {"job_id": ""}, **group})
        return Counter(woken)

    assert submit() == {("reports", 3): 1, ("q", 1): 1}
    assert submit(concurrency=2) == {("reports", 2): 1, ("q", 1): 1}


@on_sqlite
def test_the_end_of_the_last_job_wakes_the_queue_of_the_callback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.http.post("/groups", {"group_id": "g", "jobs": PAIR[:1], "callback": CALLBACK | {"queue": "q"}})
    site.http.post("/groups", {"group_id": "h", "jobs": PAIR[1:], "callback": {"task": "entries_of", "queue": "r"}})
    woken: list[str] = []
    monkeypatch.setattr(site.instance.queueing, "wake", lambda queue, *_: woken.append(queue))
    site.http.delete("/jobs/good")
    assert "q" in woken
    site.http.delete("/groups/h")
    assert "r" in woken


@on_sqlite
def test_every_running_job_of_a_cancelled_group_is_told_to_stop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(site.instance.queueing, "cancel", lambda run, attempt: told.append((run, attempt)))
    jobs = [{"task": "entries_of", "args": ["U"]}] * 3
    site.http.post("/groups", {"group_id": "g", "jobs": jobs})
    site.work()
    running = site.claim_all()
    site.http.delete("/groups/g")
    assert sorted(told) == sorted((job.run, 1) for job in running)
    assert len(told) == 2


@on_sqlite
def test_a_stopping_instance_takes_no_group_and_keeps_nobody_waiting_for_one(site: Site) -> None:
    service = site.http.app.extensions["jobber.service"]
    site.http.post("/groups", {"group_id": "g", "jobs": PAIR})
    states: list[str] = []
    waiter = threading.Thread(target=lambda: states.append(site.http.get("/groups/g?wait=60").data["state"]))
    waiter.start()
    wait_until(lambda: service._groups_watcher._waiters)
    service.drain()
    assert site.http.post("/groups", {"jobs": PAIR}).error["code"] == "draining"
    service.release()
    waiter.join(30)
    assert states == ["PENDING"]


@on_sqlite
@pytest.mark.parametrize(
    ("of_failed", "words"),
    [
        ("text", "callback.task: task wrong declares failed as text, but jobber fills it with a whole number"),
        ("number", "callback.args: day is missing (date)"),
    ],
)
def test_a_callback_whose_params_do_not_fit_is_refused_at_once(
    site: Site, tmp_path: Path, of_failed: str, words: str
) -> None:
    sql = f"-- name: wrong\n-- param: failed {of_failed}\n-- param: day date\nSELECT :failed, :day;\n"
    (tmp_path / "site" / "sql" / "more.sql").write_text(sql)
    site.instance.reload()
    answer = site.http.post("/groups", {"jobs": PAIR, "callback": {"task": "wrong"}})
    assert answer.status == 400
    assert answer.message == words


@on_sqlite
def test_a_purge_asks_a_results_database_that_is_away_only_once_about_jobs_that_failed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.http.post("/groups", {"group_id": "g", "jobs": [{"task": "entries_of"}] * 3})
    for _ in range(3):
        site.work()
    asked = []

    def drop(table: str, run: int) -> None:
        asked.append((table, run))
        raise ResultsUnavailable("out of reach")

    monkeypatch.setattr(site.instance.results["reports"], "drop", drop)
    assert site.http.delete("/groups/g?purge=true").data["state"] == "FAILURE"
    assert len(asked) == 1


@on_sqlite
def test_a_callback_whose_task_is_gone_says_that_it_waits_for_it(site: Site, tmp_path: Path) -> None:
    site.http.post("/groups", {"group_id": "g", "jobs": [{"task": "entries_of"}], "callback": CALLBACK})
    site.work()
    (tmp_path / "site" / "sql" / "queries.sql").write_text("-- name: other\nSELECT 1 AS a;")
    site.instance.reload()
    hold = {"gate": "task", "name": "outcome", "text": "no task named outcome is loaded"}
    assert site.http.get("/groups/g").data["callback"]["waiting_for"] == [hold]
    assert site.http.get("/jobs/after").data["waiting_for"] == [hold]

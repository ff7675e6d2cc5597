"""The past of a job over HTTP: its events, where its result comes from, and which callbacks are taken."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jobber.config import WebhookSettings
from jobber.history import Archivist
from jobber.store.events import Level, LogLine
from tests.api.site import Site
from tests.servers import wait_until

on_sqlite = pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)


@on_sqlite
def test_the_events_of_a_job_are_told_oldest_first_and_filtered_by_level(site: Site) -> None:
    http, store = site.http, site.instance.store
    http.post("/tasks/entries_of/jobs", {"job_id": "a", "args": ["U"], "retries": 1})
    job = site.claim()
    store.events.log([LogLine(job.run, 1, "w1", Level.WARNING, "a notice", 0.0)])
    store.retry(job, error="no luck", code="query_failed", delay=0)
    site.work()

    answer = http.get("/jobs/a/events")

    assert [(event["event"], event["attempt"], event["level"]) for event in answer.data] == [
        ("submitted", 0, "info"),
        ("started", 1, "info"),
        ("log", 1, "warning"),
        ("retry", 1, "warning"),
        ("started", 2, "info"),
        ("success", 2, "info"),
    ]
    assert answer.data[0]["at"] == http.get("/jobs/a").data["created_at"]
    assert answer.data[3]["message"] == "query_failed: no luck"
    assert answer.envelope["run"] == job.run
    assert answer.envelope["runs"] == [job.run]
    assert [event["event"] for event in http.get("/jobs/a/events?level=warning").data] == ["log", "retry"]
    assert http.get("/jobs/a/events?level=loud").error["field"] == "level"


@on_sqlite
def test_an_earlier_run_is_told_of_where_it_is_asked_for(site: Site) -> None:
    http = site.http
    for args in (["U", "one too many"], ["U"]):
        http.post("/tasks/entries_of/jobs", {"job_id": "a", "args": args})
        site.work()
    second, first = http.get("/jobs/a/events").envelope["runs"]

    assert [event["event"] for event in http.get("/jobs/a/events").data] == ["submitted", "started", "success"]
    assert [event["event"] for event in http.get(f"/jobs/a/events?run={first}").data] == [
        "submitted",
        "started",
        "failure",
    ]
    assert http.get(f"/jobs/a/provenance?run={first}").data["count"] is None
    http.post("/tasks/entries_of/jobs", {"job_id": "b", "args": ["U"]})
    assert http.get(f"/jobs/b/events?run={second}").error["code"] == "unknown_job"
    assert http.get("/jobs/none/events").error["code"] == "unknown_job"
    assert http.get("/jobs/none/provenance").error["code"] == "unknown_job"


@on_sqlite
def test_the_provenance_of_a_result_names_the_sql_that_was_run_though_its_file_has_changed(
    site: Site, tmp_path: Path
) -> None:
    http, instance = site.http, site.instance
    sql = http.get("/tasks/entries_of?sql=1").data["sql"]
    instance.store.versions.note({task.version: task.sql for task in instance.tasks().values()}, history=60)
    http.post("/tasks/entries_of/jobs", {"job_id": "a", "args": ["U"]})
    site.work()
    file = tmp_path / "site" / "sql" / "queries.sql"
    file.write_text(file.read_text().replace("ORDER BY id", "ORDER BY id DESC"))
    instance.reload()
    status = http.get("/jobs/a").data

    found = http.get("/jobs/a/provenance").data

    assert (found["sql"], found["version"]) == (sql, status["version"])
    assert found["version"] != http.get("/tasks/entries_of").data["version"]
    assert (found["task"], found["args"], found["db"], found["results_db"]) == ("entries_of", ["U"], "main", "reports")
    same = ("table", "count", "attempt", "worker", "started_at", "snapshot_at", "finished_at")
    assert {name: found[name] for name in same} == {name: status[name] for name in same}
    assert found["reused"] is None


@on_sqlite
def test_a_result_that_was_reused_comes_from_the_run_that_read_it(site: Site) -> None:
    http = site.http
    http.post("/tasks/entries_of/jobs", {"job_id": "first", "args": ["U"]})
    site.work()
    http.post("/tasks/entries_of/jobs", {"job_id": "again", "args": ["U"], "max_age": 3600})

    first, again = http.get("/jobs/first/provenance").data, http.get("/jobs/again/provenance").data

    assert again["reused"] == {"job_id": "first", "run": first["run"]}
    for name in ("version", "table", "worker", "started_at", "snapshot_at", "attempt"):
        assert again[name] == first[name], name


@on_sqlite
def test_the_sql_of_loaded_tasks_is_noted_and_again_after_a_reload(site: Site, tmp_path: Path) -> None:
    instance = site.instance
    archivist = Archivist(store=instance.store, tasks=instance.tasks, history=60)
    thread = threading.Thread(target=archivist.run)
    thread.start()
    try:
        for wanted in ("ORDER BY id", "ORDER BY id DESC"):
            file = tmp_path / "site" / "sql" / "queries.sql"
            file.write_text(file.read_text().replace("= ? ORDER BY id;", f"= ? {wanted};"))
            task = instance.reload()["entries_of"]
            wait_until(lambda task=task: instance.store.versions.sql(task.version) == task.sql)  # type: ignore[misc]
    finally:
        archivist.stop()
        thread.join(10)


GROUP = {"jobs": [{"task": "entries_of", "args": ["U"]}]}


@on_sqlite
def test_a_callback_url_is_refused_while_there_is_nothing_to_sign_calls_with(site: Site) -> None:
    for path, body, field in (
        ("/tasks/entries_of/jobs", {"args": ["U"], "callback_url": "https://example.com/"}, "callback_url"),
        ("/groups", {**GROUP, "callback_url": "https://example.com/"}, "callback_url"),
        ("/groups", {"jobs": [{**GROUP["jobs"][0], "callback_url": "https://e.com"}]}, "jobs[0].callback_url"),
    ):
        answer = site.http.post(path, body)
        assert answer.status == 400
        assert answer.error["field"] == field
        assert "[webhooks]" in answer.message
    assert site.claim_all() == ()


@pytest.fixture
def calls(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    completer = site.http.app.extensions["jobber.service"]._completer
    monkeypatch.setattr(completer, "_webhooks", WebhookSettings(secret="s", allow=("*.example.com",)))
    return site


@on_sqlite
def test_only_hosts_that_the_config_allows_are_taken(calls: Site) -> None:
    body = {"args": ["U"], "job_id": "a"}
    refused = calls.http.post("/tasks/entries_of/jobs", body | {"callback_url": "https://example.org/x"})
    assert refused.status == 400
    assert "webhooks.allow does not name example.org" in refused.message

    taken = calls.http.post("/tasks/entries_of/jobs", body | {"callback_url": "https://hooks.example.com/x?y=1"})

    assert taken.data["callback_url"] == "https://hooks.example.com/x?y=1"
    calls.work()
    assert calls.instance.store.calls.due()

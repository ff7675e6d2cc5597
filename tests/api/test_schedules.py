"""Schedules over HTTP, and what fires them: one instance over a real store, with the clock moved by SQL."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import text

from jobber.answers import rfc3339
from jobber.api.schedule_schemas import ScheduleBody, SchedulePart
from jobber.jobs import Micros
from jobber.maintenance import Maintenance
from jobber.scheduling import Scheduler, disobeyed
from jobber.scheduling.planning import SECOND
from tests.api.http import Answer, Http
from tests.api.site import Site
from tests.api.test_openapi import DOCS
from tests.servers import wait_until

HOUR = 3600 * SECOND
TAGGED = "-- name: nightly\n-- queue: q\n-- cron: {cron}\n{more}SELECT 1 AS one;\n"


class Clock:
    """An instance whose schedules become due when a test says so."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.http: Http = site.http
        self.store = site.instance.store
        self.woken: list[str] = []
        instance = site.instance
        self.scheduler = Scheduler(
            store=self.store, completer=instance.completer(), tasks=instance.tasks, wake=self.woken.append
        )

    def post(self, path: str, **body: Any) -> Answer:
        return self.http.post(path, body)

    def make(self, schedule_id: str, **body: Any) -> Any:
        """Make a schedule of tomorrow."""
        rhythm = {} if "cron" in body else {"interval": 86_400}
        plain = {"schedule_id": schedule_id, "task": "between", "args": {"first": 2}}
        return self.post("/schedules", **plain | rhythm | body).data

    def see(self, schedule_id: str) -> Any:
        return self.http.get(f"/schedules/{schedule_id}").data

    def now(self) -> Micros:
        return self.store.now() // SECOND * SECOND

    def come(self, schedule_id: str, at: Micros | None = None) -> None:
        """Make the next fire time of a schedule a moment, now if none is given, and fire all that is due."""
        move = text("UPDATE jobber_schedules SET next_at = :at WHERE schedule_id = :id")
        moved = {"at": self.now() if at is None else at, "id": schedule_id}
        self.store._database.write(lambda connection: connection.execute(move, moved))
        self.fire()

    def fire(self) -> None:
        self.scheduler.step(self.store.due(self.scheduler.tasks()).schedules)

    def task_file(self, content: str | None) -> None:
        """Write or remove a task file, and reload."""
        file = self.site.instance.directories[0] / "nightly.sql"
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        self.site.instance.reload()
        self.fire()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clock]:
    folder = tmp_path_factory.mktemp("schedules")
    site = Site(f"sqlite:///{folder}/state.db", folder)
    yield Clock(site)
    site.instance.close()


@pytest.fixture
def clock(whole: Clock) -> Iterator[Clock]:
    yield whole
    for name in ("schedules", "fires", "jobs", "finished_jobs"):
        whole.store._database.write(lambda c, name=name: c.execute(text(f"DELETE FROM jobber_{name}")))  # type: ignore[misc]


# -- what is asked, and what is told ----------------------------------------------------------------------------------


def test_a_schedule_is_told_with_its_next_five_fire_times(clock: Clock) -> None:
    made = clock.make("report", cron="30 7  * * mon-fri", timezone="Europe/Berlin", priority="high", tags={"a": "b"})

    assert (made["schedule_id"], made["task"], made["cron"]) == ("report", "between", "30 7 * * mon-fri")
    assert (made["priority"], made["tags"], made["queue"], made["args"]) == (8, {"a": "b"}, None, {"first": 2})
    assert (made["overlap"], made["missed"], made["runs"], made["source"]) == ("skip", "once", 0, "api")
    assert (made["paused"], made["reason"], made["last_job_id"], made["fires"]) == (False, None, None, [])
    times = [datetime.fromisoformat(at) for at in made["next_runs"]]
    assert len(times) == 5
    assert made["next_at"] == made["next_runs"][0]
    assert all(at.minute == 30 and at.weekday() < 5 and at.hour in (5, 6) for at in times)
    assert clock.see("report") == made


def test_an_id_is_made_up_and_a_blank_is_none(clock: Clock) -> None:
    made = clock.post(
        "/schedules", schedule_id="", task="between", args={"first": 1}, interval=60, cron="", job_id="", max_runs=0
    ).data

    assert len(made["schedule_id"]) == 36
    assert (made["cron"], made["interval"], made["max_runs"], made["timezone"]) == (None, 60, None, "UTC")
    assert datetime.fromisoformat(made["next_runs"][1]) - datetime.fromisoformat(made["next_at"]) == timedelta(
        minutes=1
    )


def test_an_id_that_is_taken_is_refused_and_nothing_is_replaced(clock: Clock) -> None:
    made = clock.make("report")

    refused = clock.post("/schedules", schedule_id="report", task="entries_of", interval=5)

    assert (refused.status, refused.error["code"]) == (409, "schedule_exists")
    assert clock.see("report") == made


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "cron", "say when with cron, or with interval"),
        ({"cron": "* * * * *", "interval": 5}, "interval", "does not go with cron"),
        ({"cron": "0 25 * * *"}, "cron", "'25' is not an hour"),
        ({"cron": "0 0 31 2 *"}, "cron", "would never fire"),
        ({"cron": "0 0 * *"}, "cron", "must have five fields"),
        ({"cron": "0 0 * * *", "timezone": "Europe/Berlyn"}, "timezone", "did you mean Europe/Berlin?"),
        ({"interval": 5, "timezone": "Europe/Berlin"}, "timezone", "goes with cron only"),
        ({"interval": 0.5}, "interval", "must be a whole number, not 0.5"),
        ({"interval": -1}, "interval", "must lie between"),
        ({"interval": 5, "start_at": "2030-01-02", "end_at": "2030-01-01"}, "end_at", "comes before start_at"),
        ({"interval": 5, "end_at": "2020-01-01"}, "end_at", "would never fire"),
        ({"interval": 5, "args": {"first": "x"}}, "args", "first must be an integer"),
        ({"interval": 5, "args": {}}, "args", "first is missing"),
        ({"interval": 5, "db": "other"}, "db", "does not run on 'other'"),
        ({"interval": 5, "schedule_id": "x" * 81}, "schedule_id", "is longer than 80 characters"),
        ({"interval": 5, "schedule_id": "a b"}, "schedule_id", "letters and digits"),
        ({"interval": 5, "overlap": "never"}, "overlap", "must be skip or queue or allow"),
        ({"interval": 5, "overlap": "skip", "missed": "all"}, "overlap", "does not go with missed all"),
        ({"interval": 5, "overlap": "queue", "max_age": 60}, "max_age", "does not go with overlap queue"),
        ({"interval": 5, "jitter": 9, "max_age": 60}, "max_age", "does not go with jitter"),
        ({"interval": 5, "jitter": 9, "single_flight": True}, "single_flight", "does not go with jitter"),
        ({"interval": 5, "job_id": "x"}, "job_id", "there is no such field"),
        ({"interval": 5, "eta": "2030-01-01"}, "eta", "there is no such field"),
        ({"interval": 5, "depends_on": ["x"]}, "depends_on", "there is no such field"),
        ({"interval": 5, "task": None}, "task", "is missing"),
        ({"interval": 5, "crom": "x"}, "crom", "did you mean cron?"),
    ],
)
def test_a_mistake_is_told_under_its_field(clock: Clock, body: dict[str, Any], field: str, says: str) -> None:
    refused = clock.post("/schedules", **{"task": "between", "args": {"first": 1}, **body})

    assert (refused.status, refused.error["code"], refused.error["field"]) == (400, "invalid_request", field)
    assert says in refused.error["fields"][field]
    assert clock.http.get("/schedules").data == []


def test_all_mistakes_are_told_at_once_and_an_unknown_task_with_the_nearest(clock: Clock) -> None:
    refused = clock.post("/schedules", task="between", cron="x", timezone="y", overlap="skip", missed="all")
    assert set(refused.error["fields"]) == {"cron", "timezone", "overlap", "args"}

    refused = clock.post("/schedules", task="betwen", interval=5)
    assert (refused.status, refused.error["code"], refused.error["nearest"]) == (404, "unknown_task", "between")


def test_schedules_are_listed_by_id_a_page_at_a_time(clock: Clock) -> None:
    for name in ("c", "a", "b"):
        clock.make(name)

    first = clock.http.get("/schedules?limit=2")
    rest = clock.http.get(f"/schedules?limit=2&cursor={first.envelope['next']}")

    assert [[item["schedule_id"] for item in page.data] for page in (first, rest)] == [["a", "b"], ["c"]]
    assert (rest.envelope["next"], rest.data[0]["next_runs"]) == (None, None)
    assert clock.http.get("/schedules?limit=0").status == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run")],
)
def test_an_unknown_schedule_is_told_as_such(clock: Clock, method: str, path: str) -> None:
    for name in ("nope", "no%20pe", "ünknown"):
        refused = clock.http.send(method, f"/schedules/{name}{path}")
        assert (refused.status, refused.error["code"]) == (404, "unknown_schedule")


def test_a_request_with_a_key_that_is_sent_again_makes_nothing_again(clock: Clock) -> None:
    body = {"task": "between", "args": {"first": 1}, "interval": 60}
    for path in ("/schedules", "/schedules/keyed/run"):
        clock.make("keyed") if path.endswith("run") else None
        first, again = (clock.http.post(path, body, headers={"Idempotency-Key": path}) for _ in range(2))

        assert first.data == again.data
        assert (first.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    conflict = clock.http.post("/schedules", body | {"interval": 61}, headers={"Idempotency-Key": "/schedules"})
    assert conflict.error["code"] == "idempotency_conflict"
    assert len(clock.http.get("/schedules").data) == 2
    assert len(clock.see("keyed")["fires"]) == 1


# -- firing -----------------------------------------------------------------------------------------------------------


def test_a_schedule_makes_a_job_at_its_time_that_runs_like_any_other(clock: Clock) -> None:
    clock.make("report", tags={"who": "me"}, ttl=77)
    clock.woken.clear()

    clock.come("report")
    clock.fire()
    assert clock.woken == ["default"]

    seen = clock.see("report")
    assert (seen["runs"], [fire["outcome"] for fire in seen["fires"]]) == (1, ["fired"])
    job_id = seen["last_job_id"]
    assert job_id == f"report:{seen['last_at'][:19].replace('-', '').replace(':', '')}"
    clock.site.work()
    job = clock.http.get(f"/jobs/{job_id}").data
    assert (job["state"], job["schedule_id"], job["tags"], job["ttl"]) == ("SUCCESS", "report", {"who": "me"}, 77)
    assert clock.http.get(f"/jobs/{job_id}/results").data == [{"id": 2}, {"id": 3}]


def test_what_was_missed_while_nothing_ran_comes_as_the_policy_says(clock: Clock) -> None:
    half_past = clock.now() - 1800 * SECOND
    for missed in ("once", "skip", "all"):
        clock.make(missed, interval=3600, missed=missed, start_at=rfc3339(half_past - 9 * HOUR))
        clock.come(missed, half_past - 3 * HOUR)

    assert {missed: clock.see(missed)["runs"] for missed in ("once", "skip", "all")} == {"once": 1, "skip": 0, "all": 4}
    [fire] = clock.see("skip")["fires"]
    assert (fire["outcome"], fire["job_id"], fire["reason"]) == ("missed", None, "nobody could fire")
    assert clock.see("all")["overlap"] == "queue"


def test_a_pause_with_its_reason_holds_all_fires_and_a_resume_makes_up_for_none(clock: Clock) -> None:
    clock.make("report", interval=3600, missed="all", start_at="2020-01-01")

    paused = clock.post("/schedules/report/pause", reason="migration").data
    assert (paused["paused"], paused["reason"], len(paused["next_runs"])) == (True, "migration", 5)
    clock.come("report", clock.now() - HOUR)
    assert clock.see("report")["fires"] == []

    resumed = clock.post("/schedules/report/resume").data
    clock.fire()
    assert (resumed["paused"], resumed["reason"]) == (False, None)
    assert resumed["next_runs"] == paused["next_runs"]
    assert clock.see("report")["fires"] == []
    assert clock.http.post("/schedules/report/pause", {}).data["reason"] == ""


def test_a_run_that_is_asked_for_comes_at_once_even_while_paused(clock: Clock) -> None:
    clock.make("report", jitter=3600)
    clock.post("/schedules/report/pause")

    job = clock.post("/schedules/report/run").data

    assert (job["state"], job["schedule_id"], job["eta"]) == ("PENDING", "report", None)
    clock.site.work()
    seen = clock.see("report")
    assert (seen["runs"], seen["last_job_id"], seen["fires"][0]["outcome"]) == (0, job["job_id"], "run")


def test_a_delete_ends_the_fires_and_leaves_the_jobs(clock: Clock) -> None:
    clock.make("report")
    clock.come("report")
    job_id = clock.see("report")["last_job_id"]

    assert clock.http.delete("/schedules/report").data["last_job_id"] == job_id

    assert clock.http.get("/schedules/report").status == 404
    assert clock.http.get(f"/jobs/{job_id}").data["state"] == "PENDING"


def test_a_job_that_does_not_fit_its_task_any_more_is_told_and_does_not_end_the_schedule(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.task_file(TAGGED.format(cron="0 0 1 1 *", more="").replace("SELECT 1", "SELECT :a").replace("-- cron", "--"))
    clock.make("report", task="nightly", args={"a": "old"})
    clock.task_file("-- name: nightly\n-- param: a integer\nSELECT :a AS a;\n")

    clock.come("report")
    clock.fire()

    seen = clock.see("report")
    assert seen["last_error"] == "args: a must be an integer of at most 64 bits, not 'old'"
    assert [(fire["outcome"], fire["reason"]) for fire in seen["fires"]] == [("failed", seen["last_error"])]
    assert seen["next_at"] is not None
    assert len([record for record in caplog.records if "makes no job now" in record.message]) == 1
    clock.task_file("-- name: nightly\nSELECT :a AS a;\n")
    clock.come("report", clock.now() + SECOND)
    wait_until(lambda: clock.fire() or clock.see("report")["runs"] == 1)
    assert clock.see("report")["last_error"] == ""


def test_a_schedule_whose_task_is_not_loaded_here_is_left_alone(clock: Clock) -> None:
    clock.make("report")
    rename = text("UPDATE jobber_schedules SET task = 'elsewhere'")
    clock.store._database.write(lambda c: c.execute(rename))

    clock.come("report")

    assert clock.see("report")["fires"] == []
    assert clock.store.due().schedules == 0
    assert clock.post("/schedules/report/run").error["code"] == "unknown_task"


def test_a_schedule_whose_task_is_not_loaded_is_not_looked_for_and_fires_once_a_reload_brings_the_task(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.task_file("-- name: nightly\nSELECT 1 AS one;\n")
    clock.make("report", task="nightly", args=[])
    clock.task_file(None)
    clock.come("report")
    looks: list[str] = []
    due, look = clock.store.due, clock.store.schedules.due
    monkeypatch.setattr(clock.store, "due", lambda *names: looks.append("glance") or due(*names))
    monkeypatch.setattr(clock.store.schedules, "due", lambda *names: looks.append("look") or look(*names))
    monkeypatch.setattr("jobber.maintenance._TICK", 0.01)
    of = clock.site.instance
    keeper = Maintenance(
        settings=of.settings, store=clock.store, queueing=of.queueing, holder="test", scheduler=clock.scheduler
    )
    thread = Thread(target=keeper.run)
    thread.start()
    try:
        wait_until(lambda: looks.count("glance") >= 20)
        assert "look" not in looks
        (of.directories[0] / "nightly.sql").write_text("-- name: nightly\nSELECT 1 AS one;\n")
        of.reload()
        wait_until(lambda: clock.see("report")["runs"] == 1)
    finally:
        keeper.stop()
        thread.join(30)
    clock.task_file(None)


def test_one_schedule_that_stumbles_keeps_no_other_from_firing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    clock.make("bad")
    clock.make("good")
    clock.store._database.write(
        lambda c: c.execute(text("UPDATE jobber_schedules SET cron = '?' WHERE schedule_id = 'bad'"))
    )
    for name in ("bad", "good", "good"):
        clock.come(name)

    assert (clock.see("good")["runs"], clock.store.schedules.get("bad").runs) == (1, 0)
    assert len([record for record in caplog.records if "schedule bad stumbled" in record.message]) == 1


# -- the cron tag -----------------------------------------------------------------------------------------------------


def test_a_cron_tag_makes_edits_and_removes_the_schedule_of_its_tasks_name(clock: Clock) -> None:
    clock.task_file(TAGGED.format(cron="0 7 * * *", more="-- timezone: Europe/Berlin\n"))
    made = clock.see("nightly")
    assert (made["source"], made["task"], made["cron"], made["timezone"]) == (
        "tag",
        "nightly",
        "0 7 * * *",
        "Europe/Berlin",
    )
    told = clock.http.get("/tasks/nightly").data
    assert (told["cron"], told["timezone"]) == ("0 7 * * *", "Europe/Berlin")
    clock.come("nightly")
    assert clock.site.claim().queue == "q"
    clock.post("/schedules/nightly/pause", reason="why")

    clock.task_file(TAGGED.format(cron="30 8 * * *", more=""))
    edited = clock.see("nightly")
    assert (edited["cron"], edited["timezone"], edited["runs"], edited["reason"]) == ("30 8 * * *", "UTC", 1, "why")
    assert edited["next_at"][11:] == "08:30:00.000000Z"
    assert edited["created_at"] == made["created_at"]

    clock.task_file("-- name: nightly\nSELECT 1 AS one;\n")
    assert clock.http.get("/schedules/nightly").status == 404

    clock.task_file(TAGGED.format(cron="0 7 * * *", more=""))
    clock.task_file(None)
    assert clock.http.get("/schedules/nightly").status == 404


def test_an_instance_that_does_not_load_the_file_leaves_the_tags_schedule_alone(clock: Clock) -> None:
    clock.task_file(TAGGED.format(cron="0 7 * * *", more=""))
    clock.site.instance.directories[0].joinpath("nightly.sql").unlink()
    clock.site.instance.reload()

    other = clock.site.instance.scheduler()  # of a process that has never loaded it
    other.step(0)

    assert clock.see("nightly")["cron"] == "0 7 * * *"
    # Nobody here makes it again: what is left over can be deleted.
    assert clock.http.delete("/schedules/nightly").status == 200


def test_a_tags_schedule_is_changed_in_its_file_only(clock: Clock) -> None:
    clock.task_file(TAGGED.format(cron="0 7 * * *", more=""))

    for refused in (
        clock.http.delete("/schedules/nightly"),
        clock.post("/schedules", schedule_id="nightly", task="nightly", interval=5),
    ):
        assert (refused.status, refused.error["code"]) == (409, "schedule_is_tagged")
        assert "is made by the cron tag of the task of its name" in refused.message
    assert clock.post("/schedules/nightly/run").data["task"] == "nightly"
    clock.task_file(None)


def test_a_tag_takes_no_schedule_away_that_was_made_over_http(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    clock.task_file("-- name: nightly\nSELECT 1 AS one;\n")
    clock.make("nightly", task="nightly", args=[])

    with caplog.at_level(logging.WARNING):
        clock.task_file(TAGGED.format(cron="0 7 * * *", more=""))

    assert clock.see("nightly")["source"] == "api"
    assert "task nightly: its cron tag is not obeyed: there is a schedule of this name" in caplog.text
    of = clock.site.instance
    assert disobeyed(of.store, of.tasks()) == [caplog.records[-1].getMessage()]
    clock.task_file(None)
    assert clock.see("nightly")["source"] == "api"


# -- documentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", sorted({*ScheduleBody().fields, *SchedulePart().fields}))
def test_every_field_of_a_schedule_is_documented(field: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    assert re.search(rf"^\| [^|]*`{field}`", page + DOCS, re.MULTILINE)

"""Schedules over HTTP: what is asked, and what is told."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobber.api.schedule_schemas import ScheduleBody, SchedulePart
from jobber.scheduling.planning import SECOND
from tests.api.clock import Clock
from tests.api.test_openapi import DOCS

HOUR = 3600 * SECOND


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
    for path, sent in (("/schedules", body), ("/schedules/keyed/run", None)):
        clock.make("keyed") if path.endswith("run") else None
        first, again = (clock.http.post(path, sent, headers={"Idempotency-Key": path}) for _ in range(2))

        assert first.data == again.data
        assert (first.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    conflict = clock.http.post("/schedules", body | {"interval": 61}, headers={"Idempotency-Key": "/schedules"})
    assert conflict.error["code"] == "idempotency_conflict"
    assert len(clock.http.get("/schedules").data) == 2
    assert len(clock.see("keyed")["fires"]) == 1


# -- documentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", sorted({*ScheduleBody().fields, *SchedulePart().fields}))
def test_every_field_of_a_schedule_is_documented(field: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    assert re.search(rf"^\| [^|]*`{field}`", page + DOCS, re.MULTILINE)

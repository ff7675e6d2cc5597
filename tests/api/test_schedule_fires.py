"""What fires schedules, and the schedules of cron tags: one instance, with the clock moved by SQL."""

from __future__ import annotations

import logging
from functools import partial
from threading import Thread

import pytest
from sqlalchemy import text

from jobber.answers import rfc3339
from jobber.maintenance import Maintenance
from jobber.scheduling import disobeyed, firing
from jobber.scheduling.planning import SECOND
from tests.api.clock import Clock
from tests.servers import wait_until

HOUR = 3600 * SECOND
TAGGED = "-- name: nightly\n-- queue: q\n-- cron: {cron}\n{more}SELECT 1 AS one;\n"


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
    monkeypatch.setattr(clock.store.schedules, "due", lambda *names, **but: looks.append("look") or look(*names, **but))
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


def test_one_schedule_that_stumbles_keeps_no_other_from_firing(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if so many were due that one look does not show all of them.
    monkeypatch.setattr(clock.store.schedules, "due", partial(clock.store.schedules.due, limit=1))
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


def test_a_tags_schedule_that_another_instance_removed_is_made_again_by_who_has_its_file(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted over HTTP where the file is not loaded, then by a reload that does not find the file any more."""
    clock.task_file(TAGGED.format(cron="0 7 * * *", more=""))
    other = clock.another()
    other.step(None)
    clock.site.instance.directories[0].joinpath("nightly.sql").unlink()
    clock.site.instance.reload()

    assert clock.http.delete("/schedules/nightly").status == 200
    other.step(None)
    assert clock.http.get("/schedules/nightly").status == 404  # it does not look all the time
    monkeypatch.setattr(firing, "_AGAIN", 0.0)
    other.step(None)
    assert (clock.see("nightly")["source"], clock.see("nightly")["cron"]) == ("tag", "0 7 * * *")

    clock.fire()
    assert clock.http.get("/schedules/nightly").status == 404
    other.step(None)
    assert clock.see("nightly")["cron"] == "0 7 * * *"
    clock.fire()  # who does not have the file leaves it alone from now on
    assert clock.see("nightly")["cron"] == "0 7 * * *"


def test_instances_with_two_versions_of_a_file_do_not_change_a_schedule_in_turns(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.task_file(TAGGED.format(cron="0 7 * * *", more=""))
    other = clock.another()
    other.step(None)
    monkeypatch.setattr(firing, "_AGAIN", 0.0)

    clock.task_file(TAGGED.format(cron="0 8 * * *", more=""))
    other.step(None)

    assert clock.see("nightly")["cron"] == "0 8 * * *"
    clock.task_file(None)


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

"""Lists, bulk, pauses, schedules and figures through the Python client, against a real instance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from jobber.client import Client, JobStatus, Tally
from jobber.errors import (
    IdempotencyConflict,
    InvalidRequest,
    JobIsLive,
    JobIsStarted,
    ScheduleExists,
    UnknownDatabase,
    UnknownJob,
    UnknownSchedule,
    UnknownTask,
)
from tests.api.site import Site
from tests.operators_site import real_server

BETWEEN = {"first": 1, "last": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    with real_server(tmp_path_factory.mktemp("client")) as server:
        yield server


@pytest.fixture
def site(server: tuple[Site, str]) -> Site:
    return server[0]


@pytest.fixture
def client(server: tuple[Site, str]) -> Iterator[Client]:
    with Client(server[1], timeout=30) as client:
        yield client


def test_jobs_are_listed_by_what_they_are_page_by_page(client: Client) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    for n in range(5):
        client.submit("between", BETWEEN, job_id=f"list-{n}", queue="listed", tags={"customer": f"c{n % 2}"})
    assert [job.job_id for job in client.jobs(queue="listed")] == [f"list-{n}" for n in (4, 3, 2, 1, 0)]
    assert [job.job_id for job in client.jobs(queue="listed", limit=2)] == ["list-4", "list-3"]
    assert [job.job_id for job in client.jobs(tags={"customer": "c1"}, state=["PENDING", "RETRY"])] == [
        "list-3",
        "list-1",
    ]
    assert len(list(client.jobs(queue="listed", since=before, task="between"))) == 5
    assert list(client.jobs(queue="listed", until=before)) == []
    with pytest.raises(InvalidRequest, match="no state 'GONE'"):
        list(client.jobs(state="GONE"))


def test_many_jobs_are_submitted_with_an_answer_for_each(client: Client) -> None:
    good, unknown = client.submit_many([{"task": "between", "args": BETWEEN, "queue": "bulk"}, {"task": "betwen"}])
    assert isinstance(good, JobStatus)
    assert good.state == "PENDING"
    assert isinstance(unknown, UnknownTask)
    assert unknown.details["nearest"] == "between"


def test_jobs_are_cancelled_and_run_again_by_id_and_by_condition(client: Client) -> None:
    ids = [client.submit("between", BETWEEN, queue="many").job_id for _ in range(3)]
    assert counted(client.cancel_where(queue="many", dry_run=True)) == (3, 0, {})
    first, missing = client.cancel_many([ids[0], "nobody"])
    assert isinstance(first, JobStatus)
    assert first.state == "CANCELLED"
    assert isinstance(missing, UnknownJob)
    assert counted(client.cancel_where(queue="many", state="PENDING")) == (2, 2, {})
    again, live = client.retry_many([ids[0], good_id(client)])
    assert isinstance(again, JobStatus)
    assert again.state == "PENDING"
    assert isinstance(live, JobIsLive)
    assert counted(client.retry_where(queue="many", state="CANCELLED")) == (2, 2, {})
    with pytest.raises(JobIsLive):
        client.retry(ids[1])


@pytest.mark.parametrize("blank", [{"tags": {}}, {"state": []}, {"task": ""}])
def test_a_blank_condition_is_refused_and_not_left_out(client: Client, blank: dict[str, Any]) -> None:
    job_id = client.submit("between", BETWEEN, queue="kept").job_id
    for change in (client.cancel_where, client.retry_where):
        with pytest.raises(InvalidRequest, match=f"filter.{next(iter(blank))}"):
            change(queue="kept", **blank)
    assert client.job(job_id).state == "PENDING"


def counted(tally: Tally) -> tuple[int, int, dict[str, int]]:
    return tally.matched, tally.done, dict(tally.refused)


def test_jobs_that_a_retry_by_condition_refuses_are_named_with_their_errors(client: Client, site: Site) -> None:
    ids = [client.submit("between", BETWEEN, queue="gone").job_id for _ in range(2)]
    client.cancel_where(queue="gone")
    forget_task(site, ids[0])
    tally = client.retry_where(queue="gone")
    assert counted(tally) == (2, 1, {"unknown_task": 1})
    assert [(job_id, type(error)) for job_id, error in tally.errors.items()] == [(ids[0], UnknownTask)]


def test_what_takes_the_server_several_parts_is_one_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobber.changing.PART", 2)
    monkeypatch.setattr("jobber.changing.PATIENCE", 0.0)
    for _ in range(5):
        client.submit("between", BETWEEN, queue="parts")
    assert counted(client.cancel_where(queue="parts")) == (5, 5, {})


def forget_task(site: Site, job_id: str) -> None:
    """Make a finished job one of a task that is not loaded any more."""
    change = text("UPDATE jobber_finished_jobs SET task = 'gone' WHERE job_id = :id")
    site.instance.store._database.write(lambda connection: connection.execute(change, {"id": job_id}))


def good_id(client: Client) -> str:
    return client.submit("between", BETWEEN, queue="many-more").job_id


def test_a_pending_job_is_paused_with_a_reason_and_resumed(client: Client, site: Site) -> None:
    job_id = client.submit("between", BETWEEN, queue="q").job_id
    assert client.pause_job(job_id, "checking").paused
    holds = client.job(job_id).waiting_for or ()
    assert [hold.text for hold in holds if hold.gate == "paused"] == ["the job is paused: checking"]
    assert not client.resume_job(job_id).paused
    site.claim()
    with pytest.raises(JobIsStarted) as raised:
        client.pause_job(job_id)
    assert raised.value.job.state == "STARTED"


def test_a_queue_and_a_database_are_paused_and_resumed(client: Client) -> None:
    assert client.pause_queue("listed", "migration")["paused"] is True
    (listed,) = (queue for queue in client.queues() if queue["queue"] == "listed")
    assert (listed["paused"], listed["reason"]) == (True, "migration")
    assert client.resume_queue("listed")["paused"] is False
    assert client.pause_database("main")["paused"] is True
    assert [database["paused"] for database in client.databases()] == [True]
    assert client.resume_database("main")["paused"] is False
    with pytest.raises(UnknownDatabase):
        client.pause_database("mian")


def test_a_key_of_idempotency_makes_one_job_of_two_calls(client: Client) -> None:
    first = client.submit("between", BETWEEN, queue="once", idempotency_key="k-1")
    assert client.submit("between", BETWEEN, queue="once", idempotency_key="k-1").job_id == first.job_id
    assert len(list(client.jobs(queue="once"))) == 1
    with pytest.raises(IdempotencyConflict):
        client.submit("between", {"first": 2}, queue="once", idempotency_key="k-1")


def test_a_result_that_is_young_enough_is_reused(client: Client, site: Site) -> None:
    run = client.submit("entries_of", ["V"], job_id="fresh", queue="reports")
    site.work()
    assert client.job(run.job_id).succeeded
    again = client.submit("entries_of", ["V"], job_id="again", queue="reports", max_age=600)
    assert (again.state, again.reused, again.reused_job_id, again.count) == ("SUCCESS", True, "fresh", 1)
    assert again.result_age_s is not None
    assert 0 <= again.result_age_s < 600
    assert list(client.results("again")) == list(client.results("fresh"))


def test_a_job_tells_what_happened_to_it_and_where_its_result_comes_from(client: Client, site: Site) -> None:
    client.submit("entries_of", ["U"], job_id="told", queue="reports")
    site.work()
    assert [event["event"] for event in client.events("told")][::2] == ["submitted", "success"]
    assert client.events("told", level="error") == []
    provenance = client.provenance("told")
    assert (provenance["db"], provenance["args"], provenance["worker"]) == ("main", ["U"], "w1")


def test_a_job_waits_for_another(client: Client) -> None:
    parent = client.submit("between", BETWEEN, queue="parents").job_id
    child = client.submit("between", BETWEEN, queue="parents", depends_on=[parent], priority="high")
    assert (child.depends_on, child.depends_policy, child.priority) == ((parent,), "success", 8)
    assert [hold.gate for hold in client.job(child.job_id).waiting_for or () if hold.name == parent] == ["parent"]


def test_schedules_are_made_listed_paused_run_and_deleted(client: Client) -> None:
    made = client.create_schedule("between", BETWEEN, schedule_id="night", cron="30 2 * * *", timezone="UTC")
    assert len(made["next_runs"]) == 5
    with pytest.raises(ScheduleExists):
        client.create_schedule("between", schedule_id="night", args=BETWEEN, interval=60)
    assert [schedule["schedule_id"] for schedule in client.schedules()] == ["night"]
    assert client.pause_schedule("night", "holidays")["reason"] == "holidays"
    assert client.resume_schedule("night")["paused"] is False
    job = client.run_schedule("night")
    assert (job.schedule_id, job.job_id.startswith("night:")) == ("night", True)
    assert client.delete_schedule("night")["schedule_id"] == "night"
    with pytest.raises(UnknownSchedule):
        client.schedule("night")


def test_workers_and_figures_are_told(client: Client) -> None:
    assert [worker["name"] for worker in client.workers()] == ["w1"]
    stats = client.stats(hours=1)
    assert stats["states"]["SUCCESS"] >= 1
    assert "entries_of" in stats["tasks"]

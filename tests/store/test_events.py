"""The history of a run: what its row and its attempts tell, and what is written down besides."""

from __future__ import annotations

from sqlalchemy import event as listening

from jobber.store.events import Level, LogLine
from tests.store.conftest import Bench, end, new_group


def told(bench: Bench, job_id: str) -> list[tuple[str, int, str]]:
    """Return event, attempt and level of all that is told of a job."""
    events = bench.store.events.of(bench.store.get(job_id))
    assert [event.at for event in events] == sorted(event.at for event in events)
    return [(event.event, event.attempt, event.level.name.lower()) for event in events]


def line(job: object, message: str, *, level: Level = Level.INFO, age: float = 0) -> LogLine:
    run, attempt = job.run, job.attempt  # type: ignore[attr-defined]
    return LogLine(run, attempt, "w1", level, message, age)


def test_every_transition_attempt_and_error_is_told_in_order(bench: Bench) -> None:
    store = bench.store
    end(bench, "requeue", bench.started("a", retries=2))
    end(bench, "retry at once", bench.claim().jobs[0])
    end(bench, "reroute", bench.claim().jobs[0])
    end(bench, "fail", bench.claim().jobs[0])

    events = store.events.of(store.get("a"))

    assert told(bench, "a") == [
        ("submitted", 0, "info"),
        ("started", 1, "info"),
        ("requeued", 1, "info"),
        ("started", 2, "info"),
        ("retry", 2, "warning"),
        ("started", 3, "info"),
        ("rerouted", 3, "warning"),
        ("started", 4, "info"),
        ("failure", 4, "error"),
    ]
    assert [event.message for event in events][-4:] == [
        "on database db0",
        "c: no",
        "on database db1",
        "query_failed: no",
    ]
    assert {event.worker for event in events} == {"", "w1"}


def test_a_job_that_succeeds_writes_nothing_for_its_history(bench: Bench) -> None:
    statements: list[str] = []
    listening.listen(bench.store._database._pool, "before_cursor_execute", lambda *a: statements.append(a[2]))

    end(bench, "succeed", bench.started("a"))

    assert statements
    assert not [text for text in statements if "jobber_events" in text or "jobber_attempts" in text]
    assert told(bench, "a") == [("submitted", 0, "info"), ("started", 1, "info"), ("success", 1, "info")]


def test_what_a_worker_logged_stands_between_the_start_and_the_end_of_its_attempt(bench: Bench) -> None:
    """Whatever the clocks of the two say."""
    for how in ("succeed", "retry", "cancelled", "requeue"):
        job = bench.started(how)
        bench.store.events.log([line(job, "early", age=3600), line(job, "two\x00", level=Level.WARNING)])
        end(bench, how, job)

        events = bench.store.events.of(bench.store.get(how))

        assert [event.event for event in events][:4] == ["submitted", "started", "log", "log"]
        assert len(events) == 5
        assert [(event.message, event.level, event.worker) for event in events[2:4]] == [
            ("early", Level.INFO, "w1"),
            ("two\ufffd", Level.WARNING, "w1"),
        ]
        if how in ("retry", "requeue"):
            bench.store.cancel(how)


def test_pauses_and_requests_to_cancel_are_told(bench: Bench) -> None:
    bench.submit("a")
    bench.store.pauses.pause("a", "the source is being moved")
    bench.store.pauses.resume("a")
    (job,) = bench.claim().jobs
    bench.store.cancel("a")
    end(bench, "cancelled", job)
    bench.store.submit_group(new_group("g", "m1"))
    (member,) = bench.claim().jobs
    bench.store.cancel_group("g")

    names = [name for name, *_ in told(bench, "a")]
    assert names == ["submitted", "paused", "resumed", "started", "cancel_requested", "cancelled"]
    assert bench.store.events.of(bench.store.get("a"))[1].message == "the source is being moved"
    assert [name for name, *_ in told(bench, member.job_id)] == ["submitted", "started", "cancel_requested"]


def test_what_became_of_a_job_that_nobody_ran_is_told(bench: Bench) -> None:
    bench.submit("parent", priority=9)
    bench.submit("child", depends_on=("parent",))
    end(bench, "fail", bench.claim().jobs[0])

    submitted, failed = bench.store.events.of(bench.store.get("child"))

    assert submitted.message == "to queue q, database db0, after parent"
    assert (failed.event, failed.attempt, failed.level) == ("failure", 0, Level.ERROR)
    assert failed.message.startswith("parent_failed: ")


def test_a_result_whose_time_is_over_is_told_to_have_expired(bench: Bench) -> None:
    end(bench, "succeed", bench.started("a", ttl=3600))
    assert ("expired", 0, "info") not in told(bench, "a")
    bench.store._database.write(lambda c: c.exec_driver_sql("UPDATE jobber_finished_jobs SET expires_at = finished_at"))

    assert told(bench, "a")[-1] == ("expired", 0, "info")


def test_each_run_of_an_id_has_a_history_of_its_own(bench: Bench) -> None:
    first = bench.started("a")
    bench.store.events.log([line(first, "of the first")])
    end(bench, "fail", first)
    second = bench.started("a")

    assert bench.store.events.runs("a") == [second.run, first.run]
    assert told(bench, "a") == [("submitted", 0, "info"), ("started", 1, "info")]
    events = bench.store.events.of(bench.store.run(first.run))
    assert [event.event for event in events] == ["submitted", "started", "log", "failure"]


def test_what_is_written_down_of_a_run_goes_with_it(bench: Bench) -> None:
    job = bench.started("a")
    bench.store.events.log([line(job, "text")])
    end(bench, "succeed", job)
    bench.store.events.add(job.run, "webhook", "given up", Level.ERROR)
    assert told(bench, "a")[-1] == ("webhook", 0, "error")

    bench.store.purge("a")
    bench.store.events.add(job.run, "webhook", "too late", Level.ERROR)
    live = bench.started("b")
    bench.store.events.log([line(job, "too late"), line(live, "in time")])
    assert [event.message for event in bench.store.events.of(live)][-1] == "in time"
    end(bench, "fail", live)
    bench.store.purge("b")

    count = bench.store._database.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM jobber_events").scalar_one())
    assert count == 0


def test_the_sql_of_a_version_is_kept_while_somebody_has_it_loaded(bench: Bench) -> None:
    versions = bench.store.versions
    versions.note({"v1": "SELECT 1", "v2": "SELECT 'ü'"}, history=0)
    versions.note({"v1": "SELECT 1"}, history=0)
    assert (versions.sql("v1"), versions.sql("v2"), versions.sql("v3")) == ("SELECT 1", "SELECT 'ü'", None)
    bench.store._database.write(
        lambda c: c.exec_driver_sql("UPDATE jobber_versions SET seen_at = seen_at - 129600000000")
    )

    versions.note({"v1": "SELECT 1"}, history=86_400)
    assert (versions.sql("v1"), versions.sql("v2")) == ("SELECT 1", "SELECT 'ü'")
    versions.note({"v1": "SELECT 1"}, history=3600)

    assert (versions.sql("v1"), versions.sql("v2")) == ("SELECT 1", None)

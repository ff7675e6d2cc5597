"""GET /stats."""

from __future__ import annotations

import pytest

from tests.api.http import Http
from tests.api.site import Site


def test_the_statistics_tell_what_has_become_of_the_jobs_of_the_last_hours(site: Site) -> None:
    http = site.http
    jobs = [{"task": "entries_of", "args": args} for args in (["U"], ["V"], [1, 2])]
    http.post("/jobs", {"jobs": jobs})
    for _ in jobs:
        site.work()
    http.post("/jobs", {"jobs": [{"task": "between", "queue": "q", "args": {"first": 1}, "job_id": "waits"}]})
    figures = http.get("/stats?hours=1").data
    assert {state: count for state, count in figures["states"].items() if count} == {
        "PENDING": 1,
        "SUCCESS": 2,
        "FAILURE": 1,
    }
    assert (figures["complete"], figures["sample"], figures["tasks"].keys()) == (True, 1, {"entries_of"})
    for tally in (figures["tasks"]["entries_of"], figures["queues"]["reports"], figures["databases"]["main"]):
        assert (tally["count"], tally["failed"], tally["rows"]) == (3, 1, 3)
        assert tally["failures"] == {"bad_arguments": 1}
        assert 0 <= tally["run_ms"]["p50"] <= tally["run_ms"]["p99"]
        assert tally["queued_ms"].keys() == {"p50", "p95", "p99"}
    assert figures["interval_s"] == 60
    assert 60 <= len(figures["series"]) <= 62
    assert [sum(point[name] for point in figures["series"]) for name in ("finished", "failed", "rows")] == [3, 1, 3]
    assert figures["series"][0]["at"] <= figures["since"] < figures["series"][-1]["at"] <= figures["until"]
    # Who asks again within seconds gets the same, and other hours others.
    http.delete("/jobs/waits")
    assert http.get("/stats?hours=1").data == figures
    assert http.get("/stats").data["states"]["CANCELLED"] == 1


def test_hours_that_hardly_differ_are_one_window(site: Site) -> None:
    first = site.http.get("/stats?hours=1").data
    assert [site.http.get(f"/stats?hours={hours}").data for hours in ("1.0001", "0.999")] == [first, first]


@pytest.mark.parametrize("hours", ["0", "-1", "745", "nan", "many"])
def test_hours_lie_within_a_month(http: Http, hours: str) -> None:
    answer = http.get(f"/stats?hours={hours}")
    assert (answer.status, answer.error["field"]) == (400, "hours")
    assert "seconds" not in answer.envelope["message"]

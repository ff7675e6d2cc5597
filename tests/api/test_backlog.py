"""Backlog caps over HTTP: 429 with ``Retry-After``, for jobs and groups as a whole and for items of a bulk."""

from __future__ import annotations

import pytest

from jobber.store import Gate, GateKind, Limits
from tests.api.site import Site


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_a_full_backlog_is_429_with_when_to_try_again(site: Site) -> None:
    site.instance.store.announce({Gate(GateKind.QUEUE, "reports"): Limits(pending=2)}, {})
    http, path, job = site.http, "/tasks/entries_of/jobs", {"task": "entries_of", "args": ["U"]}
    http.post(path, {"job_id": "a", "args": ["U"]})
    for path_, body in ((path, {}), ("/groups", {"jobs": [job]})):
        assert http.post("/groups", {"jobs": [job, job]}).status == 429
        site.http.post(path, {"job_id": "b", "args": ["U"]})
        refused = http.post(path_, body)
        assert (refused.status, refused.error["code"], refused.error["queue"]) == (429, "backlog_full", "reports")
        assert (refused.headers["Retry-After"], refused.error["retry_after"]) == ("5", 5)
        http.delete("/jobs/b")
    accepted, refused_item = http.post("/jobs", {"jobs": [job, job]}).data
    assert (accepted["status"], refused_item["error"]["code"]) == ("success", "backlog_full")
    assert refused_item["error"]["retry_after"] == 5
    http.post(path, {"queue": "q", "args": ["U"]})
    site.work()
    assert http.post(path, {}).status == 200

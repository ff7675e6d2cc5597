"""GET /jobs: lists of live and finished runs, filtered and page by page."""

from __future__ import annotations

from typing import Any

import pytest

from jobber.api.list_schemas import Cursor, cursor_of
from tests.api.http import Http
from tests.api.site import Site

JOBS = "/tasks/entries_of/jobs"


def ids(http: Http, path: str) -> list[str]:
    """Return the IDs of all pages of a list."""
    found: list[str] = []
    link = path
    while True:
        page = http.get(link)
        assert page.status == 200, page.envelope
        found += [job["job_id"] for job in page.data]
        if page.envelope["next"] is None:
            return found
        link = f"{path}{'&' if '?' in path else '?'}cursor={page.envelope['next']}"


def test_a_list_holds_every_run_newest_first_and_each_filter_finds_its_own(site: Site) -> None:
    http = site.http
    assert http.get("/jobs").envelope == {"status": "success", "data": [], "next": None}
    http.post(JOBS, {"job_id": "a", "args": ["U"], "tags": {"customer": "7", "kind": "x y"}})
    site.work()
    http.post(JOBS, {"job_id": "b", "args": ["too", "many"], "tags": {"customer": "7"}})
    site.work()
    http.post(JOBS, {"job_id": "a", "args": ["V"]})
    site.claim()
    http.post("/tasks/between/jobs", {"job_id": "c", "queue": "q", "args": {"first": 1}, "tags": {"customer": "8"}})
    members = [{"task": "entries_of", "job_id": f"m{n}", "args": ["U"]} for n in range(3)]
    callback = {"task": "outcome", "job_id": "done"}
    http.post("/groups", {"group_id": "g", "jobs": members, "callback": callback})

    everything = ["done", "m2", "m1", "m0", "c", "a", "b", "a"]
    assert ids(http, "/jobs") == everything
    assert ids(http, "/jobs?limit=1") == everything
    assert ids(http, "/jobs?limit=3") == everything
    for query, expected in {
        "state=PENDING": ["done", "m2", "m1", "m0", "c"],
        "state=STARTED,failure": ["a", "b"],
        "state=SUCCESS": ["a"],
        "task=between": ["c"],
        "queue=q": ["c"],
        "queue=q&task=entries_of": [],
        "group=g": ["done", "m2", "m1", "m0"],
        "tag.customer=7": ["b", "a"],
        "tag.customer=7&tag.kind=x%20y": ["a"],
        "tag.customer=7&state=FAILURE": ["b"],
        "tag.customer=": [],
        "since=2100-01-01": [],
        "until=2100-01-01&task=between": ["c"],
        "since=2020-01-01T00:00:00Z&group=g&limit=2": ["done", "m2", "m1", "m0"],
    }.items():
        assert ids(http, f"/jobs?{query}") == expected, query

    newest, *_ = http.get("/jobs?tag.kind=x%20y").data
    status = http.get("/jobs/c").data
    (listed,) = http.get("/jobs?queue=q").data
    assert newest["state"] == "SUCCESS"
    # An item is the job's answer, and the number of its run.
    same = ("job_id", "state", "args", "tags", "created_at", "table", "group_id", "priority")
    assert {name: listed[name] for name in same} == {name: status[name] for name in same}
    assert isinstance(listed["run"], int)
    assert len({job["run"] for job in http.get("/jobs").data}) == len(everything)


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_a_cursor_goes_on_where_it_was_whatever_is_submitted_meanwhile(site: Site) -> None:
    http = site.http
    http.post("/jobs", {"jobs": [{"task": "entries_of", "job_id": f"j{n}", "args": ["U"]} for n in range(5)]})
    first = http.get("/jobs?limit=2")
    http.post(JOBS, {"job_id": "late", "args": ["U"]})
    http.delete("/jobs/j2")
    second = http.get(f"/jobs?limit=2&cursor={first.envelope['next']}")
    third = http.get(f"/jobs?limit=2&cursor={second.envelope['next']}")
    pages = [[job["job_id"] for job in page.data] for page in (first, second, third)]
    assert pages == [["j4", "j3"], ["j2", "j1"], ["j0"]]
    assert third.envelope["next"] is None


@pytest.mark.parametrize(
    ("query", "field", "problem"),
    [
        ("cursor=nonsense", "cursor", "is no cursor"),
        ("cursor=AAAAAAAAAAAAAAAA", "cursor", "is no cursor"),
        (f"cursor={(cursor_of(5) or '')[:-1]}", "cursor", "is no cursor"),
        (f"cursor={cursor_of(2**64 - 1)}", "cursor", "is no cursor"),  # more than a database can compare with
        ("limit=0", "limit", "between 1 and 1000"),
        ("limit=1001", "limit", "between 1 and 1000"),
        ("state=DONE", "state", "there is no state 'DONE'"),
        ("state=PENDING,", "state", "there is no state ''"),
        ("since=yesterday", "since", "must be a time"),
        ("queue=a%20b", "queue", "may hold"),
        ("tag.a%20b=1", "tag.NAME", "is no name for a tag"),
        ("tags=x", "tags", "there is no such option; did you mean tag.NAME?"),
        ("tag=a:b", "tag", "there is no such option; did you mean tag.NAME?"),
        ("tags.a=b", "tags.a", "there is no such option; did you mean tag.a?"),
        ("tags[a]=b", "tags[a]", "there is no such option; did you mean tag.a?"),
        ("tag[customer]=b", "tag[customer]", "there is no such option; did you mean tag.customer?"),
        ("offset=5", "offset", "there is no such option"),
    ],
)
def test_an_option_that_is_wrong_is_named(http: Http, query: str, field: str, problem: str) -> None:
    answer = http.get(f"/jobs?{query}")
    assert (answer.status, answer.error["field"]) == (400, field)
    assert problem in answer.envelope["message"]


def test_cursors_tell_runs_apart_and_come_back() -> None:
    made: dict[Any, int] = {cursor_of(run): run for run in (1, 255, 256, 1_795_000_000_000, 2**62)}
    assert len(made) == 5
    assert {text: Cursor().deserialize(text) for text in made} == made
    assert cursor_of(None) is None

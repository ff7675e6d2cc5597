"""GET /tasks: what is offered, and what stays inside."""

from __future__ import annotations

import pytest

from tests.api.http import Http


def test_tasks_are_listed_by_name(http: Http) -> None:
    data = http.get("/tasks").data
    assert [task["name"] for task in data] == ["get_profit_entries_by_date", "named", "notify", "slow"]
    assert data[0]["description"] == "Entries of a user between two dates."
    assert (data[0]["queue"], data[0]["db"], data[0]["results"]) == ("sqljob_queue", ["main"], ["reports"])
    assert data[0]["placeholders"] == {"count": 3, "names": []}


def test_a_task_shows_its_tags_and_the_defaults_of_its_jobs(http: Http) -> None:
    tagged = http.get("/tasks/named").data
    assert (tagged["priority"], tagged["retries"], tagged["ttl"], tagged["timeout"]) == (8, 2, 60, 30)
    assert (tagged["cron"], tagged["index"], tagged["placeholders"]["names"]) == ("0 7 * * *", ["a", "b"], ["since"])
    assert tagged["params"] == [
        {"name": "since", "type": "date", "required": True, "default": None},
        {"name": "most", "type": "integer", "required": False, "default": 10},
    ]
    plain = http.get("/tasks/slow").data
    assert (plain["priority"], plain["retries"], plain["ttl"], plain["timeout"]) == (5, 0, 86_400, 0)
    assert (plain["queue"], plain["cron"]) == ("default", None)


@pytest.mark.parametrize("query", ["", "?sql=0", "?sql=false", "?sql="])
def test_the_sql_stays_inside_unless_it_is_asked_for(http: Http, query: str) -> None:
    for path in ("/tasks", "/tasks/slow"):
        assert "SELECT" not in http.get(path + query).text


def test_the_sql_is_shown_where_it_is_asked_for(http: Http) -> None:
    assert http.get("/tasks/slow?sql=1").data["sql"] == "SELECT 1"
    assert [task["sql"] for task in http.get("/tasks?sql=true").data][3] == "SELECT 1"


def test_the_folder_of_a_task_file_stays_inside(http: Http) -> None:
    answer = http.get("/tasks/slow")
    assert (answer.data["file"], answer.data["line"]) == ("reports.sql", 3)
    assert "/srv" not in answer.text


def test_an_unknown_task_is_404(http: Http) -> None:
    answer = http.get("/tasks/no%20such")
    assert (answer.status, answer.error["code"]) == (404, "unknown_task")


@pytest.mark.parametrize(("method", "path"), [("GET", "/tasks/{}"), ("POST", "/tasks/{}/jobs")])
def test_an_unknown_task_comes_with_the_nearest_known_one(http: Http, method: str, path: str) -> None:
    answer = http.send(method, path.format("get_profit_entries"))
    assert (answer.status, answer.error["code"]) == (404, "unknown_task")
    assert answer.error["nearest"] == "get_profit_entries_by_date"
    assert answer.error["task"] == "get_profit_entries"
    assert "did you mean get_profit_entries_by_date?" in answer.message
    assert "nearest" not in http.send(method, path.format("zzz")).error
    assert len(http.send(method, path.format("z" * 5000)).message) < 200

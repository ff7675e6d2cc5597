"""GET /jobs/{id}/results: rows as JSON, page by page, without losing a digit."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobber.api import jsontext
from jobber.api.rows import objects
from jobber.columns import Column, Kind, Row
from jobber.errors import ResultsUnavailable
from tests.api.fake import COLUMNS, FakeService
from tests.api.http import Http

SUBMIT = "/tasks/slow/jobs"


def _finished(http: Http, service: FakeService, rows: list[Row], columns: tuple[Column, ...] = COLUMNS) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    service.finish("a", rows, columns)


def test_rows_are_objects_with_exact_values(http: Http, service: FakeService) -> None:
    row: Row = (2**63 - 1, "12345678901234567890.120000000000", 0.1, True, "2026-01-31", '{"a": [1.10]}', "ä\n")
    _finished(http, service, [row, (None,) * 7])
    answer = http.get("/jobs/a/results")
    assert answer.data[0] == {
        "id": 2**63 - 1,
        "total": Decimal("12345678901234567890.120000000000"),
        "ratio": Decimal("0.1"),
        "paid": True,
        "day": "2026-01-31",
        "doc": {"a": [Decimal("1.10")]},
        "note": "ä\n",
    }
    assert '"total":12345678901234567890.120000000000,' in answer.text
    assert set(answer.data[1].values()) == {None}
    assert list(answer.data[0]) == [column.name for column in COLUMNS]
    assert answer.envelope["columns"][1] == {"name": "total", "type": "NUMERIC(30,12)"}
    assert (answer.envelope["count"], answer.envelope["next"]) == (2, None)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (Kind.NUMERIC, "NaN", "NaN"),
        (Kind.NUMERIC, "-Infinity", "-Infinity"),
        (Kind.FLOAT, math.nan, "NaN"),
        (Kind.FLOAT, math.inf, "Infinity"),
        (Kind.FLOAT, -math.inf, "-Infinity"),
        (Kind.FLOAT, 1e300, Decimal("1e300")),
        (Kind.JSON, "null", None),
        (Kind.JSON, '"text"', "text"),
        (Kind.JSON, "no json", "no json"),
        (Kind.JSON, "NaN", "NaN"),
        (Kind.JSON, "[" * 5000, "[" * 5000),
        (Kind.TIMESTAMP, "2026-01-01 10:00:00.5", "2026-01-01 10:00:00.5"),
        (Kind.TIMESTAMP, "infinity", "infinity"),
        (Kind.BINARY, "\\x00ff", "\\x00ff"),
        (Kind.BOOLEAN, False, False),
    ],
)
def test_what_json_has_no_number_for_is_text(
    http: Http, service: FakeService, kind: Kind, value: Any, shown: object
) -> None:
    _finished(http, service, [(value,)], (Column("c", kind),))
    assert http.get("/jobs/a/results").data == [{"c": shown}]


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_every_number_survives(number: Decimal) -> None:
    (item,) = objects([Column("n", Kind.NUMERIC)], [(f"{number:f}" if abs(number.adjusted()) < 100 else str(number),)])
    assert jsontext.loads(jsontext.dumps(item).encode())["n"] == number


def test_pages_lead_from_one_to_the_next(http: Http, service: FakeService) -> None:
    column = (Column("n", Kind.INTEGER),)
    _finished(http, service, [(n,) for n in range(5)], column)
    first = http.get("/jobs/a/results?limit=2")
    assert ([row["n"] for row in first.data], first.envelope["next"], first.envelope["count"]) == ([0, 1], 2, 5)
    last = http.get("/jobs/a/results?limit=2&offset=4")
    assert ([row["n"] for row in last.data], last.envelope["next"]) == ([4], None)
    exact = http.get("/jobs/a/results?limit=5")
    assert (len(exact.data), exact.envelope["next"]) == (5, None)
    beyond = http.get("/jobs/a/results?offset=9")
    assert (beyond.data, beyond.envelope["next"]) == ([], None)
    assert first.envelope["run"] == last.envelope["run"]


def test_an_empty_result_still_has_its_columns(http: Http, service: FakeService) -> None:
    _finished(http, service, [])
    answer = http.get("/jobs/a/results")
    assert (answer.data, answer.envelope["count"], len(answer.envelope["columns"])) == ([], 0, len(COLUMNS))


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "offset=-1", "offset=9999999999999999999"])
def test_a_page_out_of_bounds_is_refused(http: Http, service: FakeService, query: str) -> None:
    _finished(http, service, [])
    answer = http.get(f"/jobs/a/results?{query}")
    assert (answer.status, answer.error["field"]) == (400, query.partition("=")[0])


def test_rows_of_a_job_that_has_none_yet_are_409_with_the_job(http: Http) -> None:
    http.post(SUBMIT, {"job_id": "a"})
    answer = http.get("/jobs/a/results")
    assert (answer.status, answer.error["code"], answer.error["job"]["state"]) == (409, "results_not_ready", "PENDING")


def test_rows_that_have_expired_are_410(http: Http, service: FakeService) -> None:
    _finished(http, service, [])
    service.tables.clear()
    answer = http.get("/jobs/a/results")
    assert (answer.status, answer.error["code"]) == (410, "results_gone")


def test_a_results_database_that_is_down_is_503(http: Http, service: FakeService) -> None:
    service.broken = ResultsUnavailable("the results database reports cannot be reached")
    answer = http.get("/jobs/a/results")
    assert (answer.status, answer.error["code"]) == (503, "results_unavailable")
    assert int(answer.headers["Retry-After"]) > 0

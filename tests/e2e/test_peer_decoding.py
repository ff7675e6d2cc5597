"""The peer's client decodes as Go does, so that its tests mean something."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.e2e.peer_client import INT, TIME, UINT32, ZERO_TIME, GoError, Pointer, decode, encode, job_req


@pytest.mark.parametrize(
    ("shape", "text", "value"),
    [
        (INT, "-9223372036854775808", -(2**63)),
        (INT, "null", 0),
        (str, "null", ""),
        ([str], "null", []),
        ([{"A": INT}], '[{"a": 1}, {}]', [{"A": 1}, {"A": 0}]),
        ({"Queue": str}, '{"queue": "a", "QUEUE": "b", "other": [1.5]}', {"Queue": "b"}),
        ({"Queue": str}, '{"queue": "a", "Queue": null}', {"Queue": "a"}),
        ({"Job": Pointer({"Task": str})}, '{"job": {"TASK": "x"}}', {"Job": {"Task": "x"}}),
        ({"Job": Pointer({"Task": str})}, "{}", {"Job": None}),
        (TIME, '"2030-01-31T18:30:00.123456789+02:00"', datetime.fromisoformat("2030-01-31T18:30:00.123456+02:00")),
        (TIME, '"0001-01-01T00:00:00Z"', ZERO_TIME),
        (Pointer(TIME), "null", None),
    ],
)
def test_what_go_reads_is_read(shape: Any, text: str, value: object) -> None:
    assert decode(text, shape) == value


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (INT, "1.0"),
        (INT, "1e3"),
        (INT, '"1"'),
        (INT, "true"),
        (INT, "9223372036854775808"),
        (UINT32, "-1"),
        (str, "1"),
        (str, "{}"),
        ([INT], "{}"),
        ({"A": INT}, "[]"),
        ({"A": INT}, '{"a": "x", "A": 1}'),
        (TIME, '"2030-01-31 18:30:00"'),
        (TIME, '"2030-01-31T18:30:00"'),
        (TIME, '""'),
        (INT, "NaN"),
        (INT, ""),
    ],
)
def test_what_go_cannot_read_is_an_error(shape: Any, text: str) -> None:
    with pytest.raises(GoError):
        decode(text, shape)


def test_what_nobody_sets_is_sent_all_the_same() -> None:
    assert encode(job_req("a<b", args=["ü"])) == (
        '{"task":"a\\u003cb","job_id":"","queue":"","eta":"","retries":0,"ttl":0,"args":["ü"],"db":""}'.encode()
    )
    assert b'"args":null' in encode(job_req("a"))

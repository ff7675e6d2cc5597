"""The short way in which bodies are loaded gives what marshmallow's own way gives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import marshmallow as ma
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobber.api import list_schemas, requests, schedule_schemas
from jobber.api.requests import _Body

SCHEMAS = [
    schema()
    for room in (requests, schedule_schemas, list_schemas)
    for schema in vars(room).values()
    if isinstance(schema, type) and issubclass(schema, _Body)
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12) | st.sampled_from([2**31 - 1, 2**31, 2**70]),
    st.sampled_from(
        [Decimal("0"), Decimal("1.5"), "", "0", "a", "a b", "queue", "high", "success", "2030-01-31 18:30"]
    ),
    st.sampled_from(["https://example.com/", "ftp://x", "x" * 201, "\0"]),
    st.lists(st.sampled_from(["a", "b", "a b", 1, None]), max_size=3),
    st.dictionaries(st.sampled_from(["a", "task", "a b"]), st.sampled_from(["x", 1, None, "report"]), max_size=2),
)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: type(schema).__name__)
@settings(deadline=None)
@given(data=st.data())
def test_both_ways_agree(schema: _Body, data: st.DataObject) -> None:
    names = st.sampled_from([*schema.fields, "tasks", "ID"])
    body = data.draw(st.dictionaries(names, VALUES, max_size=4))

    def outcome(load: Any) -> Any:
        try:
            return load(schema, dict(body))
        except ma.ValidationError as error:
            return error.messages_dict

    assert outcome(type(schema).load) == outcome(ma.Schema.load)
    assert schema.load_plain({}) in (None, {})


def test_the_usual_job_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ma.Schema, "load", None)
    said = {"args": [1, Decimal("0.10")], "priority": "high", "tags": {"by": "me"}, "queue": "", "retries": 0}
    assert requests.JobBody().load(said) == {"args": [1, Decimal("0.10")], "priority": 8, "tags": {"by": "me"}}

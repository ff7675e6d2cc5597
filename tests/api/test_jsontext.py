"""What is said of a body that is no JSON: where, and what it lacks."""

from __future__ import annotations

import pytest

from jobber.api import jsontext
from jobber.errors import InvalidRequest


def refusal(body: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        jsontext.loads(body.encode())
    return caught.value


@pytest.mark.parametrize(
    ("body", "column", "missing"),
    [
        ('{"jobs": [{"args": ["a", "b"]}, {"args": []}]', 46, "}"),
        ('{"jobs": [{"args": ["a", "b"', 29, "]}]}"),
        ('{"job_id": "brackets in } a ] text \\" { [",', 44, "}"),
        ('{"job_id":', 11, "}"),
        ('{"job_id"\n', 10, "}"),
        ("[" * 100, 101, "]" * 37 + "..."),
    ],
)
def test_a_body_that_ends_too_early_is_told_what_it_lacks(body: str, column: int, missing: str) -> None:
    error = refusal(body)

    assert error.message == (
        f"the body is not valid JSON: it ends too early, at line 1, column {column}; still missing: {missing}"
    )
    assert (error.details["line"], error.details["column"]) == (1, column)


@pytest.mark.parametrize("body", ['{\n "job_id": "abc}', '{\n "job_id": "a \\"', '{\n "job_id": "a\\'])
def test_a_body_that_ends_in_a_text_is_told_where_that_begins(body: str) -> None:
    assert refusal(body).message == (
        "the body is not valid JSON: it ends too early, inside the text that begins at line 2, column 12; "
        'still missing: "}'
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"args": [1}', "Expecting ',' delimiter at line 1, column 12"),
        ('{"args": [1],\n x}', "Expecting property name enclosed in double quotes at line 2, column 2"),
        ('{"args": tru', "Expecting value at line 1, column 10"),
    ],
)
def test_a_mistake_within_a_body_is_told_with_its_place(body: str, words: str) -> None:
    assert refusal(body).message == f"the body is not valid JSON: {words}"

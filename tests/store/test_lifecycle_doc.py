"""docs/job-lifecycle.md against the code: its diagram, its tables, and the tests that they name."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from jobber.jobs import TRANSITIONS

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "job-lifecycle.md").read_text()
ALL = {(a.value, b.value) for a, following in TRANSITIONS.items() for b in following}
#: Lines of tables, but for their heads.
ROWS = [
    line
    for before, line in zip(["", *DOC.splitlines()], DOC.splitlines(), strict=False)
    if line.startswith("|") and before.startswith("|") and not line.startswith("|---")
]
#: Paragraphs outside tables that name tests.
TEXTS = [text for text in re.split(r"\n\s*\n", DOC) if not text.startswith("|") and "`test_" in text]


def defined(text: str) -> set[str]:
    """Return the tests in the files that a text names in brackets: by their paths, or alone if they are beside us."""
    words = [word.strip() for group in re.findall(r"\[([\w/., ]+)\]", text) for word in group.split(",")]
    files = [ROOT / word if "/" in word else Path(__file__).with_name(f"test_{word}.py") for word in words]
    return {name for file in files for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)}


def named(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


def test_the_diagram_draws_every_transition_and_no_other() -> None:
    assert set(re.findall(r"^ +([A-Z]+) --> ([A-Z]+):", DOC, re.MULTILINE)) == ALL


def test_who_makes_each_transition_is_told() -> None:
    told = set()
    for row in ROWS:
        if found := re.match(r"\| ([A-Z, ]+) → ([A-Z, ]+)", row):
            told |= set(product(*(re.findall("[A-Z]+", names) for names in found.groups())))
    assert told == ALL


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_every_line_names_tests_that_show_it_and_they_are_there(row: str) -> None:
    assert named(row)
    assert named(row) <= defined(row)


def test_every_test_that_is_named_elsewhere_is_there() -> None:
    assert len(ROWS) > 30
    assert TEXTS
    for text in TEXTS:
        assert named(text) <= defined(text), text

"""docs/job-lifecycle.md against the code: its diagram, and the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

from jobber.jobs import TRANSITIONS

DOC = (Path(__file__).parents[2] / "docs" / "job-lifecycle.md").read_text()


def test_the_diagram_draws_every_transition_and_no_other() -> None:
    drawn = {(a, b) for a, b in re.findall(r"^ +([A-Z]+) --> ([A-Z]+):", DOC, re.MULTILINE)}
    assert drawn == {(a.value, b.value) for a, following in TRANSITIONS.items() for b in following}


def test_every_test_that_it_names_is_there() -> None:
    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", DOC))
    assert len(named) > 20
    assert [name for name in sorted(named) if f"def {name}(" not in written] == []

"""docs/type-mapping.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from jobber.columns import RESULT_TYPES, Kind

DOC = Path(__file__).parent.parent / "docs" / "type-mapping.md"


def test_the_table_of_kinds_is_the_codes() -> None:
    table = DOC.read_text().split("<!-- kinds -->")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `([\w()]+)` \| `(\w+)` \|", table, re.MULTILINE)

    assert {kind: tuple(types) for kind, *types in rows} == {
        kind.value: tuple(RESULT_TYPES[engine][kind] for engine in ("postgresql", "mysql", "sqlite")) for kind in Kind
    }

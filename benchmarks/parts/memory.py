"""What a process that runs one job needs at most: with few rows, and with many."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.lab import Lab
from benchmarks.measuring import MEGABYTES, Figure, Kind
from benchmarks.parts.transfers import NAMES, sources
from benchmarks.transfer import in_process

FEW = 10_000
#: So much more than with few rows.
GOAL = 60
PAIRS = (("postgresql", "postgresql"), ("postgresql", "mysql"), ("mysql", "postgresql"), ("sqlite", "sqlite"))
DIGITS = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))


def query(rows: int) -> str:
    """Return a query of so many rows: each row of a tenth of them ten times."""
    return f"SELECT t.* FROM jobber_bench t CROSS JOIN ({DIGITS}) digits WHERE t.id <= {rows // 10}"


def measure(lab: Lab) -> Iterator[Figure]:
    """Measure some pairs of engines."""
    with sources(lab) as urls:
        for source, results in PAIRS:
            if not {source, results} <= urls.keys():
                continue
            peaks = {}
            for rows in (FEW, lab.scale.memory_rows):
                lab.say(f"{NAMES[source]} → {NAMES[results]}, {rows:,} rows")
                _, moved, peaks[rows] = in_process(source, results, urls, query(rows))
                if moved != min(rows, lab.scale.rows * 10):
                    raise RuntimeError(f"{moved} of {rows} rows")
            yield Figure(
                f"{lab.scale.memory_rows:,} rows, {NAMES[source]} → {NAMES[results]}",
                MEGABYTES,
                [peaks[lab.scale.memory_rows]],
                [peaks[FEW]],
                against=f"{FEW:,} rows",
                kind=Kind.MORE,
                goal=GOAL,
            )

"""What the jobs ask for, and the answers, computed here and not by a database.

Every submission carries a text of its own, the *salt*: its rows tell which run wrote them. It holds what formats trip
over: a tab, a backslash, quotes, letters beyond ASCII.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Row = tuple[int, int, str | None]

#: Rows of the table ``numbers`` in MariaDB and in the SQLite file; PostgreSQL makes its own.
MOST_ROWS = 50_000
COLUMNS = ["i", "product", "note"]
SOURCES = ("pg", "my", "lite")
RESULTS = ("pg_results", "pg_fast", "my_results", "lite_results")

TASKS = """\
-- name: count_pg
-- db: pg
SELECT i::bigint AS i, i * CAST(:k AS bigint) AS product,
    CASE WHEN i % 7 = 0 THEN NULL ELSE CAST(:salt AS text) || i END AS note
FROM generate_series(1, CAST(:n AS integer)) AS i;

-- name: count_my
-- db: my
SELECT i, i * :k AS product, CASE WHEN i % 7 = 0 THEN NULL ELSE CONCAT(:salt, i) END AS note
FROM numbers WHERE i <= :n ORDER BY i;

-- name: count_lite
-- db: lite
SELECT i, i * :k AS product, CASE WHEN i % 7 = 0 THEN NULL ELSE :salt || i END AS note
FROM numbers WHERE i <= :n ORDER BY i;

-- name: slow_pg
-- db: pg
SELECT i::bigint AS i, i * CAST(:k AS bigint) AS product,
    CASE WHEN i % 7 = 0 THEN NULL ELSE concat(:salt::text, i, pg_sleep(CAST(:pause AS double precision))) END AS note
FROM generate_series(1, CAST(:n AS integer)) AS i;

-- name: slow_my
-- db: my
SELECT i, i * :k AS product,
    CASE WHEN i % 7 = 0 THEN NULL ELSE CONCAT(:salt, i, IF(SLEEP(:pause) = 0, '', ' cut short')) END AS note
FROM numbers WHERE i <= :n ORDER BY i;

-- name: slow_lite
-- db: lite
SELECT i, i * :k AS product,
    CASE WHEN i % 7 = 0 THEN NULL
    ELSE :salt || i || substr('', 1, (SELECT count(*) FROM numbers AS m WHERE m.i % n.i < :pause * 1000)) END AS note
FROM numbers AS n WHERE i <= :n ORDER BY i;

-- name: fail_pg
-- db: pg
SELECT i, 1 / (i - CAST(:n AS integer) - 1) AS product, CAST(:salt AS text) AS note
FROM generate_series(1, CAST(:n AS integer) + CAST(:k AS integer)) AS i;

-- name: fail_my
-- db: my
SELECT i, EXP(i) AS product, :salt AS note FROM numbers WHERE i <= 710 + :n + :k ORDER BY i;

-- name: fail_lite
-- db: lite
SELECT i, CASE WHEN i > :n THEN json('{' || :k) END AS product, :salt AS note FROM numbers ORDER BY i;

-- name: group_pg
-- db: pg
SELECT CAST(:succeeded AS bigint) AS i, CAST(:failed AS bigint) * 1000000 + CAST(:cancelled AS bigint) AS product,
    CAST(:salt AS text) || CAST(:group_id AS text) || CAST(:tables AS text) AS note;
"""


@dataclass(frozen=True)
class Work:
    """One query with its arguments, all but the salt.

    Parameters:
        kind: ``count``, ``slow``, ``fail`` or ``group`` (the callback of a group).
        db: the source.
        n, k: of the query; ``n`` is the number of rows.
        pause: seconds per row of a slow one.
    """

    kind: str
    db: str
    n: int
    k: int
    pause: float = 0.0

    @property
    def task(self) -> str:
        return f"{self.kind}_{self.db}"

    def args(self, salt: str) -> dict[str, Any]:
        if self.kind == "group":
            return {"salt": salt}
        slow = {"pause": self.pause} if self.kind == "slow" else {}
        return {"n": self.n, "k": self.k, "salt": salt, **slow}

    def rows(self, salt: str) -> Iterator[Row]:
        """Yield the rows that the query has; of a group's callback only the audit knows them."""
        for i in range(1, self.n + 1):
            yield i, i * self.k, None if i % 7 == 0 else f"{salt}{i}"


def salt_of(name: str) -> str:
    """Return the salt of the submission of that name."""
    return f"{name}\t\\N 'ü✓' \"%s\" "


def pick_work(rng: random.Random, db: str, *, heavy: float) -> Work:
    """Choose what a job does.

    Parameters:
        heavy: share of the jobs with 50,000 rows.
    """
    k = rng.randrange(1, 10_000)
    chance = rng.random()
    if chance < 0.06:
        return Work("fail", db, rng.choice((0, 30, 2000)), k)
    if chance < 0.36:
        return Work("slow", db, 40, k, pause=rng.choice((0.03, 0.08, 0.15)))
    if chance < 0.36 + heavy:
        return Work("count", db, MOST_ROWS, k)
    return Work("count", db, rng.choices((0, 1, 30, 3000), (1, 2, 5, 3))[0], k)

"""What loading many task files takes, and looking for queries that are no mere reads in them.

    python benchmarks/loading.py --tasks 1000

Seconds are the processor's. Once with queries that jobber's lexer lets pass, once with queries that sqlglot
reads, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from jobber import config, tasks

#: Half a page, as reports are.
QUERY = """\
-- name: report_{number}
-- Turnover per customer and month.
-- param: since date = 2026-01-01
WITH months AS (
  SELECT customer_id, date_trunc('month', paid_at) AS month, sum(amount) AS turnover
  FROM payments JOIN orders ON orders.id = payments.order_id
  WHERE paid_at >= :since AND orders.note NOT LIKE '%delete from%'
  GROUP BY 1, 2
), ranked AS (
  SELECT months.*, rank() OVER (PARTITION BY month ORDER BY turnover DESC) AS place FROM months
)
SELECT customers.name, month, turnover, CASE WHEN turnover > 1000 THEN 'big' ELSE 'small' END AS size
FROM ranked JOIN customers ON customers.id = ranked.customer_id
WHERE place <= 100 AND customers.id IN (SELECT customer_id FROM active WHERE share > 0.1)
ORDER BY month, place{end};
"""


def main() -> None:
    """Print a line for each kind of query, in seconds of the processor."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=1000)
    number = parser.parse_args().tasks
    settings = config.load(None, {**os.environ, "JOBBER_DB__SHOP__URL": "postgresql://localhost/shop"})
    for kind, end in {"reads": "", "row locks, so sqlglot reads them": "\nFOR UPDATE OF customers"}.items():
        with tempfile.TemporaryDirectory() as folder:
            text = "\n".join(QUERY.format(number=at, end=end) for at in range(number))
            (Path(folder) / "reports.sql").write_text(text, encoding="utf-8")
            began = time.process_time()
            loaded = tasks.load([Path(folder)], settings)
            read = time.process_time()
            found = len(loaded.warnings)
            ended = time.process_time()
        print(
            f"{number} {kind}: loaded in {read - began:.2f} s, looked at in {ended - read:.2f} s, {found} warnings, "
            f"sqlglot {'needed' if 'sqlglot' in sys.modules else 'not even imported'}"
        )


if __name__ == "__main__":
    main()

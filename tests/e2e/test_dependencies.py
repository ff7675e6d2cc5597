"""A workflow with a real worker: the nightly report of the docs, as it stands there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psycopg

from tests.e2e.running import jobber
from tests.servers import Postgres
from tests.test_readme import blocks

ORCHESTRATION = Path(__file__).parent.parent.parent / "docs" / "orchestration.md"
PARENTS = ("nightly_sales", "nightly_refunds", "nightly_visits")

# The visits come slowly: the report has something to wait for.
DATA = """
CREATE TABLE sales AS SELECT 'apple' AS product, date '2026-11-22' AS day, n AS amount FROM generate_series(1, 4) n
    UNION ALL SELECT 'pear', date '2026-11-22', 7 UNION ALL SELECT 'pear', date '2026-11-21', 9;
CREATE TABLE refunds AS SELECT 'apple' AS product, date '2026-11-22' AS day, 3 AS amount;
CREATE TABLE visitors AS SELECT 'pear' AS product, date '2026-11-22' AS day FROM generate_series(1, 5);
CREATE VIEW visits AS SELECT product, day FROM visitors, LATERAL (SELECT pg_sleep(0.3)) nap WHERE product IS NOT NULL;
"""


def test_the_nightly_report_of_the_docs_runs_after_its_three_parents(tmp_path: Path, postgres: Postgres) -> None:
    section = ORCHESTRATION.read_text().split("\n## Dependencies\n")[1].split("\n## ")[0]
    (tasks,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    ((_, language, example),) = blocks(section)
    assert language == "shell"
    shop, warehouse = postgres.new_database(), postgres.new_database()
    with psycopg.connect(postgres.dsn(shop), autocommit=True) as connection:
        connection.execute(DATA)
    config = f"""
[app]
data_dir = "{tmp_path}/data"
sweep = 60
[db.shop]
url = "{postgres.url(shop)}"
[db.warehouse]
url = "{postgres.url(warehouse)}"
[results.warehouse]
url = "{postgres.url(warehouse)}"
"""
    with jobber(tmp_path, config, {"tasks.sql": tasks}) as running:
        code = example.replace("localhost:6060", f"127.0.0.1:{running.port}")
        command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
        report = running.client.job("nightly_report")
        parents = [running.client.job(job_id) for job_id in PARENTS]

    assert done.returncode == 0, done.stderr
    assert '"text":"job nightly_visits is ' in done.stdout.replace('": "', '":"')
    assert report.started_at is not None
    assert all(job.finished_at is not None and job.finished_at <= report.started_at for job in parents)
    rows = re.findall(
        r'\{"product":"(\w+)","amount":(\d+),"refunded":(\d+),"visits":(\d+)\}', done.stdout.replace(" ", "")
    )
    assert rows == [("apple", "10", "3", "0"), ("pear", "7", "0", "5")]
    for name in (shop, warehouse):
        postgres.drop_database(name)

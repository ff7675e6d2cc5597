"""The demo and its sample tasks, as users meet them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobber import config, tasks
from jobber.cancellation import Cancellation
from jobber.client import Client
from jobber.demo import show
from jobber.demo.data import MAX_ROWS, create_shop
from jobber.demo.run import REPORT, steps
from jobber.demo.server import QUERIES, write_config
from jobber.errors import ServerUnreachable
from jobber.sources import open_source
from jobber.sources.base import Query, Shape
from jobber.tasks import Task, TaskSet
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parent.parent
ROWS = 3_000

# -- the data ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    create_shop(path, ROWS)
    return path


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def digest(path: Path) -> str:
    tables = ("sellers", "products", "customers", "orders", "entries")
    return hashlib.sha256(repr([rows(path, f"SELECT * FROM {table}") for table in tables]).encode()).hexdigest()


def test_the_shop_holds_the_same_rows_wherever_it_is_made(shop: Path, tmp_path: Path) -> None:
    create_shop(tmp_path / "shop.db", ROWS)
    assert digest(tmp_path / "shop.db") == digest(shop)
    # Whoever changes the data changes data._FORMAT with this, so that a shop of an earlier version is made anew.
    assert digest(shop) == "69c0d96b2c03b3d8048d7ff9d327ff2a066e5b6a82f5a6ff4eaa906b2ff46bb3"


@pytest.mark.parametrize("wanted", [1_000, 1_001, 1_002, 2_345])
def test_the_shop_has_exactly_the_entries_that_were_asked_for(wanted: int, tmp_path: Path) -> None:
    create_shop(tmp_path / "shop.db", wanted)
    assert rows(tmp_path / "shop.db", "SELECT COUNT(*), MIN(entry_id), MAX(entry_id) FROM entries") == [
        (wanted, 1, wanted)
    ]


def test_every_row_of_the_shop_belongs_to_one_that_exists(shop: Path) -> None:
    for child, column, parent in (
        ("entries", "order_id", "orders"),
        ("entries", "user_id", "sellers"),
        ("orders", "product_id", "products"),
        ("orders", "customer_id", "customers"),
        ("orders", "user_id", "sellers"),
        ("products", "user_id", "sellers"),
    ):
        sql = f"SELECT COUNT(*) FROM {child} WHERE {column} NOT IN (SELECT {column} FROM {parent})"
        assert rows(shop, sql) == [(0,)], (child, column)


def test_a_product_is_sold_by_the_seller_it_belongs_to_at_its_price(shop: Path) -> None:
    sql = "FROM orders o JOIN products p USING (product_id) WHERE o.user_id <> p.user_id OR"
    assert rows(shop, f"SELECT COUNT(*) {sql} ROUND(o.total - p.price * o.quantity, 2) <> 0") == [(0,)]


def test_a_refund_takes_back_what_its_order_cost_and_comes_after_it(shop: Path) -> None:
    sql = "FROM entries e JOIN orders o USING (order_id) WHERE e.kind = 'refund'"
    assert rows(shop, f"SELECT COUNT(*) > 50 {sql}") == [(1,)]
    assert rows(shop, f"SELECT COUNT(*) {sql} AND (e.amount <> -o.total OR e.timestamp <= o.ordered_at)") == [(0,)]


def test_a_shop_of_the_same_size_is_kept_and_one_of_another_size_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    create_shop(path, 1_000)
    before = path.stat().st_ino
    create_shop(path, 1_000)
    assert path.stat().st_ino == before
    create_shop(path, 1_100)
    assert rows(path, "SELECT COUNT(*) FROM entries") == [(1_100,)]


def test_what_is_no_shop_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    path.write_bytes(b"half a file")
    path.with_name("shop.db.new").write_bytes(b"left by one that was killed")
    create_shop(path, 1_000)
    assert rows(path, "SELECT COUNT(*) FROM entries") == [(1_000,)]
    assert [found.name for found in tmp_path.iterdir()] == ["shop.db"]


# -- the sample tasks -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> config.Settings:
    """What the demo configures."""
    return config.load(write_config(tmp_path_factory.mktemp("config"), shop), {})


@pytest.fixture(scope="module")
def samples(settings: config.Settings) -> TaskSet:
    """All sample tasks."""
    return tasks.load([QUERIES], settings)


def example(task: Task) -> Any:
    """Return the args that a task's description gives as an example."""
    _, found, text = task.description.partition("Args ")
    return json.loads(text) if found else []


def names() -> list[str]:
    lines = [line for file in sorted((ROOT / "queries").glob("*.sql")) for line in file.read_text().splitlines()]
    return [line.removeprefix("-- name: ") for line in lines if line.startswith("-- name: ")]


def test_the_samples_load_and_are_those_of_the_queries_folder(samples: TaskSet) -> None:
    assert sorted(samples) == sorted(names())
    assert {"get_profit_summary", "get_profit_entries", "get_profit_entries_by_date"} <= set(samples)


def test_the_database_takes_every_sample(samples: TaskSet, settings: config.Settings) -> None:
    sources = {name: open_source(database) for name, database in settings.databases.items()}
    prepared = tasks.prepare(samples.values(), sources)
    assert (list(prepared.problems), dict(prepared.unavailable)) == ([], {})


@pytest.mark.parametrize("name", names())
def test_a_sample_returns_rows_for_the_args_that_its_description_shows(
    name: str, samples: TaskSet, settings: config.Settings
) -> None:
    task = samples[name]
    query = Query(task.statements["sqlite"], task.check_args(example(task)))
    source = open_source(settings.databases["shop"])
    with source.read(query, frozenset({Shape.DECODED}), timeout=10, cancellation=Cancellation()) as stream:
        batches = list(stream.batches())
    assert batches
    assert batches[0]
    assert task.description


def test_the_largest_demo_fits_the_limit_of_its_largest_task(samples: TaskSet) -> None:
    assert samples["export_entries"].max_rows >= MAX_ROWS


def test_every_tag_but_those_of_schedules_appears_in_the_samples() -> None:
    # A cron tag would make the demo's server run jobs that nobody asked for.
    text = "".join(file.read_text() for file in QUERIES.glob("*.sql"))
    from jobber.tasks.tags import TAGS

    assert [tag for tag in TAGS if f"\n-- {tag}: " not in text] == ["cron", "timezone"]


def test_the_demo_runs_jobs_of_every_sample_on_more_than_one_queue(samples: TaskSet) -> None:
    wanted = steps(ROWS)
    assert {step.task for step in wanted} == set(samples)
    assert len({samples[step.task].queue for step in wanted}) > 1
    assert len({step.job_id for step in wanted}) == len(wanted)


# -- the screen ----------------------------------------------------------------------------------------------------


def board(monkeypatch: pytest.MonkeyPatch, columns: int) -> str:
    """Return the kind of board that a terminal of a width gets."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # how rich is told that it writes to a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    with show.Screen().progress({"a": None}) as made:
        return type(made).__name__


def test_live_bars_need_80_columns_and_a_narrower_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [board(monkeypatch, columns) for columns in (40, 79, 80, 200)] == ["_Lines", "_Lines", "_Bars", "_Bars"]


# -- the command ------------------------------------------------------------------------------------------------------


#: Columns of the result that the demo shows.
SHOWN = ["place", "shop", "joined_on", "sales", "returned_pct", "profit"]


class Demo:
    """A ``jobber demo`` whose temporary folder and working folder are the test's own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.temporary = folder / "tmp"
        self.working = folder / "work"
        for path in (self.temporary, self.working):
            path.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobber", "demo", *flags],
            cwd=self.working,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
                "TMPDIR": str(self.temporary),
                "PYTHONPATH": str(ROOT),
                "PYTHONUTF8": "1",
                # Settings for another jobber must not reach the demo's.
                "JOBBER_DB__SHOP__URL": "sqlite:////nonexistent/shop.db",
            },
        )

    def finish(self, timeout: float = 90) -> tuple[int, str, str]:
        """Return exit status, output and errors; nothing may be left."""
        out, err = self.process.communicate(timeout=timeout)
        assert self.family() == []
        assert list(self.temporary.iterdir()) == []
        return self.process.returncode, out, err

    def family(self) -> list[psutil.Process]:
        """Return every living process that has this demo's temporary folder in its environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.temporary):
                    found.append(process)
        return found

    def kill(self) -> None:
        for process in self.family():
            with suppress(psutil.Error):
                process.kill()


@pytest.fixture
def demos(tmp_path: Path) -> Iterator[list[Demo]]:
    """Demos that are ended with the test, whatever happens."""
    running: list[Demo] = []
    yield running
    for demo in running:
        demo.kill()
        demo.process.communicate()


def test_the_demo_shows_a_result_timings_and_a_summary_and_leaves_nothing(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--rows", str(ROWS))
    demos.append(demo)
    status, out, err = demo.finish()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in out
    # The result: names, types, rows.
    head = next(n for n, line in enumerate(lines) if line.split() == SHOWN)
    assert lines[head + 1].split() == ["BIGINT", "TEXT", "DATE", "BIGINT", "REAL", "REAL"]
    assert lines[head + 2].split()[0] == "1"
    # The timings: one line per job, the large one with all its rows.
    table = {line.split()[0]: line.split() for line in lines[lines.index("Timings") :] if line}
    for step in steps(ROWS):
        assert table[step.job_id][1] == step.task
    assert table["all-entries"][5] == f"{ROWS:,}"
    assert f"{len(steps(ROWS))} jobs on 2 queues" in out
    assert list(demo.working.iterdir()) == []


def test_the_demo_tells_machines_the_same_in_one_document(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--rows", str(ROWS), "--json")
    demos.append(demo)
    status, out, err = demo.finish()
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert {job["state"] for job in document["jobs"]} == {"SUCCESS"}
    counts = {job["job_id"]: job["rows"] for job in document["jobs"]}
    assert counts["all-entries"] == ROWS
    assert counts[REPORT] == 8
    assert document["rows"] == sum(counts.values())
    assert 20_000_000 < document["peak_memory_bytes"] < 1_000_000_000


def test_a_server_that_cannot_start_fails_the_demo_with_its_own_words(demos: list[Demo], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        demo = Demo(tmp_path, "--rows", "1000", "--port", str(taken.getsockname()[1]))
        demos.append(demo)
        status, _, err = demo.finish()
    assert status == 1
    assert err.startswith("error: the server ended while it started")
    assert "cannot listen on 127.0.0.1" in err
    assert "Traceback" not in err


def test_an_interrupted_demo_stops_its_server_and_removes_its_folder(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--rows", "1000")
    demos.append(demo)
    wait_until(lambda: len(demo.family()) >= 3 or demo.process.poll() is not None, timeout=60)
    demo.process.send_signal(signal.SIGTERM)
    status, _, err = demo.finish()
    assert (status, "interrupted" in err) == (130, True)


def test_serve_keeps_its_folder_uses_it_again_and_ends_with_status_0(demos: list[Demo], tmp_path: Path) -> None:
    port = free_port()
    made = []
    for job_id in ("first", "second"):
        demo = Demo(tmp_path, "--serve", "--rows", "1000", "--port", str(port))
        demos.append(demo)
        with Client(f"http://127.0.0.1:{port}") as client:
            wait_until(lambda client=client: reachable(client), timeout=60)
            client.submit("get_profit_summary", ["USER1"], job_id=job_id)
            assert client.wait(job_id, 30).succeeded
            assert client.job("first").succeeded
        made.append((demo.working / "jobber-data" / "demo" / "shop.db").stat().st_ino)
        demo.process.send_signal(signal.SIGTERM)
        status, out, err = demo.finish()
        assert status == 0, err
        assert f"curl http://127.0.0.1:{port}/tasks/get_profit_summary/jobs" in out
    assert made[0] == made[1]


def reachable(client: Client) -> bool:
    try:
        return bool(client.tasks())
    except ServerUnreachable:
        time.sleep(0.1)
        return False


def test_serve_and_json_do_not_go_together(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--serve", "--json")
    demos.append(demo)
    status, _, err = demo.finish()
    assert status == 2
    assert "--json" in err

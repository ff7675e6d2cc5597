"""A copy from SQLite into SQLite while it runs: cancelled, too long, too large, overtaken, and beside writers."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobber import execution
from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.config import DatabaseSettings, ResultsSettings
from jobber.errors import Cancelled, Fenced, TimedOut, TooManyRows
from jobber.results import open_results
from jobber.results.base import Target
from jobber.results.sqlite import SqliteResults
from jobber.sources import open_source, sqlite_beside
from jobber.sources.base import Shape, Source
from jobber.sources.sqlite_beside import begin_both
from tests.servers import wait_until
from tests.test_execution import job, run, task
from tests.types.labs import Shaped, publish

ROWS = 200_000
#: The plan of one loop is proven beside the copy, the other one in the same statement.
WAYS = {"beside": "SELECT * FROM t", "alone": "SELECT t.* FROM t JOIN one ON t.paid IN (0, one.i)"}
#: More rows than any test waits for.
ENDLESS = "SELECT a.* FROM t a, t b"
MOMENTS = 2.0
NUMBER = Column("i", Kind.INTEGER)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("source") / "source.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, paid BOOLEAN, day DATE, note TEXT, price REAL)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO t "
            "SELECT i, i % 2, date('2024-01-01', i % 366 || ' days'), 'a note of usual length', i / 7.0 FROM n",
            [ROWS],
        )
        connection.execute("CREATE TABLE one AS SELECT 1 AS i")
        connection.commit()
    assert file.stat().st_size > sqlite_beside.WORTH
    return file


def opened(file: Path) -> Source:
    return open_source(DatabaseSettings(name="src", url=f"sqlite:///{file}", engine="sqlite"))


@pytest.fixture
def source(file: Path) -> Source:
    return opened(file)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[SqliteResults]:
    backend = open_results(ResultsSettings(name="out", url=f"sqlite:///{tmp_path}/results", engine="sqlite"))
    assert isinstance(backend, SqliteResults)
    backend.prepare()
    yield backend
    backend.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert "jobber-beside" not in {thread.name for thread in threading.enumerate()}


def files(backend: SqliteResults) -> set[str]:
    return {file.name for file in backend.folder.iterdir() if not file.name.startswith("jobber_ledger")}


@contextmanager
def as_soon_as(condition: Callable[[], object], act: Callable[[], object]) -> Iterator[list[float]]:
    """Act in a thread once ``condition`` holds; the list gets the time."""
    at: list[float] = []

    def wait() -> None:
        wait_until(condition, interval=0.001)
        at.append(time.monotonic())
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield at
    finally:
        thread.join()


# -- which way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "beside"),
    [
        (WAYS["beside"], True),
        ("SELECT note, n FROM t WHERE n > 5 ORDER BY price DESC", True),
        (WAYS["alone"], False),
        ("SELECT * FROM t LIMIT 5", False),
        ("SELECT DISTINCT note FROM t", False),
        ("SELECT note, n FROM t GROUP BY note", False),
        ("SELECT n, note FROM t WHERE n = 5", False),
        ("SELECT n FROM t WHERE random() > 0", False),
        ("SELECT n FROM (SELECT n FROM t)", False),
        ("SELECT n FROM t UNION ALL SELECT n FROM t", False),
    ],
)
def test_only_a_query_that_gives_the_same_rows_for_one_more_scan_runs_twice(
    sql: str, beside: bool, source: Source, backend: SqliteResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    both: list[bool] = []

    def begin(first: sqlite3.Connection, second: sqlite3.Connection | None) -> bool:
        both.append(begin_both(first, second))
        return both[-1]

    monkeypatch.setattr("jobber.sources.sqlite_copy.begin_both", begin)
    shaped = Shaped(source, Shape.COPIED)
    publish(shaped, backend, sql)
    assert shaped.gave is Shape.COPIED
    assert both == [beside]


@pytest.mark.parametrize(("way", "size"), [("beside", 16384), ("alone", 4096)])
def test_only_many_rows_have_large_pages(way: str, size: int, source: Source, backend: SqliteResults) -> None:
    result = publish(source, backend, WAYS[way])
    assert result.rows == ROWS
    with closing(sqlite3.connect(backend.file(result.table))) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (size,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(backend.rows(result.table, result.run, result.columns, offset=ROWS - 3, limit=9)) == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_late_value_that_must_be_changed_has_the_copy_give_way(
    way: str, tmp_path: Path, file: Path, backend: SqliteResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_beside, "WORTH", 0)
    with closing(sqlite3.connect(tmp_path / "late.db")) as connection:
        connection.execute("ATTACH ? AS o", [str(file)])
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, paid BOOLEAN, day DATE, note TEXT, price REAL)")
        connection.execute("INSERT INTO t SELECT * FROM o.t WHERE n <= 20000")
        connection.execute("CREATE TABLE one AS SELECT 1 AS i UNION SELECT 2")
        connection.execute("UPDATE t SET paid = 2 WHERE n = 19990")
        connection.commit()
    source = Shaped(opened(tmp_path / "late.db"), Shape.COPIED)
    result = publish(source, backend, WAYS[way])
    assert source.gave is Shape.DECODED
    assert result.columns[1].kind is Kind.INTEGER


# -- ending -----------------------------------------------------------------------------------------------------------


def test_a_cancel_in_the_middle_ends_the_copy_at_once(source: Source, backend: SqliteResults) -> None:
    token, progress = Cancellation(), execution.Progress()
    with (
        as_soon_as(lambda: progress.rows, lambda: token.pull(Cancelled("stop"))) as at,
        pytest.raises(Cancelled),
    ):
        run(job(backend), task(ENDLESS), source, backend, token=token, progress=progress)
    assert time.monotonic() - at[0] < MOMENTS
    assert not files(backend)


def test_a_cancel_at_any_moment_holds(source: Source, backend: SqliteResults) -> None:
    for tenth in range(12):
        token = Cancellation()
        timer = threading.Timer(tenth * 0.03, lambda token=token: token.pull(Cancelled("stop")))
        timer.start()
        began = time.monotonic()
        try:
            run(replace(job(backend), run=tenth + 1), task(WAYS["beside"]), source, backend, token=token)
        except Cancelled:
            assert time.monotonic() - began < tenth * 0.03 + MOMENTS
        timer.cancel()
        timer.join()
    assert len(files(backend)) <= 1


def test_proofs_that_take_their_time_are_ended_with_the_copy(
    source: Source, backend: SqliteResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the second connection ever asks that.
    monkeypatch.setattr("jobber.sources.sqlite_copy.doubt", lambda _column, _name: _forever())
    token, progress = Cancellation(), execution.Progress()
    with (
        as_soon_as(lambda: progress.rows > ROWS - 2000, lambda: token.pull(Cancelled("stop"))) as at,
        pytest.raises(Cancelled),
    ):
        run(job(backend), task(WAYS["beside"]), source, backend, token=token, progress=progress)
    assert time.monotonic() - at[0] < MOMENTS
    with pytest.raises(TimedOut):
        run(job(backend), task(WAYS["beside"]), source, backend, timeout=0.5)
    assert not files(backend)


def _forever() -> str:
    return "(WITH RECURSIVE f(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM f) SELECT count(*) FROM f) = 0"


def test_a_copy_that_takes_too_long_is_ended(source: Source, backend: SqliteResults) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"time limit \(0\.3 s\)"):
        run(job(backend), task(ENDLESS), source, backend, timeout=0.3)
    assert time.monotonic() - began < 0.3 + MOMENTS
    assert not files(backend)


@pytest.mark.parametrize("sql", [ENDLESS, *WAYS.values()])
def test_a_copy_ends_where_there_are_too_many_rows(sql: str, source: Source, backend: SqliteResults) -> None:
    began = time.monotonic()
    with pytest.raises(TooManyRows):
        run(job(backend), task(sql, max_rows=1000), source, backend)
    assert time.monotonic() - began < MOMENTS
    assert not files(backend)


@pytest.mark.parametrize("way", WAYS)
def test_as_many_rows_as_are_allowed_pass(way: str, source: Source, backend: SqliteResults) -> None:
    outcome = run(job(backend), task(WAYS[way] + " WHERE t.n <= 5000", max_rows=5000), source, backend)
    assert outcome.rows == 5000


@pytest.mark.parametrize("way", WAYS)
def test_progress_moves_while_rows_are_copied(way: str, source: Source, backend: SqliteResults) -> None:
    class Watched(execution.Progress):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name in seen:
                seen[name].append(value)

    seen: dict[str, list[int]] = {"rows": [], "bytes": []}
    run(job(backend), task(WAYS[way]), source, backend, progress=Watched())
    for values in seen.values():
        assert values == sorted(values)
        assert len(set(values)) > 20
    assert seen["rows"][-1] == ROWS


def test_an_overtaken_attempt_cannot_publish_its_copy(source: Source, backend: SqliteResults) -> None:
    first = job(backend)
    progress = execution.Progress()

    def overtake() -> None:
        target = Target(first.table, first.job_id, first.run, first.attempt + 1, 0)
        with backend.begin(target, [NUMBER], Cancellation()) as writer:
            writer.write_batch([(1,)])
            writer.publish()

    with as_soon_as(lambda: progress.rows, overtake), pytest.raises(Fenced):
        run(first, task(ENDLESS, max_rows=3_000_000), source, backend, progress=progress)
    assert backend.rows(first.table, first.run, [NUMBER], offset=0, limit=9) == [(1,)]
    assert len(files(backend)) == 1


# -- beside writers ---------------------------------------------------------------------------------------------------

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
paid = 1
print("ready", flush=True)
while True:
    paid = 3 - paid
    connection.execute("UPDATE t SET paid = ?, note = ?", [paid, f"note {paid}"])
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_others_write_to_is_copied_as_it_was_at_one_moment(
    mode: str, way: str, tmp_path: Path, backend: SqliteResults
) -> None:
    file = tmp_path / "written.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, paid BOOLEAN, note TEXT, filler TEXT)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
            "INSERT INTO t SELECT i, 1, 'note 1', printf('%0250d', i) FROM n"
        )
        connection.execute("CREATE TABLE one AS SELECT 1 AS i UNION ALL SELECT 2")
    assert file.stat().st_size > sqlite_beside.WORTH
    with subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            for _ in range(8):
                source = Shaped(opened(file), Shape.COPIED)
                result = publish(source, backend, WAYS[way])
                with closing(sqlite3.connect(backend.file(result.table))) as connection:
                    seen = connection.execute(
                        f'SELECT paid, note, count(*) FROM "{result.table}" GROUP BY paid, note'
                    ).fetchall()
                # 2 is no boolean, so that proofs of another moment would let it pass.
                number = 1 if result.columns[1].kind is Kind.BOOLEAN else 2
                assert seen == [(number, f"note {number}", 20_000)]
        finally:
            writer.kill()


class Hooked(sqlite3.Connection):
    """Calls ``before`` ahead of BEGIN."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        if sql == "BEGIN":
            self.before()
        return super().execute(sql, *more)


@pytest.mark.parametrize("position", [None, 0, 1])
def test_a_commit_between_two_transactions_is_noticed(position: int | None, tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (i)")
        both = [sqlite3.connect(file, isolation_level=None, factory=Hooked) for _ in range(2)]
        if position is not None:
            both[position].before = lambda: writer.execute("INSERT INTO t VALUES (1)") and None  # type: ignore[method-assign]
        assert begin_both(both[0], both[1]) == (position is None)
        assert both[0].in_transaction
        for connection in both:
            connection.close()


def test_a_writer_that_waits_for_the_first_transaction_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=10)) as writer:
        writer.execute("CREATE TABLE t (i)")
        first = sqlite3.connect(file, isolation_level=None)
        second = sqlite3.connect(file, isolation_level=None, timeout=0, factory=Hooked)
        thread = threading.Thread(target=lambda: writer.execute("INSERT INTO t VALUES (1)"))

        def locked() -> bool:
            with closing(sqlite3.connect(file, timeout=0)) as other:
                try:
                    other.execute("SELECT * FROM t").fetchone()
                except sqlite3.OperationalError:
                    return True
                return False

        def write() -> None:
            thread.start()
            wait_until(locked)

        second.before = write  # type: ignore[method-assign]
        began = time.monotonic()
        assert not begin_both(first, second)
        assert time.monotonic() - began < MOMENTS
        assert first.execute("SELECT * FROM t").fetchall() == []
        second.close()
        first.close()
        thread.join()


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_is_locked_for_a_while_is_waited_for(
    way: str, tmp_path: Path, file: Path, backend: SqliteResults
) -> None:
    copy = tmp_path / "locked.db"
    copy.write_bytes(file.read_bytes())
    with closing(sqlite3.connect(copy, isolation_level=None, check_same_thread=False)) as owner:
        owner.execute("BEGIN EXCLUSIVE")
        owner.execute("DELETE FROM t WHERE n > 1000")
        threading.Timer(0.3, lambda: owner.execute("COMMIT")).start()
        source = Shaped(opened(copy), Shape.COPIED)
        assert publish(source, backend, WAYS[way]).rows == 1000
        assert source.gave is Shape.COPIED


def test_a_file_that_was_replaced_has_no_second_connection(
    tmp_path: Path, file: Path, backend: SqliteResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing, other = tmp_path / "changing.db", tmp_path / "other.db"
    changing.write_bytes(file.read_bytes())
    other.write_bytes(file.read_bytes())
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("UPDATE t SET paid = 2")
        connection.commit()
    proven: list[bool] = []

    def begin(first: sqlite3.Connection, second: sqlite3.Connection | None) -> bool:
        proven.append(begin_both(first, second))
        return proven[-1]

    def replaced(_connection: sqlite3.Connection) -> bool:
        other.replace(changing)
        return True

    monkeypatch.setattr("jobber.sources.sqlite_copy.begin_both", begin)
    monkeypatch.setattr("jobber.sources.sqlite_copy.is_worth_it", replaced)
    result = publish(Shaped(opened(changing), Shape.COPIED), backend, WAYS["beside"])
    assert proven == [False]
    assert result.columns[1].kind is Kind.BOOLEAN


# -- memory -----------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from jobber.config import DatabaseSettings, ResultsSettings
from jobber.results import open_results
from jobber.sources import open_source
from tests.types.labs import publish
file, folder, rows = sys.argv[1:]
source = open_source(DatabaseSettings(name="src", url=f"sqlite:///{file}", engine="sqlite"))
backend = open_results(ResultsSettings(name="out", url=f"sqlite:///{folder}", engine="sqlite"))
backend.prepare()
assert publish(source, backend, f"SELECT * FROM t WHERE n <= {rows}").rows == int(rows)
(line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(line.split()[1])
"""


def test_a_copy_takes_no_more_memory_for_more_rows(tmp_path: Path, file: Path) -> None:
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, str(file), str(tmp_path / str(rows)), str(rows)],
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
        )
        for rows in (2000, ROWS)
    )
    assert many - few < 20 * 1024

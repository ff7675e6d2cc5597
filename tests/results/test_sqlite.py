"""What results in a folder promise beyond the conformance suite: crashes between any two steps, disks, readers."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.errors import Cancelled, ConfigError, ResultsFailed, ResultsGone, ResultsUnavailable
from jobber.results import open_results, sqlite_ledger, sqlite_writer
from jobber.results.base import Published
from jobber.results.sqlite import SqliteResults
from jobber.sources.base import Chunk
from tests.results.conftest import COLUMNS, SqliteLab, load, read, target, write

ONE: list[Row] = [(1, "one")]
TWO: list[Row] = [(1, "uno"), (2, "dos")]
OLD: list[Row] = [(1, "old"), (2, "older")]


def backend_at(folder: Path) -> SqliteResults:
    return SqliteResults(ResultsSettings(name="main", url=f"sqlite:///{folder}", engine="sqlite"))


# -- crashes ----------------------------------------------------------------------------------------------------------

#: Every call of these during an attempt is a point at which the process is killed, before or after it.
STEPS = """
import os, signal, sqlite3, sys
from pathlib import Path
from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.config import ResultsSettings
from jobber.results import sqlite, sqlite_ledger, sqlite_writer
from jobber.results.base import Target

folder, attempt, point = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
count = 0

def step(call):
    def stepped(*args, **kwargs):
        die()
        result = call(*args, **kwargs)
        die()
        return result
    return stepped

def die():
    global count
    if count == point:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1

for owner, name in [
    (sqlite_ledger, "claim"), (sqlite_ledger, "set_published"), (Path, "touch"), (Path, "replace"),
    (Path, "unlink"), (sqlite_writer, "flush"), (sqlite.SqliteResults, "settle"), (sqlite_writer.Writer, "_close_file"),
]:
    setattr(owner, name, step(getattr(owner, name)))

transaction = sqlite_ledger.Ledger.transaction
class Stepped:
    def __init__(self, *args, **kwargs): self.inner = transaction(*args, **kwargs)
    def __enter__(self): die(); return self.inner.__enter__()
    def __exit__(self, *error):
        die()
        result = self.inner.__exit__(*error)
        die()
        return result
sqlite_ledger.Ledger.transaction = lambda self, **options: Stepped(self, **options)

backend = sqlite.SqliteResults(ResultsSettings(name="main", url=f"sqlite:///{folder}", engine="sqlite"))
columns = [Column("id", Kind.INTEGER), Column("name", Kind.TEXT)]
with backend.begin(Target("results_a", "a", 2, attempt, 0), columns, Cancellation()) as writer:
    writer.write_batch([(1, "uno"), (2, "dos")])
    writer.publish()
die()
sys.exit(7)
"""


@pytest.fixture(scope="module")
def crasher() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has imported everything and forks one victim per line "FOLDER ATTEMPT POINT"."""
    loop = textwrap.dedent(
        """
        import os, sys
        import jobber.results.sqlite
        code = compile(sys.argv[1], "steps", "exec")
        for line in sys.stdin:
            child = os.fork()
            if not child:
                sys.argv = ["steps", *line.split()]
                try:
                    exec(code, {})
                except SystemExit as done:
                    os._exit(done.code)
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", loop, STEPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


def crash(crasher: subprocess.Popen[bytes], folder: Path, attempt: int, point: int) -> int:
    assert crasher.stdin is not None
    assert crasher.stdout is not None
    crasher.stdin.write(f"{folder} {attempt} {point}\n".encode())
    crasher.stdin.flush()
    return int(crasher.stdout.readline())


@pytest.mark.parametrize("rerun", [False, True], ids=["first run", "rerun"])
def test_a_kill_at_any_point_leaves_the_old_or_the_new_result_whole_and_a_retry_mends_the_rest(
    crasher: subprocess.Popen[bytes], tmp_path: Path, rerun: bool
) -> None:
    outcomes = set()
    for point in itertools.count():
        folder = tmp_path / str(point)
        backend = backend_at(folder)
        backend.prepare()
        if rerun:
            write(backend, target(run=1), OLD)
        status = crash(crasher, folder, 1, point)
        assert status in (-signal.SIGKILL, 7)
        told = [backend.fence("results_a", 2, 1)] if point % 2 else []
        found = []
        for run, rows in ((1, OLD), (2, TWO)):
            try:
                assert read(backend, run) == rows
            except ResultsGone:
                continue
            found.append(run)
        assert found in ([[1], [2]] if rerun else [[], [2]])
        outcomes.add(tuple(found))
        for published in [*told, backend.fence("results_a", 2, 1)]:
            assert published == (Published(len(TWO), COLUMNS) if found == [2] else None)
        # Whatever stands there, an application that opens the file sees one result whole.
        if found:
            with closing(sqlite3.connect(folder / "results_a.db")) as application:
                assert application.execute("SELECT * FROM results_a").fetchall() == (TWO if found == [2] else OLD)
        write(backend, target(run=2, attempt=2), TWO)
        assert read(backend, 2) == TWO
        assert {file.name for file in folder.glob("*.db")} == {"results_a.db", "jobber_ledger.db"}
        with closing(sqlite3.connect(folder / "jobber_ledger.db")) as ledger:
            entry = ledger.execute("SELECT claim_attempt, staging, run, attempt, rows FROM jobber_ledger").fetchall()
        assert entry == [(2, None, 2, 2, 2)]
        backend.close()
        if status == 7:
            break
    assert point > 20
    assert len(outcomes) == 2


def test_a_crash_between_rename_and_ledger_is_mended_by_whoever_looks_next(
    crasher: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The janitor, a purge and a fence must see the published file, not the ledger's older word."""
    looks: list[Callable[[SqliteResults], object]] = [
        lambda backend: backend.expire(),
        lambda backend: backend.fence("results_a", 2, 1),
        lambda backend: read(backend, 2),
        lambda backend: backend.drop("results_a", 1),
    ]
    mended = 0
    for point in itertools.count():
        folder = tmp_path / str(point)
        backend = backend_at(folder)
        backend.prepare()
        status = crash(crasher, folder, 1, point)
        unsaid = backend.ledger.read("results_a")
        if (folder / "results_a.db").exists() and unsaid is not None and unsaid.run is None:
            looks[mended % len(looks)](backend)
            mended += 1
            said = backend.ledger.read("results_a")
            assert said is not None
            assert (said.run, said.attempt, said.rows, said.staging) == (2, 1, 2, None)
            assert read(backend, 2) == TWO
        backend.close()
        if status == 7:
            break
    assert mended >= len(looks)


# -- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_fails_the_attempt_and_leaves_the_old_result(small_disk: Path) -> None:
    backend = backend_at(small_disk / "results")
    write(backend, target(run=1), ONE)
    with pytest.raises(ResultsFailed, match=r"\[results.main\] refused: .*full") as caught:
        load(backend, target(run=2), *[[(1, "x" * 100_000)]] * 50)
    assert caught.value.retryable
    assert str(small_disk) not in caught.value.message
    assert read(backend, 1) == ONE
    assert sorted(file.name for file in (small_disk / "results").glob("*.db")) == ["jobber_ledger.db", "results_a.db"]
    write(backend, target(run=2, attempt=2), TWO)
    assert read(backend, 2) == TWO
    backend.close()


def test_a_folder_that_became_read_only_fails_the_attempt_and_leaves_the_old_result(small_disk: Path) -> None:
    backend = backend_at(small_disk)
    write(backend, target(run=1), ONE)
    backend.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ResultsFailed, match=r"\[results.main\]") as caught:
        write(backend, target(run=2), TWO)
    assert str(small_disk) not in caught.value.message
    with pytest.raises(ResultsUnavailable, match="cannot be written to"):
        backend.ping()
    backend.close()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert read(backend, 1) == ONE
    backend.close()


def test_a_file_size_limit_fails_the_attempt(tmp_path: Path) -> None:
    code = """
import resource, sys
from tests.results.test_sqlite import backend_at, target, write, COLUMNS
from pathlib import Path
from jobber.errors import ResultsFailed
backend = backend_at(Path(sys.argv[1]))
backend.prepare()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    write(backend, target(), [(1, "x" * 100_000)] * 50)
except ResultsFailed as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert "[results.main] refused" in done.stdout
    assert {file.name for file in tmp_path.glob("*.db")} == {"jobber_ledger.db"}


def test_a_file_in_place_of_the_folder_fails_clearly(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    for path in (tmp_path / "results", tmp_path / "results" / "below"):
        with pytest.raises(ResultsFailed, match=r"\[results.main\] refused") as caught:
            backend_at(path).prepare()
        assert str(tmp_path) not in caught.value.message


def test_the_folder_is_made_at_first_use_and_again_if_somebody_removes_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    backend = backend_at(folder)
    assert not folder.exists()
    write(backend, target(), ONE)
    assert read(backend) == ONE
    subprocess.run(["rm", "-r", str(folder)], check=True)
    with pytest.raises(ResultsGone):
        read(backend)
    write(backend, target(run=2), TWO)
    assert read(backend, 2) == TWO
    backend.close()


def test_a_url_that_names_no_folder_is_refused() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ConfigError, match="must name a folder"):
            open_results(ResultsSettings(name="main", url=url, engine="sqlite"))


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_a_reader_keeps_the_version_that_it_opened(folder_lab: SqliteLab) -> None:
    write(folder_lab.backend, target(run=1), ONE)
    with closing(sqlite3.connect(folder_lab.folder / "results_a.db")) as reader:
        assert reader.execute("SELECT * FROM results_a").fetchall() == ONE
        write(folder_lab.backend, target(run=2), TWO)
        assert reader.execute("SELECT * FROM results_a").fetchall() == ONE
        folder_lab.backend.drop("results_a", 2)
        assert reader.execute("SELECT * FROM results_a").fetchall() == ONE


def test_a_result_is_one_file_with_one_table_and_no_journal(folder_lab: SqliteLab) -> None:
    write(folder_lab.backend, target(), ONE)
    assert folder_lab.query('SELECT name FROM "sqlite_master" WHERE 0') == []
    with closing(sqlite3.connect(folder_lab.folder / "results_a.db")) as result:
        assert result.execute("SELECT name FROM sqlite_master").fetchall() == [("results_a",)]
        assert result.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [file.name for file in folder_lab.folder.glob("results_a*")] == ["results_a.db"]


def test_numbers_and_dates_that_look_like_numbers_stay_exact_text(folder_lab: SqliteLab) -> None:
    columns = [Column("n", Kind.NUMERIC, 30, 3), Column("d", Kind.DATE), Column("j", Kind.JSON), Column("t", Kind.TEXT)]
    write(folder_lab.backend, target(), [("12345678901234567890.100", "2024-01-01", "1e400", "007")], columns)
    assert folder_lab.query('SELECT n, d, j, t, typeof(n) || typeof(d) || typeof(j) || typeof(t) FROM "results_a"') == [
        ("12345678901234567890.100", "2024-01-01", "1e400", "007", "texttexttexttext")
    ]


def test_an_unknown_column_is_an_error_and_not_its_own_name(folder_lab: SqliteLab) -> None:
    write(folder_lab.backend, target(), ONE)
    with pytest.raises(ResultsFailed, match="no such column"):
        read(folder_lab.backend, 1, [Column("nonsense", Kind.TEXT)])


def test_encoded_rows_are_refused(folder_lab: SqliteLab) -> None:
    with pytest.raises(ResultsFailed), folder_lab.backend.begin(target(), COLUMNS, Cancellation()) as writer:
        writer.write_chunk(Chunk(b"1\ta\n", 1))


def test_a_ledger_that_another_process_keeps_locked_is_unavailable_not_failed(
    folder_lab: SqliteLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "BUSY_TIMEOUT", 50)
    folder_lab.backend.prepare()
    with closing(sqlite3.connect(folder_lab.folder / "jobber_ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResultsUnavailable, match="busy"):
            write(folder_lab.backend, target(), ONE)


def test_a_forked_process_has_a_connection_of_its_own(folder_lab: SqliteLab) -> None:
    folder_lab.backend.prepare()
    child = os.fork()
    if not child:
        status = 1
        try:
            write(folder_lab.backend, target("results_b", run=1), TWO)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    write(folder_lab.backend, target(), ONE)
    assert read(folder_lab.backend) == ONE
    assert read(folder_lab.backend, table="results_b") == TWO


def test_markers_of_neighbouring_attempts_and_runs_differ() -> None:
    markers = {sqlite_ledger.marker(run, attempt) for run in range(1000, 1100) for attempt in range(1, 20)}
    assert len(markers) == 100 * 19


def test_a_file_that_jobber_did_not_make_has_no_marker(tmp_path: Path) -> None:
    for content in (b"", b"short", b"x" * 4096):
        (tmp_path / "file").write_bytes(content)
        assert sqlite_ledger.read_marker(tmp_path / "file") is None
    assert sqlite_ledger.read_marker(tmp_path / "missing") is None


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_a_cancel_interrupts_the_making_of_an_index(folder_lab: SqliteLab) -> None:
    write(folder_lab.backend, target(run=1), ONE)
    token = Cancellation()
    rows: list[Row] = [(n, f"{n * 7919 % 1_000_003:020}") for n in range(400_000)]
    indexed = replace(target(run=2), index=("name",))
    with folder_lab.backend.begin(indexed, COLUMNS, token) as writer:
        writer.write_batch(rows)
        threading.Timer(0.05, token.pull, [Cancelled("the job was cancelled")]).start()
        with pytest.raises(Cancelled):
            writer.publish()
    assert read(folder_lab.backend, 1) == ONE
    assert folder_lab.tables() == {"results_a"}


def test_a_cancel_while_the_file_reaches_the_disk_publishes_nothing(
    folder_lab: SqliteLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = Cancellation()
    monkeypatch.setattr(sqlite_writer, "flush", lambda _: token.pull(Cancelled("the job was cancelled")))
    with folder_lab.backend.begin(target(), COLUMNS, token) as writer:
        writer.write_batch(ONE)
        with pytest.raises(Cancelled):
            writer.publish()
    assert folder_lab.tables() == set()

"""A results folder that several processes use for the first time at once."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from jobber.config import ResultsSettings
from jobber.results.sqlite import SqliteResults


def test_a_new_ledger_that_another_process_is_just_writing_is_waited_for(tmp_path: Path) -> None:
    """SQLite answers "database is locked" at once when a file is to enter WAL mode while somebody reads it."""
    settings = ResultsSettings(name="out", url=f"sqlite:///{tmp_path}/results", engine="sqlite")
    (tmp_path / "results").mkdir()
    backend = SqliteResults(settings)
    with closing(
        sqlite3.connect(tmp_path / "results" / "jobber_ledger.db", isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("CREATE TABLE something (x)")
        other.execute("BEGIN")
        other.execute("SELECT * FROM something").fetchall()
        threading.Timer(0.3, other.execute, ["COMMIT"]).start()

        backend.prepare()

    backend.close()

"""A results folder that several processes use for the first time at once.

Two connections that turn WAL mode on in a new file wait for each other's locks; SQLite resolves that by telling one of
them "database is locked" at once, without asking its busy handler.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from jobber.config import ResultsSettings
from jobber.errors import ResultsUnavailable
from jobber.results import sqlite_ledger
from jobber.results.sqlite import SqliteResults


class Contended(sqlite3.Connection):
    """A connection that loses the race for WAL mode a few times."""

    losses = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if "journal_mode" in sql and Contended.losses > 0:
            Contended.losses -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(sql, *parameters)


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqliteResults:
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite_ledger.sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Contended)
    )
    return SqliteResults(ResultsSettings(name="out", url=f"sqlite:///{tmp_path}/results", engine="sqlite"))


def test_a_lost_race_for_a_new_ledger_is_run_again(backend: SqliteResults) -> None:
    Contended.losses = 3

    backend.prepare()

    assert Contended.losses == 0
    backend.close()


def test_a_ledger_that_stays_locked_is_given_up(backend: SqliteResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_ledger, "BUSY_TIMEOUT", 50)
    Contended.losses = 10_000

    with pytest.raises(ResultsUnavailable):
        backend.prepare()

    Contended.losses = 0
    backend.close()

"""Results on MySQL and MariaDB beside an administrator: backups, limits on idleness, keys that refer to a result."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from pymysql import err
from sqlalchemy import make_url

from jobber.columns import ROW_PLACE, Row
from jobber.results.mysql import MysqlResults
from tests.results.conftest import BULKY, ONE, TWO, MysqlLab, load, mysql_lab, read, target, write
from tests.servers import MariaDB


@contextmanager
def settings(server: MariaDB, **values: int) -> Iterator[None]:
    """Let new sessions have other settings."""
    [before] = server.execute("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in values))
    try:
        for name, value in values.items():
            server.execute(f"SET GLOBAL {name} = {value}")
        yield
    finally:
        for name, value in zip(values, before, strict=True):
            server.execute(f"SET GLOBAL {name} = {value}")


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_an_attempt_outlasts_a_backup_that_locks_all_tables(my: MysqlLab, rows: list[Row]) -> None:
    write(my.backend, target(run=1), ONE)
    with my.connect() as backup, backup.cursor() as cursor:

        def lock(_: object) -> None:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            unlocking.start()

        unlocking = threading.Timer(2.5, cursor.execute, ["UNLOCK TABLES"])
        assert load(my.backend, target(run=2), lock, rows) == len(rows)
        unlocking.join()
    assert read(my.backend, 2) == rows


@pytest.mark.parametrize("insert", [False, True], ids=["load", "insert"])
def test_a_source_may_pause_whatever_the_server_thinks_of_idle_sessions(mariadb: MariaDB, insert: bool) -> None:
    limits = {"net_read_timeout": 1, "net_write_timeout": 1, "wait_timeout": 1}
    if not mariadb.is_mysql:
        limits |= {"idle_transaction_timeout": 1, "idle_write_transaction_timeout": 1}
    with settings(mariadb, **limits):
        for lab in mysql_lab(mariadb, insert=insert):
            load(lab.backend, target(), BULKY, lambda _: time.sleep(2.5), BULKY)
            assert len(read(lab.backend)) == 2 * len(BULKY)


def test_a_slow_source_keeps_no_statement_open_for_long(my: MysqlLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that locks all tables would wait for it, and everybody else for the backup."""
    monkeypatch.setattr("jobber.results.mysql.load.SEGMENT_SECONDS", 0.0)

    def look(_: object) -> None:
        [staging] = my.tables()
        assert my.query(f"SELECT COUNT(*) FROM {staging}") == [(len(BULKY),)]

    load(my.backend, target(), BULKY, look, TWO)
    assert read(my.backend) == [*BULKY, *TWO]


def refer_to(lab: MysqlLab, table: str) -> None:
    """Make a foreign key that keeps the server from dropping a result."""
    lab.query(f'CREATE TABLE theirs (place BIGINT UNSIGNED, FOREIGN KEY (place) REFERENCES {table} ("{ROW_PLACE}"))')


def test_a_result_that_cannot_be_dropped_keeps_no_other_from_expiring(
    my: MysqlLab, caplog: pytest.LogCaptureFixture
) -> None:
    for table in ("results_a", "results_b"):
        write(my.backend, target(table, ttl=1), ONE)
        my.overdue(table)
    refer_to(my, "results_a")
    assert my.backend.expire() == ["results_b"]
    assert '"results_a" in results database "main" cannot be dropped: ' in caplog.text
    my.query("DROP TABLE theirs")
    assert my.backend.expire() == ["results_a"]


def test_an_old_result_that_cannot_be_dropped_keeps_no_new_one_from_its_place(my: MysqlLab) -> None:
    write(my.backend, target(run=1), ONE)
    refer_to(my, "results_a")
    assert write(my.backend, target(run=2), TWO) == len(TWO)
    assert read(my.backend, 2) == TWO
    my.query("DROP TABLE theirs")
    my.backend.expire()
    assert my.tables() == {"results_a"}


def test_one_database_has_one_set_of_locks_however_its_name_is_written() -> None:
    """A server may fold the case of names."""
    server = MariaDB("lower-case-table-names=1")
    if server.is_mysql:
        server.remove()
        pytest.skip("MySQL wants to know it when its data folder is made")
    server.start()
    try:
        for lab in mysql_lab(server):
            capitals = make_url(lab.settings.url).set(database=lab.database.upper())
            other = MysqlResults(replace(lab.settings, url=capitals.render_as_string(hide_password=False)))
            write(lab.backend, target(run=1), ONE)
            write(other, target(run=2), ONE)
            with lab.backend.connections.connection() as one, other.connections.connection() as two:
                other.locks.patience = 0
                with (
                    lab.backend.locks.held(one, "results_a"),
                    other.locks.held(two, "results_a"),
                    pytest.raises(err.OperationalError),
                ):
                    one.rows("SELECT 1")  # who holds a lock for too long is disconnected
            other.close()
    finally:
        server.remove()

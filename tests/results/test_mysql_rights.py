"""Results on MySQL and MariaDB under the rights, names and versions that a server gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.errors import ResultsFailed, ResultsUnavailable, ValueNotRepresentable
from jobber.mysql import Connection
from jobber.results.mysql import MysqlResults, pool
from tests.results.conftest import BULKY, COLUMNS, ONE, TWO, MysqlLab, read, target, write

#: What jobber's account needs on its database, and no more.
RIGHTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX"


def as_account(lab: MysqlLab, rights: str) -> ResultsSettings:
    """Return the settings of an account with those rights on the database and no others."""
    name = f"jobber_{lab.database}"
    lab.query(f"CREATE USER {name} IDENTIFIED BY 'hunter2'")
    lab.query(f"GRANT {rights} ON {lab.database}.* TO {name}")
    url = make_url(lab.settings.url).set(username=name, password="hunter2")
    return replace(lab.settings, url=url.render_as_string(hide_password=False))


@pytest.fixture
def account(my: MysqlLab) -> Iterator[str]:
    yield f"jobber_{my.database}"
    my.query(f"DROP USER jobber_{my.database}")


@pytest.mark.parametrize("rows", [TWO, BULKY], ids=["small", "bulky"])
def test_an_account_with_rights_on_its_database_alone_is_enough(my: MysqlLab, account: str, rows: list[Row]) -> None:
    backend = MysqlResults(as_account(my, RIGHTS))
    write(backend, target(run=1), ONE)
    with backend.begin(target(run=2), COLUMNS, Cancellation()) as overtaken:
        overtaken.write_batch(BULKY)
        # Ends a connection of the same account, for which no right is needed.
        write(backend, target(run=2, attempt=2), rows)
    assert read(backend, 2) == rows
    assert my.tables() == {"results_a"}
    backend.close()


def test_a_value_is_named_though_the_server_keeps_no_warnings_and_the_account_may_not_ask_for_them(
    my: MysqlLab, account: str
) -> None:
    columns = [*COLUMNS, Column("n", Kind.NUMERIC)]
    too_fine = "0." + "1" * 31
    my.query("SET GLOBAL max_error_count = 0")
    try:
        backend = MysqlResults(as_account(my, RIGHTS))
        with pytest.raises(ValueNotRepresentable, match=f'"n" cannot hold "{too_fine}"'):
            write(backend, target(), [(1, "x", "1"), (2, "y", too_fine)], columns)
        backend.close()
    finally:
        my.query("SET GLOBAL max_error_count = 64")


@pytest.mark.parametrize("rights", ["SELECT", "SELECT, INSERT, UPDATE, DELETE"])
def test_missing_rights_are_told_in_the_servers_words_without_account_and_host(
    my: MysqlLab, account: str, rights: str
) -> None:
    backend = MysqlResults(as_account(my, rights))
    with pytest.raises(ResultsFailed, match="CREATE command denied to jobber's account") as caught:
        write(backend, target(), ONE)
    assert not caught.value.retryable
    for secret in (account, "hunter2", "127.0.0.1", "localhost"):
        assert secret not in caught.value.message
    backend.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "wrong"}, "access denied"),
        ({"database": "no_such_database"}, "(no such database|no right to this database)"),
    ],
)
def test_a_login_that_fails_is_told_without_naming_anybody(
    my: MysqlLab, account: str, changes: dict[str, str], said: str
) -> None:
    settings = as_account(my, RIGHTS)
    url = make_url(settings.url).set(**changes)  # type: ignore[arg-type]
    backend = MysqlResults(replace(settings, url=url.render_as_string(hide_password=False)))
    with pytest.raises(ResultsUnavailable, match=said) as caught:
        backend.prepare()
    assert account not in caught.value.message
    assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize(
    ("is_mariadb", "version"), [(True, (10, 2, 44)), (False, (8, 0, 22)), (False, (5, 7, 44))], ids=str
)
def test_a_server_without_invisible_columns_is_refused(
    my: MysqlLab, monkeypatch: pytest.MonkeyPatch, is_mariadb: bool, version: tuple[int, ...]
) -> None:
    words = "-MariaDB" if is_mariadb else ""
    connect = pool.connect

    def older(*given: object, **named: object) -> Connection:
        connection = connect(*given, **named)  # type: ignore[arg-type]
        connection.server_version = ".".join(map(str, version)) + words
        return connection

    monkeypatch.setattr(pool, "connect", older)
    with pytest.raises(ResultsFailed, match=r"MariaDB 10\.3 and MySQL 8\.0\.23") as caught:
        MysqlResults(my.settings).prepare()
    assert not caught.value.retryable


def test_a_server_that_became_read_only_keeps_what_it_has(my: MysqlLab, account: str) -> None:
    backend = MysqlResults(as_account(my, RIGHTS))
    write(backend, target(run=1), ONE)
    my.query("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(ResultsUnavailable, match="read-only") as caught:
            write(backend, target(run=2), TWO)
        assert caught.value.retryable
        assert read(backend, 1) == ONE
    finally:
        my.query("SET GLOBAL read_only = 0")
    backend.close()

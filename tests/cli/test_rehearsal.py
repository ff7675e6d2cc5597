"""The trial of a results database by ``jobber check``: it finds missing rights, and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, make_url

from jobber.cli.rehearsal import rehearse
from jobber.config import ResultsSettings
from jobber.errors import ResultsFailed
from jobber.results import open_results
from tests.servers import MariaDB

#: What operations.md says.
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "INDEX", "DROP")


def try_out(url: str) -> None:
    backend = open_results(ResultsSettings(name="main", url=url, engine=make_url(url).get_backend_name()))
    try:
        rehearse(backend)
    finally:
        backend.close()


@pytest.mark.parametrize("engine", ["postgres", "mariadb"])
def test_a_trial_leaves_the_ledger_alone(engine: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(f"{engine}_url")
    for _ in range(2):
        try_out(url)
    server = create_engine(url)
    assert inspect(server).get_table_names() == ["jobber_ledger"]
    server.dispose()


def test_a_trial_leaves_no_file_of_a_result(tmp_path: Path) -> None:
    try_out(f"sqlite:///{tmp_path}")
    assert not [path.name for path in tmp_path.rglob("*results*")]


@pytest.fixture
def account(mariadb: MariaDB, mariadb_url: str) -> Iterator[str]:
    """URL of an account without any right."""
    url = make_url(mariadb_url)
    mariadb.execute(f"CREATE USER trial_{url.database} IDENTIFIED BY 'hunter2'")
    yield url.set(username=f"trial_{url.database}", password="hunter2").render_as_string(hide_password=False)
    mariadb.execute(f"DROP USER trial_{url.database}")


@pytest.mark.parametrize("missing", ["", "UPDATE", "CREATE", "ALTER", "DROP"])
def test_a_missing_right_is_named(mariadb: MariaDB, account: str, missing: str) -> None:
    url = make_url(account)
    rights = ", ".join(right for right in RIGHTS if right != missing)
    mariadb.execute(f"GRANT {rights} ON {url.database}.* TO {url.username}")
    if not missing:
        try_out(account)
        return
    with pytest.raises(ResultsFailed, match=f"{missing} command denied"):
        try_out(account)

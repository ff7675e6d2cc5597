"""Results on PostgreSQL under the rights and defaults that a database gives."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.errors import ResultsFailed
from jobber.results.postgresql import PostgresResults
from tests.results.conftest import (
    BULKY,
    COLUMNS,
    ONE,
    TWO,
    postgres_lab,
    read,
    settings_for,
    target,
    write,
)
from tests.servers import Postgres, wait_until


def test_roles_of_grant_select_to_may_read_every_published_result(postgres: Postgres) -> None:
    role = 'weird "role" %s'
    postgres.execute('CREATE ROLE "weird ""role"" %s" LOGIN')
    with contextmanager(postgres_lab)(postgres, grant_select_to=(role,)) as lab:
        lab.query(f'GRANT USAGE ON SCHEMA {lab.schema} TO "weird ""role"" %s"')
        slow = lab.another(segment_seconds=0.01)
        write(lab.backend, target("results_small"), ONE)
        with slow.begin(target("results_slow"), COLUMNS, Cancellation()) as writer:
            for count in (1, 2):
                writer.write_batch(BULKY)
                wait_until(lambda n=count + 1: len(lab.tables()) == n)
            writer.publish()
        with lab.connect(user=role) as connection:
            assert connection.execute("SELECT * FROM results_small").fetchall() == ONE
            assert connection.execute("SELECT count(*) FROM results_slow").fetchall() == [(8,)]


def test_a_role_that_does_not_exist_is_named(postgres: Postgres) -> None:
    with contextmanager(postgres_lab)(postgres, grant_select_to=("no such role",)) as lab:
        with pytest.raises(ResultsFailed, match='role "no such role" does not exist') as caught:
            write(lab.backend, target(), ONE)
        assert not caught.value.retryable
        assert lab.tables() == set()


def test_missing_rights_are_told_in_the_servers_words(postgres: Postgres) -> None:
    name = postgres.new_database()
    postgres.execute("CREATE ROLE powerless LOGIN")
    backend = PostgresResults(settings_for(postgres, name, "powerless"))
    with pytest.raises(ResultsFailed, match="permission denied for schema public") as caught:
        write(backend, target(), ONE)
    assert not caught.value.retryable
    backend.close()
    postgres.drop_database(name)


def test_a_database_without_a_schema_to_use_is_told_so(postgres: Postgres) -> None:
    url = f"{postgres.url('postgres')}?options=-csearch_path%3Dnowhere"
    backend = PostgresResults(ResultsSettings(name="main", url=url, engine="postgresql"))
    with pytest.raises(ResultsFailed, match="search_path"):
        backend.prepare()
    backend.close()


def test_a_read_only_database_fails_clearly_and_keeps_what_it_has(postgres: Postgres) -> None:
    name = postgres.new_database()
    first = PostgresResults(settings_for(postgres, name))
    write(first, target(run=1), ONE)
    first.close()
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    second = PostgresResults(settings_for(postgres, name))
    with pytest.raises(ResultsFailed, match="read-only transaction") as caught:
        write(second, target(run=2), TWO)
    assert caught.value.retryable
    assert read(second, 1) == ONE
    second.close()
    postgres.drop_database(name)


def test_defaults_of_the_database_change_no_value(postgres: Postgres) -> None:
    name = postgres.new_database()
    for setting in (
        "datestyle = 'German'",
        "timezone = 'Asia/Tokyo'",
        "default_transaction_isolation = 'serializable'",
    ):
        postgres.execute(f"ALTER DATABASE {name} SET {setting}")
    backend = PostgresResults(settings_for(postgres, name))
    columns = [Column("d", Kind.DATE), Column("t", Kind.TIMESTAMP)]
    rows: list[Row] = [
        ("2024-03-04", "2024-03-04 05:06:07.8"),
        ("infinity", "-infinity"),
        ("0044-03-15 BC", "0044-03-15 12:00:00 BC"),
        ("12345-01-01", "12345-01-01 00:00:00"),
    ]
    write(backend, target(), rows, columns)
    assert read(backend, 1, columns) == rows
    backend.close()
    postgres.drop_database(name)

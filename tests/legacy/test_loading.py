"""Files of every version of the peers load as they are, and each key means what it meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from jobber import tasks
from jobber.config import Settings, load
from jobber.errors import ConfigError
from tests.legacy import FOLDERS, HERE, REFUSED


def loaded(folder: str) -> Settings:
    return load(HERE / folder / "config.toml", {})


@pytest.mark.parametrize("folder", FOLDERS)
def test_config_and_tasks_load_unchanged(folder: str) -> None:
    settings = loaded(folder)
    assert settings.broker.url.startswith("redis://")
    assert settings.broker.key_prefix == "jobber:"
    assert settings.state.url == next(iter(settings.results.values())).url
    assert any(warning.startswith("job_queue.state is Redis") for warning in settings.warnings)
    assert not any("secret" in warning for warning in settings.warnings)
    assert "entries_of" in tasks.load([HERE / folder / "sql"], settings)


def test_one_of_the_first_versions_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(REFUSED)
    results, database = caught.value.details["problems"]
    assert results.startswith("result_backend.type: results are tables in PostgreSQL, MySQL or SQLite files here")
    assert "[results.my_results]" in results
    assert database.startswith("db: an address is one text here")
    assert "[db.my_db]" in database


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        ("sql-jobber-viper", "redis://localhost:6379/1"),
        ("sql-jobber-koanf", "redis://:secret@localhost:6379/1"),
        ("dungbeetle-1", "redis://:@localhost:6379/1"),
        ("dungbeetle-2-preview", "redis://localhost:6379/1"),
        ("dungbeetle-2-mysql", "redis://localhost:6379/2"),
    ],
)
def test_their_redis_is_the_broker(folder: str, url: str) -> None:
    assert loaded(folder).broker.url == url


def test_limits_of_the_address_become_those_of_the_queries() -> None:
    assert loaded("sql-jobber-viper").databases["shop"].timeout == 60
    assert loaded("sql-jobber-koanf").databases["shop"].timeout == 90
    assert loaded("dungbeetle-1").databases["shop"].timeout == 3600


def test_what_only_gos_drivers_know_is_said_as_the_servers_understand_it() -> None:
    shop = make_url(loaded("sql-jobber-koanf").databases["shop"].url)
    assert dict(shop.query) == {
        "sslmode": "disable",
        "options": "-c search_path=public -c statement_timeout=90s",
    }
    mysql = make_url(loaded("sql-jobber-viper").databases["shop"].url)
    assert dict(mysql.query) == {"init_command": "SET max_execution_time = 60000"}
    assert dict(make_url(loaded("dungbeetle-2-postgresql").results["cache"].url).query) == {"sslmode": "disable"}


def test_no_limit_of_connections_or_of_time_is_the_default_here() -> None:
    settings = loaded("sql-jobber-koanf")
    assert (settings.results["first"].pool_size, settings.results["first"].connect_timeout) == (0, 10)
    assert settings.databases["shop"].pool_size == 1000
    assert "db.shop.max_active: 2000 connections are 1000 here" in settings.warnings
    assert loaded("dungbeetle-1").databases["shop"].connect_timeout == 90


def test_unlogged_counts_where_it_counted() -> None:
    settings = loaded("sql-jobber-koanf")
    assert [results.unlogged for results in settings.results.values()] == [False, True]
    assert "results.first.unlogged: ignored; it is a matter of PostgreSQL" in settings.warnings


def test_the_default_queue_of_machinery_stays_the_default_queue() -> None:
    assert loaded("sql-jobber-viper").app.default_queue == "reports"


def test_tags_mean_what_they_meant() -> None:
    found = {folder: tasks.load([HERE / folder / "sql"], loaded(folder)) for folder in FOLDERS}
    task = found["sql-jobber-koanf"]["entries_of"]
    assert (task.databases, task.results, task.queue) == (("shop",), ("first", "second"), "low_priority")
    assert "only one of the users" in task.sql
    assert found["sql-jobber-viper"]["totals"].raw
    assert found["dungbeetle-1"]["entries_of"].databases == ("shop", "replica")
    assert set(found["dungbeetle-1"]) == {"entries_of", "totals-of-user"}
    assert found["dungbeetle-2-postgresql"]["entries_of"].concurrency == 5
    assert found["dungbeetle-2-postgresql"]["totals"].queue == "summarise"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("worker-concurrency = 5\n", "worker-concurrency: is an option of the command line: --worker-concurrency"),
        ("[machinery]\nbroker_adress = 'redis://h'\n", "machinery.broker_adress: there is no such key"),
        (
            "[machinery]\nbroker_address = 'kafka://h'\n[job_queue.state]\nurl = 'sqlite:////tmp/s.db'\n",
            "machinery.broker_address (job_queue.broker.url): names a broker that is not supported",
        ),
        (
            "[results.r]\nurl = 'sqlite:////tmp/r'\n[machinery]\nbroker_address = 'redis://h'\nstate_address = 'redis://h'\n",
            "job_queue.state: the broker is shared over the network, but the state of jobs would be a file",
        ),
        (
            "[db.b]\ntype = 'mysql'\nhost = 'h'\nport = 3306\nname = 'd'\nusername = 'u'\npassword = 'secret'\n",
            "db.b: an address is one text here",
        ),
    ],
)
def test_what_cannot_be_had_is_named_as_it_was_written(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text + "[db.a]\nurl = 'postgresql://h/d'\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    [found] = caught.value.details["problems"]
    assert found.startswith(problem)
    assert "secret" not in caught.value.message


def test_variables_of_the_peers_are_said_not_to_be_read() -> None:
    environ = {"SQL_JOBBER__DB__SHOP__DSN": "secret", "DUNG_BEETLE_QUEUE": "x", "PATH": "/bin"}
    settings = load(HERE / "dungbeetle-1" / "config.toml", environ)
    assert settings.warnings[0] == (
        "DUNG_BEETLE_QUEUE, SQL_JOBBER__DB__SHOP__DSN: not read; the variables of jobber begin with JOBBER_"
    )


def test_the_environment_stands_over_older_sections_too() -> None:
    environ = {"JOBBER_JOB_QUEUE__BROKER__URL": "redis://other/3", "JOBBER_DB__SHOP__DSN": "host=h dbname=d"}
    settings = load(HERE / "dungbeetle-2-preview" / "config.toml", environ)
    assert settings.broker.url == "redis://other/3"
    assert make_url(settings.databases["shop"].url).host == "h"

"""Files of the older programs load unchanged."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from tests.config.conftest import DB, Loading

_REDIS = """type = "redis"
addresses = ["localhost:6379"]
password = ""
db = 1
max_active = 50
max_idle = 20
dial_timeout = "1s"
read_timeout = "1s"
write_timeout = "1s"
"""
_LEGACY = f"""[app]
log_level = "INFO"
default_job_ttl = "60s"
[job_queue.broker]
{_REDIS}
[job_queue.state]
{_REDIS}
expiry = "30s"
meta_expiry = "3600s"
[results.my_results]
type = "postgres"
dsn = "postgres://user:password@host:5432/dbname?sslmode=disable"
max_idle = 10
max_active = 100
connect_timeout = "10s"
results_table = "results_%s"
[db.my_db]
type = "postgres"
dsn = "host=db.example port=5433 user=u password=p@ss dbname=shop sslmode=disable"
max_idle = 10
max_active = 0
connect_timeout = "10s"
"""


def test_a_file_of_the_older_programs_loads_unchanged(loading: Loading) -> None:
    settings = loading(_LEGACY)
    assert settings.broker.url == "redis://localhost:6379/1"
    assert settings.app.log_level == "info"
    results = "postgresql+psycopg://user:password@host:5432/dbname?sslmode=disable"
    assert settings.results["my_results"].url == settings.state.url == results
    assert not settings.state.embedded
    assert (settings.results["my_results"].pool_size, settings.databases["my_db"].pool_size) == (100, 0)
    source = make_url(settings.databases["my_db"].url)
    assert (source.host, source.port, source.username, source.password) == ("db.example", 5433, "u", "p@ss")
    assert (source.database, dict(source.query)) == ("shop", {"sslmode": "disable"})
    told = [warning.partition(": ")[0] for warning in settings.warnings]
    assert told == [
        "default_job_ttl of app",
        "max_active, max_idle, dial_timeout, read_timeout, write_timeout of job_queue.broker, job_queue.state",
        "expiry, meta_expiry of job_queue.state",
        "max_idle of db.my_db, results.my_results",
        "job_queue.state is Redis",
    ]
    assert "goes to results.my_results instead" in settings.warnings[-1]
    assert all(": ignored; " in warning for warning in settings.warnings[:-1])


def test_todays_pool_size_stands_over_the_older_key(loading: Loading) -> None:
    assert loading(DB + "max_active = 50\npool_size = 5\n").databases["my_db"].pool_size == 5


def test_redis_state_without_a_results_database_that_takes_it_is_refused(loading: Loading) -> None:
    [problem] = loading.problems(DB + f"[job_queue.broker]\n{_REDIS}[job_queue.state]\n{_REDIS}")
    assert problem.startswith("job_queue.state: the broker is shared over the network")


@pytest.mark.parametrize("addresses", ['["a:1", "b:2"]', "[]", '["localhost"]', '["a:1/x"]'])
def test_redis_needs_one_address(loading: Loading, addresses: str) -> None:
    text = DB + f"[job_queue.broker]\naddresses = {addresses}\n[job_queue.state]\nurl = 'postgresql://h/s'"
    [problem] = loading.problems(text)
    assert problem.startswith("job_queue.broker.addresses: must ")


def test_a_redis_password_may_hold_anything(loading: Loading) -> None:
    text = "[job_queue.broker]\naddresses = ['h:1']\npassword = 'a@:/#%'\n[job_queue.state]\nurl = 'postgresql://h/s'\n"
    assert loading(DB + text).broker.url == "redis://:a%40%3A%2F%23%25@h:1/0"


def test_redis_state_goes_to_mysql_where_that_is_the_first_shared_results_database(loading: Loading) -> None:
    text = DB + "[results.files]\nurl = 'sqlite:////tmp/r'\n[results.main]\ntype = 'mysql'\ndsn = 'u:p@tcp(h:3306)/r'\n"
    settings = loading(text + f"[job_queue.broker]\n{_REDIS}[job_queue.state]\n{_REDIS}")
    assert settings.state.url == settings.results["main"].url == "mysql+pymysql://u:p@h:3306/r"
    assert any("the state of jobs goes to results.main instead" in warning for warning in settings.warnings)


def test_a_timeout_of_a_mysql_dsn_is_that_of_connecting_unless_the_section_says_another(loading: Loading) -> None:
    dsn = "[db.a]\ntype = 'mysql'\ndsn = 'u:p@tcp(h)/d?timeout=2500ms'\n"
    assert loading(dsn).databases["a"].connect_timeout == 3
    assert loading(dsn + "connect_timeout = '7s'").databases["a"].connect_timeout == 7


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("[db.a]\ntype = 'mysql'\ndsn = 'u:p@tcp(h)/d'\n", {"JOBBER_DB__A__URL": "postgresql://h/other"}),
        ("[db.a]\nurl = 'mysql://h/d'\n", {"JOBBER_DB__A__DSN": "host=h dbname=other"}),
    ],
)
def test_an_address_in_the_environment_takes_the_place_of_either_form_in_the_file(
    loading: Loading, text: str, variable: dict[str, str]
) -> None:
    assert loading(text, variable).databases["a"].url == "postgresql+psycopg://h/other"
    [problem] = loading.problems(text, variable | {"JOBBER_DB__A__URL": "x://h/1", "JOBBER_DB__A__DSN": "host=h"})
    assert problem == "JOBBER_DB__A__DSN (db.a.dsn): stands beside url; write one of them"

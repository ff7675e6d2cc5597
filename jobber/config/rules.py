"""Rules between settings: each of the values is fine on its own, together they are not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from sqlalchemy import make_url

from jobber.config import mysql
from jobber.config.problems import KeyPath
from jobber.config.settings import BrokerSettings, ResultsSettings, Settings
from jobber.jobs import JOB_ID_PATTERN

#: Engines that can keep results and the state of jobs.
OWN_ENGINES = ("postgresql", "mysql", "sqlite")
#: What to do instead of ``grant_select_to`` on MySQL, where a right belongs to a name, whatever table bears it.
_GRANT_ONCE = "; there, GRANT SELECT on the whole database once, and let it hold nothing but results"
_SHOWN = {"postgresql": "PostgreSQL", "mysql": "MySQL", "sqlite": "SQLite"}
#: RabbitMQ's names have 255 bytes; the rest is for queues, and for the mailboxes of workers.
_PREFIX_MAX = 50
#: A host, or all below one; addresses of IPv6 too.
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
#: A template leaves room in 63 bytes for enough of the job ID to recognise it.
TEMPLATE_MAX = 40


def validate(settings: Settings, *, declared: Collection[str] = ("db", "results")) -> Iterator[tuple[KeyPath, str]]:
    """Yield what is wrong: the key, and what to do.

    Parameters:
        settings: what was read, each value valid by itself.
        declared: of ``db`` and ``results``, those that name at least one database, right or wrong.
    """
    app = settings.app
    if app.heartbeat >= app.lease / 2:
        yield (
            ("app", "heartbeat"),
            f"is {app.heartbeat:g} s, but must be less than half of app.lease ({app.lease} s): "
            "one heartbeat may get lost without the worker counting as dead",
        )
    if app.retry_delay_max < app.retry_delay:
        yield ("app", "retry_delay_max"), f"is less than app.retry_delay ({app.retry_delay:g} s)"
    if not JOB_ID_PATTERN.fullmatch(app.default_queue):
        yield ("app", "default_queue"), "names hold letters, digits, _, : and -, at most 100 characters"
    if app.data_dir.exists() and not app.data_dir.is_dir():
        yield ("app", "data_dir"), f"{app.data_dir} is not a folder"
    if not settings.databases and "db" not in declared:
        yield (
            ("db",),
            "there is no database to query; add one:\n"
            "    [db.my_db]\n"
            '    url = "postgresql://user:password@host:5432/database"',
        )
    if not settings.results and "results" not in declared:
        yield ("results",), "is empty; name a results database, [results.NAME], or leave [results] out for SQLite files"
    yield from _broker_rules(settings.broker)
    yield from _telling_rules(settings)
    yield from _state_rules(settings)
    for results in settings.results.values():
        yield from _results_rules(results)
    for name, source in settings.databases.items():
        if problem := _url_problem(source.engine, source.url):
            yield ("db", name, "url"), problem
        if source.engine != "mysql" and source.zero_dates != "fail":
            yield ("db", name, "zero_dates"), f"is a matter of MySQL; this database is {_shown(source.engine)}"


def _broker_rules(broker: BrokerSettings) -> Iterator[tuple[KeyPath, str]]:
    path = ("job_queue", "broker", "key_prefix")
    if broker.rabbitmq and broker.key_prefix.lower().startswith("amq."):
        yield path, "must not begin with amq., which RabbitMQ keeps for itself"
    if broker.rabbitmq and len(broker.key_prefix.encode()) > _PREFIX_MAX:
        yield path, f"is longer than {_PREFIX_MAX} bytes"


def _telling_rules(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    events = settings.events
    if events.enabled and (events.url or settings.broker.url).startswith("filesystem:"):
        yield (
            ("events", "url"),
            "there is no broker that others could listen to: set events.url, or job_queue.broker.url, to a RabbitMQ "
            "or a Redis",
        )
    if not events.exchange or events.exchange.lower().startswith("amq."):
        yield ("events", "exchange"), "must be a name, and not begin with amq., which RabbitMQ keeps for itself"
    for host in settings.webhooks.allow:
        if not _HOST.fullmatch(host):
            yield ("webhooks", "allow"), f"{host!r} must be a host alone, such as hooks.example.com or *.example.com"


def _state_rules(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    path = ("job_queue", "state", "url")
    url = make_url(settings.state.url)
    engine = url.get_backend_name()
    if settings.state.embedded and settings.broker.networked:
        yield (
            ("job_queue", "state"),
            "the broker is shared over the network, but the state of jobs would be a file on this machine, and each "
            "machine would have its own truth; set job_queue.state.url to a PostgreSQL or MySQL database that all of "
            "them reach (or to a sqlite:/// URL if there is only this one)",
        )
    elif engine not in OWN_ENGINES:
        yield path, f"{engine} cannot keep the state of jobs; use PostgreSQL, MySQL or SQLite"
    elif problem := _url_problem(engine, settings.state.url):
        yield path, problem


def _results_rules(results: ResultsSettings) -> Iterator[tuple[KeyPath, str]]:
    path = ("results", results.name)
    template = results.results_table
    if template.count("%s") != 1:
        yield (*path, "results_table"), "must hold %s, the place of the job ID, exactly once"
    elif template == "%s":
        yield (*path, "results_table"), "must add something to %s, so that no job ID can name a table of others"
    elif not re.fullmatch(r"[A-Za-z0-9_]*%s[A-Za-z0-9_]*", template):
        yield (*path, "results_table"), "may hold A-Z a-z 0-9 _ beside its %s"
    elif template.startswith("jobber_"):
        yield (*path, "results_table"), "must not begin with jobber_, as jobber's own tables do"
    elif len(template) > TEMPLATE_MAX:
        yield (*path, "results_table"), f"is longer than {TEMPLATE_MAX} characters"
    if results.engine not in OWN_ENGINES:
        yield (*path, "url"), f"{results.engine} cannot hold results in this version; use PostgreSQL, MySQL or SQLite"
        return
    if problem := _url_problem(results.engine, results.url, folder=True):
        yield (*path, "url"), problem
    if results.engine != "postgresql":
        problem = f"is a matter of PostgreSQL; this results database is {_shown(results.engine)}"
        if results.unlogged:
            yield (*path, "unlogged"), problem
        if results.grant_select_to:
            yield (*path, "grant_select_to"), problem + (_GRANT_ONCE if results.engine == "mysql" else "")


def _shown(engine: str) -> str:
    return _SHOWN.get(engine, engine)


def _url_problem(engine: str, url: str, *, folder: bool = False) -> str | None:
    """Say what on this machine keeps a URL from being used; whether a server answers there is not asked."""
    if engine == "sqlite":
        return _sqlite_problem(url, folder=folder)
    return mysql.tls_problem(url) if engine == "mysql" else None


def _sqlite_problem(url: str, *, folder: bool) -> str | None:
    """Say what is wrong with the path of a SQLite URL."""
    database = make_url(url).database
    if not database or database == ":memory:" or "mode=memory" in url:
        where = "a folder, such as sqlite:////var/lib/jobber/results" if folder else "a file"
        return f"must name {where}: a database in memory is seen by one process only"
    path = Path(database)
    if folder and ((path.exists() and not path.is_dir()) or path.suffix in {".db", ".sqlite", ".sqlite3"}):
        return "must name a folder: with SQLite every result is a file of its own in it"
    if not folder and path.is_dir():
        return "names a folder; it must name a database file"
    return None

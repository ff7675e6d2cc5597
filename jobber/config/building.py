"""From the valid keys of each section to its dataclass: addresses become URLs, older keys become today's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL

from jobber.config import clickhouse, mysql, postgresql, urls
from jobber.config.problems import KeyPath, Problems
from jobber.config.schemas import POOL_MAX
from jobber.config.settings import (
    DEFAULT_DATA_DIR,
    AppSettings,
    BrokerSettings,
    DatabaseSettings,
    EventSettings,
    LimitSettings,
    ResultsSettings,
    StateSettings,
    WebhookSettings,
)

#: The results database of an instance that configures none.
EMBEDDED_RESULTS = "results"

#: Engines whose results databases can keep the state of jobs for an older file.
STATE_ENGINES = ("postgresql", "mysql")
_ENGINE_OF = {
    **dict.fromkeys(urls.POSTGRESQL_TYPES, "postgresql"),
    **dict.fromkeys(urls.MYSQL_TYPES, "mysql"),
    **dict.fromkeys(urls.CLICKHOUSE_TYPES, clickhouse.ENGINE),
}

S = TypeVar(
    "S",
    AppSettings,
    BrokerSettings,
    DatabaseSettings,
    EventSettings,
    LimitSettings,
    ResultsSettings,
    StateSettings,
    WebhookSettings,
)
Table = Mapping[str, Any]


class Builder:
    """Builds each section; what it cannot build is noted and left out.

    Parameters:
        problems: where problems go.
        warnings: where what is accepted but not obeyed goes.
        broken: sections in which a key is wrong already: what is missing there may be missing for that reason.
    """

    def __init__(self, problems: Problems, warnings: list[str], broken: frozenset[KeyPath]) -> None:
        self._problems = problems
        self._warnings = warnings
        self._broken = broken

    def app(self, table: Table) -> AppSettings:
        """Build ``[app]``; the data folder stays the same when a process changes its working folder."""
        data_dir = Path(table.get("data_dir", DEFAULT_DATA_DIR)).expanduser().absolute()
        return _fill(AppSettings, table, data_dir=data_dir)

    def databases(self, tables: Mapping[str, Table]) -> dict[str, DatabaseSettings]:
        """Build every ``[db.NAME]``."""
        return self._each(DatabaseSettings, "db", tables)

    def all_results(self, tables: Mapping[str, Table]) -> dict[str, ResultsSettings]:
        """Build every ``[results.NAME]``."""
        return self._each(ResultsSettings, "results", tables)

    def _each(self, kind: type[S], section: str, tables: Mapping[str, Table]) -> dict[str, S]:
        return {
            name: _fill(
                kind,
                self._read((section, name), table, url),
                name=name,
                url=_text(url),
                engine=url.get_backend_name(),
            )
            for name, table in tables.items()
            if (url := self.address((section, name), table))
        }

    def embedded_results(self, app: AppSettings) -> dict[str, ResultsSettings]:
        """Build the results database of an instance that configures none: SQLite files in the data folder."""
        folder = URL.create("sqlite", database=str(app.data_dir / EMBEDDED_RESULTS))
        return {EMBEDDED_RESULTS: ResultsSettings(name=EMBEDDED_RESULTS, url=_text(folder), engine="sqlite")}

    def broker(self, table: Table) -> BrokerSettings:
        """Build ``[job_queue.broker]``; with nothing said, the filesystem transport in the data folder."""
        path = ("job_queue", "broker")
        url = "filesystem://"
        try:
            if "url" in table:
                url = urls.broker(table["url"])
                if table.get("password"):
                    url = urls.with_password(url, table["password"])
            elif "type" in table or "addresses" in table:
                url = self._redis(path, table)
        except ValueError as error:
            self._problems.add((*path, "url"), str(error))
        return _fill(BrokerSettings, table, url=url)

    def state(self, table: Table, app: AppSettings, results: Mapping[str, ResultsSettings]) -> StateSettings:
        """Build ``[job_queue.state]``; with nothing said, SQLite in the data folder.

        An older file keeps state in Redis. Here it must be SQL, and such a file names a database that can take it:
        the first one for results.
        """
        path = ("job_queue", "state")
        file = _text(URL.create("sqlite", database=str(app.data_dir / "state.db")))
        if "url" in table:
            url = self._url(path, {key: value for key, value in table.items() if key != "type"})
            return _fill(StateSettings, table, url=_text(url) if url else file)
        if table.get("type", "redis") != "redis":
            self._problems.add((*path, "type"), "is not needed; write url")
        if "type" in table or "addresses" in table:
            for name, backend in results.items():
                if backend.engine in STATE_ENGINES:
                    self._warnings.append(
                        f"job_queue.state is Redis: the state of jobs goes to results.{name} instead, unless "
                        "job_queue.state.url names another database"
                    )
                    return _fill(StateSettings, table, url=backend.url)
        return _fill(StateSettings, table, url=file, embedded=path not in self._broken)

    def limits(self, tables: Mapping[str, Table]) -> dict[str, LimitSettings]:
        """Build every ``[queue.NAME]`` or ``[tenant.NAME]``."""
        return {name: _fill(LimitSettings, table, name=name) for name, table in tables.items()}

    def webhooks(self, table: Table) -> WebhookSettings:
        """Build ``[webhooks]``."""
        webhooks = _fill(WebhookSettings, table)
        try:
            webhooks.key  # noqa: B018  # says whether there is one
        except ValueError:
            self._problems.add(("webhooks", "secret"), "must be base64 after whsec_, or any other text")
        return webhooks

    def events(self, table: Table) -> EventSettings:
        """Build ``[events]``."""
        url = ""
        try:
            url = urls.broker(table["url"]) if table.get("url") else ""
        except ValueError as error:
            self._problems.add(("events", "url"), str(error))
        return _fill(EventSettings, table, url=url)

    def _redis(self, path: KeyPath, table: Table) -> str:
        if table.get("type", "redis") != "redis":
            self._problems.add((*path, "type"), "must be redis; for anything else write url")
        try:
            # Go takes an address without a host for this machine.
            addresses = [re.sub("^:", "localhost:", text) for text in table.get("addresses", ["localhost:6379"])]
            return urls.redis(addresses, table.get("password"), table.get("db", 0))
        except ValueError as error:
            self._problems.add((*path, "addresses"), str(error))
            return "redis://"

    def address(self, path: KeyPath, table: Table) -> URL | None:
        """Return the address of a database, also one that only a driver of Go's would take as it is."""
        dsn, kind = table.get("dsn"), table.get("type")
        if isinstance(dsn, str) and (kind in urls.POSTGRESQL_TYPES or kind is None):
            table = {**table, "dsn": postgresql.without_go(dsn)}
        url = self._url(path, table)
        # Of a section that cannot be ClickHouse's at all, that is to be said, not what to install.
        if url and path[0] == "db" and url.get_backend_name() == clickhouse.ENGINE and (needed := clickhouse.missing()):
            self._problems.add(path, needed)
            return None
        return url

    def _read(self, path: KeyPath, table: Table, url: URL) -> Table:
        """Return a section with what an older file, or the address, says in another way; what it says here counts."""
        said: dict[str, Any] = {}
        if (size := table.get("max_active", 0)) > 0:  # else it is no limit there
            said["pool_size"] = min(size, POOL_MAX)
            if size > POOL_MAX and "pool_size" not in table:
                self._warnings.append(f"{'.'.join((*path, 'max_active'))}: {size} connections are {POOL_MAX} here")
        if url.get_backend_name() in {"mysql", clickhouse.ENGINE} and "connect_timeout" in url.query:
            said["connect_timeout"] = float(str(url.query["connect_timeout"]))
        if limit := time_limit(url):
            said["timeout"] = limit
        said |= {key: value for key, value in table.items() if (key, value) != ("connect_timeout", 0)}
        if said.get("unlogged") and "dsn" in table and url.get_backend_name() != "postgresql":
            self._warnings.append(f"{'.'.join((*path, 'unlogged'))}: ignored; it is a matter of PostgreSQL")
            del said["unlogged"]
        return said

    def _url(self, path: KeyPath, table: Table) -> URL | None:
        """Return the address that ``url``, or ``type`` and ``dsn``, give; None, and a problem noted, if none."""
        kind = table.get("type")
        key = "url" if "url" in table else "dsn"
        if kind is not None and kind not in _ENGINE_OF:
            self._problems.add((*path, "type"), "must be postgres, mysql or clickhouse, or leave it out and write url")
            return None
        if "url" in table and "dsn" in table:
            self._problems.add((*path, "dsn"), "stands beside url; write one of them")
            return None
        if key not in table:
            if path not in self._broken:
                self._problems.add(path, "needs a url, such as postgresql://user:password@host:5432/database")
            return None
        try:
            url = urls.database(table["url"]) if key == "url" else urls.from_dsn(kind, table["dsn"])
        except ValueError as error:
            self._problems.add((*path, key), str(error))
            return None
        if kind is not None and url.get_backend_name() != _ENGINE_OF[kind]:
            self._problems.add((*path, "type"), f"says {kind}, but {key} is of another kind")
            return None
        return url.set(password=table["password"]) if table.get("password") else url


def _fill(kind: type[S], table: Table, **values: Any) -> S:
    """Make a dataclass of the keys that it has; the others keep their defaults."""
    known = {field.name for field in fields(kind)}
    return kind(**({key: value for key, value in table.items() if key in known} | values))


def time_limit(url: URL) -> int | None:
    """Return the limit that an address sets for every query, in whole seconds; None if it sets none."""
    limits = {
        "mysql": mysql.time_limit,
        "postgresql": postgresql.time_limit,
        clickhouse.ENGINE: clickhouse.time_limit,
    }
    limit = limits.get(url.get_backend_name())
    return limit(url) if limit else None


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)

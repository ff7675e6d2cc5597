"""A config file of sql-jobber or dungbeetle, written anew with jobber's own keys; nothing else changes."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from jobber.config import legacy, mysql, tomltext, urls
from jobber.config.building import STATE_ENGINES, Builder
from jobber.config.loading import loads, parse
from jobber.config.problems import Ignored, KeyPath, Problems
from jobber.config.schemas import POOL_MAX, SECTIONS, legacy_keys, why_ignored
from jobber.config.settings import Settings
from jobber.errors import ConfigError

_OF_REDIS_STATE = "the state of jobs is not in Redis here"
_HEAD = """\
# Written by `jobber migrate-config`: the same settings in jobber's own keys. Lines that begin with "# jobber:" are its
# own; the other comments were in the file before. docs/configuration.md explains every key.
"""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What becomes of keys of a section.

    Parameters:
        said: the keys, as they were.
        key: what they are now; None if they are left out.
        value: of ``key``.
        note: what there is to say, a sentence without its end.
    """

    said: tuple[str, ...]
    key: str | None = None
    value: Any = None
    note: str = ""


def migrate(text: str, place: Path, environ: Mapping[str, str]) -> str | None:
    """Return a config file in jobber's own form; None if it is so already.

    Addresses in the environment and in files (``file:…``) stay there.

    Parameters:
        text: of the older file.
        place: the file that messages name.
        environ: as for ``load``.

    Raises:
        ConfigError: the older file is wrong, or the new one would not mean the same in this environment.
    """
    settings = loads(text, place, environ)
    tables = parse(text, place)
    written = _Migration(tables, tomltext.comments(text), settings).text()
    if parse(written, place) == tables:
        return None
    other = loads(written, place, environ)
    if different := [
        part.name
        for part in fields(Settings)
        if part.name != "warnings" and getattr(settings, part.name) != getattr(other, part.name)
    ]:
        raise ConfigError(
            f"{place}: with the variables JOBBER_… of this environment the new file would not mean the same "
            f"({', '.join(different)}); unset those that set older keys (such as ADDRESSES, DSN, TYPE, MAX_ACTIVE) "
            "and write their values into the file first"
        )
    return written


class _Migration:
    """One file on its way."""

    def __init__(self, tables: dict[str, Any], comments: dict[KeyPath, tomltext.Comments], settings: Settings) -> None:
        self._comments = comments
        self._settings = settings
        self._origins: dict[KeyPath, str] = {}
        self._tables = copy.deepcopy(tables)
        self._build = Builder(Problems(None, {}), [], frozenset())
        ignored = Ignored()
        legacy.settle(self._tables, self._origins, Problems(None, {}), ignored)
        self._lines: list[str] = [_HEAD, *(f"# jobber: {line}" for line in ignored.lines())]

    def text(self) -> str:
        """Return the new file."""
        if "app" in self._tables:
            self._section(("app",), self._plain(self._tables["app"], "app"))
        queue = self._tables.get("job_queue", {})
        self._lines += self._take(("machinery",)).lines() + self._take(("job_queue",)).lines()
        if "broker" in queue:
            self._section(("job_queue", "broker"), self._broker(queue["broker"]))
        if "state" in queue:
            self._section(("job_queue", "state"), self._state(queue["state"]))
        for group in ("results", "db"):
            self._lines += self._take((group,)).lines()
            for name, table in self._tables.get(group, {}).items():
                self._section((group, name), self._database((group, name), table))
        for group in ("queue", "tenant"):
            self._lines += self._take((group,)).lines()
            for name, table in self._tables.get(group, {}).items():
                self._section((group, name), self._plain(table, f"{group}.NAME"))
        for section in ("webhooks", "events"):
            if section in self._tables:
                self._section((section,), self._plain(self._tables[section], section))
        # What stood at sections that are gone, and at the end.
        self._comments[()] = self._comments.pop((), tomltext.Comments())
        self._lines += [line for found in self._comments.values() for line in found.lines()]
        return "\n".join(self._lines).rstrip() + "\n"

    def _section(self, path: KeyPath, entries: Iterator[_Entry]) -> None:
        found = self._take(path)
        self._lines += [*found.above, _with_comment(tomltext.heading(path), found.beside)]
        left_out: dict[str, list[str]] = {}
        comments: dict[str, list[str]] = {}
        for entry in entries:
            texts = [self._take(self._origin(path, key)) for key in entry.said]
            if entry.key is None:
                left_out.setdefault(entry.note, []).extend(entry.said)
                comments.setdefault(entry.note, []).extend(line for text in texts for line in text.lines())
                continue
            self._lines += [line for text in texts for line in text.above]
            if entry.note:
                self._lines.append(f"# jobber: {entry.note}")
            beside = " ".join(text.beside for text in texts if text.beside)
            self._lines.append(_with_comment(f"{entry.key} = {tomltext.value(entry.value)}", beside))
        for why, keys in left_out.items():
            if keys:
                self._lines += [*comments[why], f"# jobber: {', '.join(keys)} left out; {why}"]
        self._lines += [*found.below, ""]

    # -- what becomes of each key --------------------------------------------------------------------------------------

    def _plain(self, table: Mapping[str, Any], kind: str) -> Iterator[_Entry]:
        schema = SECTIONS[kind]
        fates = legacy_keys(schema)
        for key, value in table.items():
            if fates.get(key) == "ignored":
                yield _Entry((key,), note=why_ignored(schema, key))
            else:
                yield _Entry((key,), key, value)

    def _broker(self, table: Mapping[str, Any]) -> Iterator[_Entry]:
        rest = self._plain({key: value for key, value in table.items() if key not in _PARTS}, "job_queue.broker")
        if "url" in table or not {"type", "addresses"} & table.keys():
            yield from rest
            return
        parts = {key: table[key] for key in (*_PARTS, "password") if key in table}
        if parts.get("password", "").startswith("file:"):
            del parts["password"]  # stays where it is, and stands over the url
        yield _Entry(tuple(parts), "url", self._build.broker(parts).url)
        for entry in rest:
            if entry.key != "password" or "password" not in parts:
                yield entry

    def _state(self, table: Mapping[str, Any]) -> Iterator[_Entry]:
        if "url" in table or not {"type", "addresses"} & table.keys():
            yield from self._plain({key: value for key, value in table.items() if key not in _PARTS}, "job_queue.state")
            return
        name = next((name for name, found in self._settings.results.items() if found.engine in STATE_ENGINES), None)
        results = self._tables.get("results", {}).get(name, {})
        address = self._address(("results", str(name)), results)
        if address and name and self._is_used(name, address, results):
            note = f"the database of results.{name}; any PostgreSQL or MySQL that all instances reach will do"
            yield _Entry(("type",), "url", address, note)
            if "password" in results:
                yield _Entry((), "password", results["password"])
        elif name:
            note = f"state goes to results.{name} as before, whose address is not in this file"
            yield _Entry(("type",), "type", "redis", note)
        gone = tuple(key for key in ("addresses", "password", "db") if key in table)
        yield _Entry(gone, note=_OF_REDIS_STATE)
        yield from self._plain(
            {key: value for key, value in table.items() if key not in (*_PARTS, "password")}, "job_queue.state"
        )

    def _database(self, path: KeyPath, table: Mapping[str, Any]) -> Iterator[_Entry]:
        schema = SECTIONS[f"{path[0]}.NAME"]
        fates = legacy_keys(schema)
        address = self._address(path, table)
        for key, value in table.items():
            match key:
                case "type" if address:
                    pass  # said by the url
                case "dsn" if address:
                    yield _Entry(("type", "dsn"), "url", address)
                case "max_active" if "pool_size" in table:
                    yield _Entry((key,), note="pool_size stands over it")
                case "max_active" if value <= 0:
                    yield _Entry(
                        (key,),
                        note="there is always a limit here, pool_size; by default as many as a process runs jobs",
                    )
                case "max_active":
                    yield _Entry((key,), "pool_size", min(value, POOL_MAX))
                case "connect_timeout" if value == 0:
                    yield _Entry((key,), note="0 was no limit; the default is 10s")
                case "unlogged" if address and not address.startswith("postgresql"):
                    yield _Entry((key,), note="it is a matter of PostgreSQL")
                case _ if fates.get(key) == "ignored":
                    yield _Entry((key,), note=why_ignored(schema, key))
                case _:
                    yield _Entry((key,), key, value)

    def _address(self, path: KeyPath, table: Mapping[str, Any]) -> str | None:
        """Return the address of a database as a URL that users write; None if it is not in the file."""
        text = table.get("url", table.get("dsn"))
        if text is None or text.startswith("file:"):
            return None
        if "url" in table:
            return str(text)
        url = self._build.address(path, {key: table[key] for key in ("type", "dsn") if key in table})
        assert url is not None  # the file was loaded before  # noqa: S101
        if url.get_backend_name() == "mysql" and not re.match(r"\w+://(?!.*[)]/)", text):
            url = mysql.go_url(text)  # with the options as they are documented
        if url.get_backend_name() in STATE_ENGINES:
            url = url.set(drivername=url.get_backend_name())
        return url.render_as_string(hide_password=False)

    def _is_used(self, name: str, address: str, table: Mapping[str, Any]) -> bool:
        """Whether a results database has this address, and not another one from the environment."""
        url, used = urls.database(address), make_url(self._settings.results[name].url)
        return (url.set(password=used.password) if "password" in table else url) == used

    # -- comments ------------------------------------------------------------------------------------------------------

    def _origin(self, path: KeyPath, key: str) -> KeyPath:
        before = self._origins.get((*path, key))
        return tuple(before.split(".")) if before else (*path, key)

    def _take(self, path: KeyPath) -> tomltext.Comments:
        return self._comments.pop(path, tomltext.Comments())


#: What older files say of Redis instead of a url.
_PARTS = ("type", "addresses", "db")


def _with_comment(line: str, comment: str) -> str:
    return f"{line}  {comment}" if comment else line

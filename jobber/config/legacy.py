"""Files of sql-jobber and dungbeetle before version 2: what they say in other sections goes to where it is said today.

Keys that only got another meaning are in ``schemas``; the forms of Go's addresses in ``mysql`` and ``postgresql``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobber.config.problems import Ignored, KeyPath, Problems
from jobber.config.schemas import OF_STATE

#: Flags that stood over nothing but a config file, where there was such a key at its top.
FLAGS = frozenset(
    {"server", "sql-directory", "queue", "queue-name", "worker-name", "worker-concurrency", "worker-only"}
)
#: How the variables began that set keys over the file.
_VARIABLES = ("DUNG_BEETLE", "SQL_JOBBER")
#: Keys of the very first database sections, and of no others.
_PARTS = ("host", "port", "username")

Tables = dict[str, Any]


def settle(tables: Tables, origins: dict[KeyPath, str], problems: Problems, ignored: Ignored) -> None:
    """Move what stands in older sections, in place; what stands in today's sections already counts.

    Parameters:
        tables: of the whole file.
        origins: gets the older key of each one that is moved, so that messages name what the user wrote.
        problems: gets what cannot be had here.
        ignored: gets what means nothing here.

    Raises:
        ConfigError: the file is of the first versions, so that hardly any of it means something here.
    """
    _refuse_first_versions(tables, problems)
    queue = tables.get("job_queue", {})
    moved = []
    if isinstance(machinery := tables.pop("machinery", {}), dict):
        moved.append(("machinery", machinery))
    if isinstance(queue, dict):
        moved.append(("job_queue", {key: queue.pop(key) for key in _BEFORE_2 if key in queue}))
    for section, table in moved:
        for key, value in table.items():
            if key not in _TO:
                problems.add((section, key), "there is no such key")
            elif (target := _TO[key]) is None:
                ignored.add((section, key), OF_STATE)
            else:
                _move(tables, target, value, origins, f"{section}.{key}")
    for key in tables.pop("result_backend", {}):
        ignored.add(("result_backend", key), OF_STATE)


#: Keys of ``[machinery]``, and of ``[job_queue]`` itself for a short while, and where their values belong.
_TO: Mapping[str, KeyPath | None] = {
    "broker_address": ("job_queue", "broker", "url"),
    "state_address": ("job_queue", "state", "type"),
    "queue": ("app", "default_queue"),
    "state_ttl": None,
}
_BEFORE_2 = ("broker_address", "state_address", "state_ttl")


def _move(tables: Tables, target: KeyPath, value: Any, origins: dict[KeyPath, str], origin: str) -> None:
    table = tables
    for part in target[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            return  # the check of the sections says so
    if "url" in table or target[-1] in table:
        return
    if target[-1] == "url":
        value = broker_url(value)
    table[target[-1]] = "redis" if target[-1] == "type" else value
    origins[target] = origin


def broker_url(address: Any) -> Any:
    """Return an address of Machinery's as a URL: what stands alone before the @ is the password."""
    if not isinstance(address, str):
        return address
    return re.sub(r"^(rediss?://|redis\+socket://)([^:@/]+)@", r"\1:\2@", address)


def unread_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names of variables that set keys of older versions."""
    return sorted(name for name in environ if name.startswith(_VARIABLES))


def _refuse_first_versions(tables: Tables, problems: Problems) -> None:
    """Note, and raise, what there is no place for here: results in rediSQL, databases without an address."""
    backend = tables.get("result_backend")
    if isinstance(backend, dict) and "type" in backend:
        problems.add(
            ("result_backend", "type"),
            "results are tables in PostgreSQL, MySQL or SQLite files here; write instead of this section\n"
            "    [results.my_results]\n"
            '    url = "postgresql://user:password@host:5432/results"',
        )
    databases = tables.get("db")
    if isinstance(databases, dict):
        flat = {"my_db": databases} if _in_parts(databases) else databases
        for name, table in flat.items():
            if isinstance(table, dict) and _in_parts(table):
                problems.add(
                    ("db",) if flat is not databases else ("db", name),
                    "an address is one text here; write instead of host, port, name, username and password\n"
                    f"    [db.{name}]\n"
                    '    url = "mysql://user:password@host:3306/database"',
                )
    problems.raise_if_any()


def _in_parts(table: Mapping[str, Any]) -> bool:
    return any(part in table and not isinstance(table[part], dict) for part in _PARTS)

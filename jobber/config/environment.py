"""Environment variables over the config file: ``JOBBER_DB__MY_DB__URL`` is the key ``db.my_db.url``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobber.config.problems import KeyPath, nearest
from jobber.config.schemas import SECTIONS, FromEnvironment

PREFIX = "JOBBER_"
_SEPARATOR = "__"
#: What an address in the environment takes the place of in the file.
_INSTEAD = {"url": ("dsn", "type"), "dsn": ("url",)}


def overlay(tables: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[KeyPath, str], list[str]]:
    """Put the values of the environment into ``tables``, in place.

    Names are matched without regard to case, and ``_`` also stands for ``-`` and ``.``; a database that the file
    does not name is created, in lower case. Variables without ``__`` are somebody else's.

    Returns:
        The variable of each key that came from one, and what is wrong with other variables.
    """
    origins: dict[KeyPath, str] = {}
    problems: list[str] = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or _SEPARATOR not in variable:
            continue
        path = _path(variable, tables)
        if isinstance(path, str):
            problems.append(f"{variable}: {path}")
            continue
        if path in origins:
            problems.append(f"{variable}: {'.'.join(path)} is set by {origins[path]} already")
            continue
        table = tables
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                break  # the file has a plain value there; the check of the sections says so
        else:
            table[path[-1]] = FromEnvironment(environ[variable])
            origins[path] = variable
            for other in _INSTEAD.get(path[-1], ()):
                if (*path[:-1], other) not in origins:
                    table.pop(other, None)
    return origins, problems


def _path(variable: str, tables: Mapping[str, Any]) -> KeyPath | str:
    """Return the key that ``variable`` sets, or what is wrong with its name."""
    parts = variable.removeprefix(PREFIX).lower().split(_SEPARATOR)
    section, names, key = parts[0], parts[1:-1], parts[-1]
    if section in {"db", "results"}:
        name = _SEPARATOR.join(names)
        if not name:
            return f"names no database; write {PREFIX}{section.upper()}{_SEPARATOR}NAME{_SEPARATOR}KEY"
        known = tables.get(section, {})
        matching = [found for found in known if _folded(found) == name] if isinstance(known, dict) else []
        if len(matching) > 1:
            return f"could mean each of {', '.join(matching)}"
        return (section, matching[0] if matching else name, key)
    if (where := ".".join([section, *names])) in SECTIONS:
        return (section, *names, key)
    return f"there is no section {where}{nearest(where, SECTIONS)}"


def _folded(name: str) -> str:
    return re.sub(r"[.-]", "_", name).lower()

"""Addresses of PostgreSQL as Go's drivers take them: what libpq does not know of them is said in its own way.

lib/pq and pgx send every parameter that they do not know to the server, as a setting of the session.
https://pkg.go.dev/github.com/lib/pq#hdr-Connection_String_Parameters
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote

from psycopg.pq import Conninfo
from sqlalchemy import URL

_KNOWN = frozenset(option.keyword.decode() for option in Conninfo.get_defaults())
#: Parameters about the drivers themselves.
_ONLY_GO = frozenset(
    [
        "binary_parameters",
        "default_query_exec_mode",
        "description_cache_capacity",
        "disable_prepared_binary_result",
        "min_protocol_version",
        "max_protocol_version",
        "prefer_simple_protocol",
        "statement_cache_capacity",
        "statement_cache_mode",
    ]
)
_SCHEME = re.compile(r"postgres(?:ql)?://")
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\']|\\.)*)", re.DOTALL)
_SETTING = re.compile(r"[A-Za-z_][\w.]*")
_LIMIT = re.compile(r"-c\s*statement_timeout=([0-9]+)(ms|s|min|h|d)?(?=\s|$)")
_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86_400}

Pairs = list[tuple[str, str]]


def without_go(dsn: str) -> str:
    """Return a DSN, URL or ``key=value``, that means the same to libpq; any other text as it is."""
    if _SCHEME.match(dsn):
        head, mark, tail = dsn.rpartition("?")
        if not mark or not re.match(r"[\w.-]+=", tail):
            return dsn
        pairs = parse_qsl(tail, keep_blank_values=True)
        if all(name in _KNOWN for name, _ in pairs):
            return dsn
        query = "&".join(f"{name}={quote(value, safe='/,')}" for name, value in _for_libpq(pairs))
        return f"{head}?{query}" if query else head
    pairs = [(name, _unquoted(value)) for name, value in _PAIR.findall(dsn)]
    if _PAIR.sub("", dsn).strip() or all(name in _KNOWN for name, _ in pairs):
        return dsn
    return " ".join(f"{name}={_quoted(value)}" for name, value in _for_libpq(pairs))


def time_limit(url: URL) -> int | None:
    """Return the ``statement_timeout`` that a URL sets, in whole seconds; None if it sets none."""
    options = url.query.get("options", "")
    found = _LIMIT.findall(options if isinstance(options, str) else " ".join(options))
    if not found:
        return None
    number, unit = found[-1]
    return math.ceil(int(number) * _UNITS[unit or "ms"]) or None


def _for_libpq(pairs: Iterable[tuple[str, str]]) -> Pairs:
    known: Pairs = []
    settings: list[str] = []
    for name, value in pairs:
        if name == "options":
            settings.insert(0, value)
        elif name in _KNOWN:
            known.append((name, value))
        elif name not in _ONLY_GO and not name.startswith("pool_") and _SETTING.fullmatch(name):
            settings.append(f"-c {name}=" + re.sub(r"([\s\\])", r"\\\1", value))
    return known + ([("options", " ".join(settings))] if settings else [])


def _unquoted(value: str) -> str:
    inner = value[1:-1] if value.startswith("'") else value
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)


def _quoted(value: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"

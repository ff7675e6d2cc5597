"""Addresses of ClickHouse: the DSNs of Go's drivers, and URLs, become one URL for its native protocol.

No message here repeats any part of an address but the name of an option.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import URL

from jobber.config.durations import seconds

ENGINE = "clickhouse"
#: What before ``://`` names ClickHouse and nothing else.
NAMES = frozenset({ENGINE, "clickhouse+native", "clickhouse+http", "clickhouse+https"})
#: What may stand there besides if it is said that this is ClickHouse, as Go's drivers have it.
_NATIVE = frozenset({ENGINE, "clickhouse+native", "tcp", "native"})
_HTTP = frozenset({"http", "https", "clickhouse+http", "clickhouse+https"})

_EXAMPLE = "write it like clickhouse://user:password@host:9000/database"
_PORT, _TLS_PORT = 9000, 9440
_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_FILES = ("ca_certs", "certfile", "keyfile")
#: Options of other drivers, and of this one, that are about themselves or about what jobber does in its own way.
_NOT_HERE = frozenset(
    [
        "block_buffer_size",
        "block_size",
        "compress",
        "compress_level",
        "conn_max_lifetime",
        "connection_open_strategy",
        "debug",
        "input_format_null_as_default",
        "insert_block_size",
        "max_compression_buffer",
        "max_idle_conns",
        "max_open_conns",
        "namedtuple_as_json",
        "no_delay",
        "pool_size",
        "read_timeout",
        "readonly",
        "server_side_params",
        "strings_as_bytes",
        "strings_encoding",
        "use_numpy",
        "write_timeout",
    ]
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+]|[^\s:,\[\]]*)(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,79}")


def missing() -> str | None:
    """Say what to install, if ClickHouse's driver is not there."""
    if importlib.util.find_spec("clickhouse_driver") is None:
        return 'is a ClickHouse database, which needs a driver that is not installed: pip install "jobber[clickhouse]"'
    return None


def normal(text: str) -> URL:
    """Return the URL of ``tcp://host:9000?username=…&password=…&database=…`` or ``clickhouse://user:pass@host/db``.

    Parameters:
        text: its user and password are percent-encoded. Options that are not jobber's are settings of ClickHouse.

    Raises:
        ValueError: it is no such thing, or speaks HTTP.
    """
    scheme = text.partition("://")[0].lower()
    if scheme in _HTTP:
        raise ValueError(
            "speaks HTTP; jobber speaks ClickHouse's native protocol, which has a port of its own: "
            "write clickhouse://user:password@host:9000/database (9440 and ?secure=true with TLS)"
        )
    try:
        parts = urlsplit(text)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise ValueError(f"is not a ClickHouse URL; {_EXAMPLE}") from None
    if scheme not in _NATIVE or parts.fragment or "/" in parts.path[1:]:
        raise ValueError(f"is not a ClickHouse URL; {_EXAMPLE}")
    credentials, _, places = parts.netloc.rpartition("@")
    user, _, password = (unquote(part) for part in credentials.partition(":"))
    options = dict(pairs)
    secure = "secure" in options and _flag("secure", options["secure"])
    hosts = [_place(place, secure) for place in places.split(",")]
    hosts += [_place(place, secure) for place in options.pop("alt_hosts", "").split(",") if place]
    user, password = options.pop("username", user), options.pop("password", password)
    database = options.pop("database", "") or unquote(parts.path[1:])
    query = _checked(options)
    if hosts[1:]:
        query["alt_hosts"] = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts[1:]
        )
    host, port = hosts[0]
    return URL.create(
        ENGINE,
        username=user or None,
        password=password or None,
        host=host,
        port=port,
        database=database or None,
        query=query,
    )


def driver_options(url: URL) -> dict[str, Any]:
    """Return what clickhouse-driver's ``Client`` is opened with, for a URL that ``normal`` gave."""
    options: dict[str, Any] = {name: str(value) for name, value in url.query.items()}
    for name in ("connect_timeout", "max_execution_time"):  # what became settings of the section
        options.pop(name, None)
    known = {name: options.pop(name) for name in ("alt_hosts", *_FILES) if name in options}
    return {
        "host": url.host,
        "port": url.port,
        "user": url.username or "default",
        "password": url.password or "",
        "database": url.database or "",
        "secure": options.pop("secure", "") == "true",
        "verify": options.pop("skip_verify", "") != "true",
        "client_name": "jobber",
        "tcp_keepalive": (30, 10, 3),  # seconds of silence, between two probes, probes
        "settings_is_important": True,
        "settings": options,
        **known,
    }


def time_limit(url: URL) -> int | None:
    """Return the limit that an address sets for every query, in whole seconds; None if it sets none."""
    limit = str(url.query.get("max_execution_time", ""))
    return math.ceil(seconds(limit)) or None if limit else None


def _place(text: str, secure: bool) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found[2] or (_TLS_PORT if secure else _PORT)) if found else 0
    if not found or not 0 < port < 65_536:
        raise ValueError(f"is not a ClickHouse URL: its host or port is wrong; {_EXAMPLE}")
    return found[1].strip("[]") or "127.0.0.1", port


def _checked(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that mean something here."""
    checked = {}
    for name, value in options.items():
        if not _NAME.fullmatch(name):
            raise ValueError("has an option whose name is none; settings of ClickHouse are written in small letters")
        if name in _NOT_HERE:
            continue
        if name in {"secure", "skip_verify"}:
            checked[name] = str(_flag(name, value)).lower()
        elif name in {"dial_timeout", "connect_timeout"}:
            checked["connect_timeout"] = str(max(_duration(name, value), 0.1))
        elif name == "max_execution_time":
            checked[name] = str(_duration(name, value))
        else:
            checked[name] = {"true": "1", "false": "0"}.get(value.lower(), value)
    return checked


def _flag(name: str, value: str) -> bool:
    if value.lower() not in _FLAGS:
        raise ValueError(f"has a wrong option: {name} must be true or false")
    return _FLAGS[value.lower()]


def _duration(name: str, value: str) -> float:
    try:
        return seconds(value)
    except ValueError as error:
        raise ValueError(f"has a wrong option: {name} {error}") from None

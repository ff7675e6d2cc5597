"""Addresses of MySQL and MariaDB: SQLAlchemy URLs and the DSNs of Go's driver become one URL for PyMySQL.

No message here repeats any part of an address but the name of a parameter.
"""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote, unquote_plus

from sqlalchemy import URL, make_url

from jobber.config.durations import seconds

DRIVER = "mysql+pymysql"
#: Names that people give to PyMySQL in a URL.
SCHEMES = frozenset({"mysql", "mariadb", DRIVER, "mariadb+pymysql"})

_GO_EXAMPLE = "write it like user:password@tcp(host:3306)/database"
_GO = re.compile(r"(?:.*@)?(?:tcp|unix)\(.*\)/[^/]*", re.DOTALL)
_GO_SCHEME = re.compile(r"(?:mysql|mariadb)://")
_GO_SOCKET = "/tmp/mysql.sock"  # noqa: S108  # the default of Go's driver
_ADDRESS = re.compile(r"(?:\[(?P<six>[^]]+)]|(?P<bare>[^:]*:[^:]*:.*)|(?P<host>[^:]*))(?::(?P<port>[0-9]{1,5}))?")
_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

Options = dict[str, str]


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _flag(value: str) -> str:
    if value.lower() not in _FLAGS:
        raise ValueError("must be true or false")
    return str(_FLAGS[value.lower()]).lower()


def _whole_seconds(value: str) -> str:
    """Return a duration as PyMySQL wants it: at least a second, or nothing for none."""
    return str(math.ceil(seconds(value)) or "")


def _collation(value: str) -> str:
    """Return a collation that the connection, which is always in utf8mb4, can have; or nothing."""
    return value if value.startswith("utf8mb4_") else ""


def _nothing(_: str) -> str:
    return ""


#: What a URL may say (https://docs.sqlalchemy.org/en/21/dialects/mysql.html#module-sqlalchemy.dialects.mysql.pymysql).
_OPTIONS: Mapping[str, Callable[[str], str]] = {
    **dict.fromkeys(["ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_cipher"], _text),
    **dict.fromkeys(["ssl_check_hostname", "ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"], _flag),
    **dict.fromkeys(["connect_timeout", "read_timeout", "write_timeout"], _whole_seconds),
    **dict.fromkeys(["unix_socket", "bind_address", "init_command", "sql_mode"], _text),
    **dict.fromkeys(["read_default_file", "read_default_group"], _text),
    "collation": _collation,
    # The connection is jobber's: it is in utf8mb4, and what its programs need is on.
    **dict.fromkeys(["charset", "use_unicode", "local_infile", "program_name"], _nothing),
}

#: Parameters of Go's driver with a meaning here, and our names for them.
_FROM_GO = {
    "timeout": "connect_timeout",
    "readTimeout": "read_timeout",
    "writeTimeout": "write_timeout",
    "charset": "charset",
    "collation": "collation",
}
#: Those that are about Go, or about what jobber does in its own way.
_ONLY_GO = frozenset(
    [
        "allowAllFiles",
        "allowCleartextPasswords",
        "allowFallbackToPlaintext",
        "allowNativePasswords",
        "allowOldPasswords",
        "checkConnLiveness",
        "clientFoundRows",
        "columnsWithAlias",
        "compress",
        "connectionAttributes",
        "interpolateParams",
        "loc",
        "maxAllowedPacket",
        "multiStatements",
        "parseTime",
        "rejectReadOnly",
        "strict",
        "timeTruncate",
        "tinyInt1IsBool",
    ]
)
_BY_LOWER = {name.lower(): name for name in (*_FROM_GO, *_ONLY_GO, "tls")}
#: Any other parameter of Go's driver sets a variable of the session.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIMIT = re.compile(r"\b(?P<name>max_execution_time|max_statement_time)\s*=\s*(?P<value>[0-9]+(?:\.[0-9]+)?)\b", re.I)


def normal(url: URL) -> URL:
    """Return the URL that PyMySQL connects with.

    Raises:
        ValueError: another driver, no database, or an option that PyMySQL does not have.
    """
    if url.drivername not in SCHEMES:
        raise ValueError("names another MySQL driver; jobber uses PyMySQL: write mysql:// or mariadb://")
    if not url.database:
        raise ValueError("names no database; write it like mysql://user:password@host:3306/database")
    pairs = ((name, value) for name, values in url.normalized_query.items() for value in values)
    return url.set(drivername=DRIVER, query=_tls(_checked(pairs)))


def tls_problem(url: str) -> str | None:
    """Say which TLS option of a URL cannot be used on this machine: a file that is not there, or holds something else.

    PyMySQL would let the errors of Python's ``ssl`` through.
    """
    options = make_url(url).query
    context = ssl.create_default_context()
    trials: Mapping[str, Callable[[str], None]] = {
        "ssl_ca": lambda path: context.load_verify_locations(cafile=path),
        "ssl_capath": lambda path: os.scandir(path).close(),
        # An encrypted key would make OpenSSL ask the terminal for its password.
        "ssl_cert": lambda path: context.load_cert_chain(path, _path(options.get("ssl_key")), password=""),
        "ssl_cipher": context.set_ciphers,
    }
    for name, attempt in trials.items():
        if value := _path(options.get(name)):
            try:
                attempt(value)
            except ssl.SSLError as error:
                # An unknown cipher has no reason.
                reason = (getattr(error, "reason", None) or "not known here").replace("_", " ").lower()
                return f"has an option that cannot be used: {name}: {reason}"
            except OSError as error:
                return f"has an option that cannot be used: {name}: {error.strerror}"
    return None


def _path(value: str | tuple[str, ...] | None) -> str | None:
    return value if isinstance(value, str) else None


def is_go(dsn: str) -> bool:
    """Whether a DSN without a ``type`` is one of Go's driver."""
    return bool(_GO.fullmatch(_GO_SCHEME.sub("", dsn, count=1)))


def from_go(dsn: str) -> URL:
    """Return the URL of ``user:password@tcp(host:3306)/database?parameter=value``.

    The last ``/`` separates the database, the last ``@`` before it the credentials, which are taken as they are.

    Parameters:
        dsn: https://github.com/go-sql-driver/mysql#dsn-data-source-name

    Raises:
        ValueError: it is no such thing, names no database, or has a parameter that neither Go's driver nor a server can
            know.
    """
    return normal(go_url(dsn))


def go_url(dsn: str) -> URL:
    """Return the URL of a DSN of Go's as a user would write it: ``normal`` makes it PyMySQL's. Raises ValueError."""
    head, slash, tail = _GO_SCHEME.sub("", dsn, count=1).rpartition("/")
    if not slash:
        raise ValueError(f"is not a MySQL DSN; {_GO_EXAMPLE}")
    database, _, parameters = tail.partition("?")
    if not database:
        raise ValueError(f"names no database; {_GO_EXAMPLE}")
    credentials, _, place = head.rpartition("@")
    user, _, password = credentials.partition(":")
    found = re.fullmatch(r"(tcp|unix)?(?:\((.*)\))?", place, re.DOTALL)
    if not found:
        raise ValueError(f"must name tcp(host:port) or unix(/path/of/socket); {_GO_EXAMPLE}")
    protocol, address = found[1] or "tcp", found[2] or ""
    options = _go_parameters(parameters)
    host, port = None, None
    if protocol == "unix":
        options["unix_socket"] = address or _GO_SOCKET
    else:
        host, port = _host_and_port(address or "127.0.0.1")
    return URL.create(
        DRIVER,
        username=user or None,
        password=password or None,
        host=host,
        port=port,
        database=unquote(database),
        query=options,
    )


def _host_and_port(address: str) -> tuple[str, int | None]:
    found = _ADDRESS.fullmatch(address)
    host = found and (found["six"] or found["bare"] or found["host"])
    if not found or not host or (found["port"] and not 0 < int(found["port"]) < 65_536):
        raise ValueError(f"has an address that is not host:port; {_GO_EXAMPLE}")
    return host, int(found["port"]) if found["port"] else None


def time_limit(url: URL) -> int | None:
    """Return the time limit that a URL's ``init_command`` sets, in whole seconds; None if it sets none."""
    found = _LIMIT.search(str(url.query.get("init_command", "")))
    if not found:
        return None
    seconds_each = 0.001 if found["name"].lower() == "max_execution_time" else 1  # MySQL's, and MariaDB's
    return math.ceil(float(found["value"]) * seconds_each) or None


def _go_parameters(text: str) -> Options:
    options: Options = {}
    variables: list[str] = []
    for pair in text.split("&"):
        name, found, value = pair.partition("=")
        if not found or name in _ONLY_GO:
            continue
        value = unquote_plus(value)
        if name in _FROM_GO:
            options[_FROM_GO[name]] = value
        elif name == "tls":
            options |= _go_tls(value)
        elif meant := _BY_LOWER.get(name.lower()):
            raise ValueError(f"has the parameter {name}; did you mean {meant}?")
        elif _VARIABLE.fullmatch(name):
            variables.append(f"{name} = {value}")
        else:
            raise ValueError(f"has the parameter {_shown(name)}, which jobber does not know")
    if variables:
        options["init_command"] = "SET " + ", ".join(variables)
    return options


def _go_tls(value: str) -> Options:
    known: Mapping[str, Options] = {
        "skip-verify": {"ssl_check_hostname": "false"},
        "preferred": {},  # what PyMySQL does unless told otherwise
        "true": {"ssl_verify_identity": "true"},
        "false": {"ssl_disabled": "true"},
    }
    value = value.lower()
    if _FLAGS.get(value) is not None:
        value = str(_FLAGS[value]).lower()
    if value not in known:
        raise ValueError("has the parameter tls with a value other than true, false, skip-verify and preferred")
    return known[value]


def _checked(pairs: Iterable[tuple[str, str]]) -> Options:
    """Return options as PyMySQL takes them, without those that say nothing."""
    options: Options = {}
    for name, value in pairs:
        if name not in _OPTIONS:
            raise ValueError(f"has the option {_shown(name)}, which jobber does not know for MySQL")
        try:
            options[name] = _OPTIONS[name](value)
        except ValueError as error:
            raise ValueError(f"has a wrong option: {name} {error}") from None
    return {name: value for name, value in options.items() if value}


def _tls(options: Options) -> Options:
    """Say by PyMySQL's means what the options mean.

    SQLAlchemy passes flags on as text, which is always true to PyMySQL, and PyMySQL looks at no host name unless it is
    given the certificates to trust.
    """
    disabled, identity, certificate = (
        options.pop(f"ssl_{name}", "false") == "true" for name in ("disabled", "verify_identity", "verify_cert")
    )
    if disabled:
        return {name: value for name, value in options.items() if not name.startswith("ssl_")} | {
            "ssl_disabled": "true"
        }
    if identity or certificate:
        if not identity:
            options["ssl_check_hostname"] = "false"
        if "ssl_ca" not in options and "ssl_capath" not in options:
            trusted = ssl.get_default_verify_paths()
            options |= {"ssl_ca": trusted.cafile} if trusted.cafile else {"ssl_capath": trusted.openssl_capath}
    return options


def _shown(name: str) -> str:
    """Return the name of a parameter, unless it is none: a password with a question mark in it, say."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", name) else "…"

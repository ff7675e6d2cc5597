"""SQL cut into tokens, just as finely as finding placeholders needs: linear in the length of the text.

Follows PostgreSQL's lexical rules (https://www.postgresql.org/docs/current/sql-syntax-lexical.html), SQLite's tokenizer
(https://www.sqlite.org/lang_expr.html, https://www.sqlite.org/lang_keywords.html) and MySQL's
(https://dev.mysql.com/doc/refman/8.4/en/language-structure.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cache
from typing import NamedTuple

from jobber.errors import TaskFileError


class Kind(Enum):
    """What a token is."""

    SPACE = auto()
    COMMENT = auto()
    WORD = auto()  # a keyword or a bare identifier
    NUMBER = auto()
    QUOTE = auto()  # a string or a quoted identifier
    OPEN = auto()  # ( [ {
    CLOSE = auto()
    NAMED = auto()  # :name, whatever stands before it
    NUMBERED = auto()  # $1
    QUESTION = auto()  # ? where it is a placeholder
    FOREIGN = auto()  # a placeholder that the engine knows and jobber does not bind
    SEMICOLON = auto()
    OTHER = auto()  # operators, commas, casts


class Token(NamedTuple):
    """A token: ``sql[start:end]``."""

    kind: Kind
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Dialect:
    """The lexical rules in which engines differ.

    Parameters:
        name: of the engine, for messages.
        numbered: ``$1`` is a placeholder and ``?`` an operator; else ``?`` is one.
        postgresql_literals: ``E'\\''``, ``$tag$ … $tag$`` and nested comments.
        bracket_names: ``[a name]`` quotes an identifier; else brackets are subscripts.
        backticks: a backtick quotes.
        backslashes: the quotes within which a backslash takes the meaning of the character after it.
        hash_comments: ``#`` begins a comment.
        spaced_dashes: ``--`` begins a comment only with white space behind it.
        code_comments: what stands in ``/*! … */`` is code.
        colon_paths: a colon right after an operand has a meaning of its own outside of subscripts too.
        foreign: pattern of placeholders that the engine would take but jobber does not bind.
    """

    name: str
    numbered: bool = False
    postgresql_literals: bool = False
    bracket_names: bool = False
    backticks: bool = True
    backslashes: str = ""
    hash_comments: bool = False
    spaced_dashes: bool = False
    code_comments: bool = False
    colon_paths: bool = True
    foreign: str | None = None

    @property
    def subscripts(self) -> bool:
        """Whether brackets are subscripts, in which a colon may be a slice."""
        return not self.bracket_names


_MYSQL = Dialect(
    "mysql",
    backslashes="'\"",
    hash_comments=True,
    spaced_dashes=True,
    code_comments=True,
    colon_paths=False,
    foreign=r"\$[0-9]+(?![A-Za-z0-9_$\x80-\U0010ffff])",
)

_DIALECTS: Mapping[str, Dialect] = {
    "postgresql": Dialect("postgresql", numbered=True, postgresql_literals=True, backticks=False, colon_paths=False),
    "sqlite": Dialect(
        "sqlite",
        bracket_names=True,
        colon_paths=False,
        foreign=r"\?[0-9]+|:[0-9][A-Za-z0-9_]*|[$@][A-Za-z0-9_$\x80-\U0010ffff]+",
    ),
    "duckdb": Dialect("duckdb", postgresql_literals=True, backticks=False, foreign=r"\?[0-9]+|\$[A-Za-z0-9_]+"),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    # As a server's sql_mode may have it.
    "mysql+ansi_quotes": replace(_MYSQL, backslashes="'"),
    "mysql+no_backslash_escapes": replace(_MYSQL, backslashes=""),
    # https://clickhouse.com/docs/sql-reference/syntax
    "clickhouse": Dialect("clickhouse", postgresql_literals=True, backslashes="'\"`", hash_comments=True),
    "mssql": Dialect("mssql", bracket_names=True),
}

#: For a whole task file, before it is known which engine each task is for: everything that any of them quotes.
ANY = Dialect("any", postgresql_literals=True)
#: The same, where backslashes and ``#`` are what they are to MySQL.
ANY_OF_MYSQL = replace(ANY, backslashes="'\"", hash_comments=True)


def dialect(engine: str) -> Dialect:
    """Return the rules of ``engine``, a SQLAlchemy dialect name; plain ones for an engine not known here."""
    return _DIALECTS.get(engine) or Dialect(engine)


def tokens(sql: str, rules: Dialect, at: int = 0) -> Iterator[Token]:
    """Yield the tokens of ``sql`` from ``at``, where one begins, to its end, without a gap.

    Raises:
        TaskFileError: a quote or a comment is never closed; ``details["line"]`` is where it opens, from 1.
    """
    scanner = _scanner(rules)
    while at < len(sql):
        match = scanner.match(sql, at)
        assert match is not None  # the last alternative takes any character  # noqa: S101
        start, at = match.span()
        kind = _KINDS[match.lastgroup or ""]
        if kind is None:
            kind, at = _close(sql, start, match, rules)
        yield Token(kind, start, at)


def line_of(sql: str, at: int) -> int:
    """Return the line, from 1, of the character at ``at``."""
    return sql.count("\n", 0, at) + 1


# Every character beyond ASCII is part of a word, as both engines have it: a non-breaking space, too.
_WORD = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*"
_NAME = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*"

#: Kind of each group of the scanner; None: only its opening matched, ``_close`` finds the end.
_KINDS: Mapping[str, Kind | None] = {
    "space": Kind.SPACE,
    "line": Kind.COMMENT,
    "hash": Kind.COMMENT,
    "code": None,
    "block": None,
    "escape": None,
    "dollar": None,
    "quote": None,
    "bracket": None,
    "word": Kind.WORD,
    "number": Kind.NUMBER,
    "open": Kind.OPEN,
    "close": Kind.CLOSE,
    "cast": Kind.OTHER,
    "named": Kind.NAMED,
    "foreign": Kind.FOREIGN,
    "numbered": Kind.NUMBERED,
    "question": Kind.QUESTION,
    "semicolon": Kind.SEMICOLON,
    "other": Kind.OTHER,
}


@cache
def _scanner(rules: Dialect) -> re.Pattern[str]:
    """Return the pattern of one token. No alternative can backtrack further than the token it matches."""
    patterns = {
        "space": r"[ \t\n\r\f\v]+",
        "line": _line_comment(rules),
        "hash": r"#[^\n]*" if rules.hash_comments else None,
        "code": r"/\*M?!" if rules.code_comments else None,
        "block": r"/\*",
        "escape": r"[eE]'" if rules.postgresql_literals else None,
        "word": _WORD,
        "dollar": rf"\$(?:{_NAME})?\$" if rules.postgresql_literals else None,
        "number": r"[0-9][A-Za-z0-9_.]*",
        "quote": r"['\"`]" if rules.backticks else r"['\"]",
        "bracket": r"\[" if rules.bracket_names else None,
        "open": r"[(\[{]",
        "close": r"[)\]}]",
        "cast": r"::|:=",
        "named": rf":{_NAME}",
        "foreign": rules.foreign,
        "numbered": r"\$[0-9]+" if rules.numbered else None,
        "question": r"\?" if not rules.numbered else None,
        "semicolon": r";",
        # A run of characters that begin nothing above, or any one that begins it and did not become it.
        "other": r"[,.=<>+*%&|^~!]+|." if rules.hash_comments else r"[,.=<>+*%&|^~!#]+|.",
    }
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in patterns.items() if pattern), re.DOTALL)


def _line_comment(rules: Dialect) -> str:
    if rules.spaced_dashes:
        return r"--(?![^\x00-\x20\x7f])[^\n]*"
    return r"--[^\n\r]*" if rules.postgresql_literals else r"--[^\n]*"


_BLOCK_EDGE = re.compile(r"/\*|\*/")
_ESCAPE_EDGE = re.compile(r"\\.|''|'", re.DOTALL)
_BACKSLASH_EDGE = {quote: re.compile(rf"\\.|{quote}", re.DOTALL) for quote in "'\"`"}
#: What would mean one thing to a server that reads a comment as code and another to one that does not.
_AMBIGUOUS = re.compile(r"['\"`?:;#]|--|/\*")
# PostgreSQL: strings that only white space with a newline parts are one, and it keeps the rules of the first.
_CONTINUED = re.compile(r"[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*'")


def _close(sql: str, start: int, opened: re.Match[str], rules: Dialect) -> tuple[Kind, int]:
    """Return the kind of what opens at ``start``, and where it ends."""
    opening = opened[0]
    kind = Kind.QUOTE
    match opened.lastgroup:
        case "block":
            kind, end = Kind.COMMENT, _end_of_block(sql, start, nested=rules.postgresql_literals)
        case "code":
            kind, end = Kind.OTHER, _end_of_code(sql, start)
        case "escape":
            end = _end_of_escape_string(sql, start)
        case "dollar":
            end = _find(sql, opening, opened.end(), start, f"the dollar quote {opening}")
        case "bracket":
            end = _find(sql, "]", opened.end(), start, "the [ quote")
        case _ if opening in rules.backslashes:
            end = _end_of_backslash_string(sql, start, opening)
        case _:
            # Backslashes mean nothing (standard SQL). A doubled quote reads as two quotes that touch: the same here.
            end = _find(sql, opening, opened.end(), start, f"the {opening} quote")
    return kind, end


def _end_of_escape_string(sql: str, start: int) -> int:
    at = start + 2
    while edge := _ESCAPE_EDGE.search(sql, at):
        at = edge.end()
        if edge[0] == "'":
            continued = _CONTINUED.match(sql, at)
            if continued is None:
                return at
            at = continued.end()
    raise _never_closed(sql, start, "the E' string")


def _end_of_backslash_string(sql: str, start: int, quote: str) -> int:
    at = start + 1
    while edge := _BACKSLASH_EDGE[quote].search(sql, at):
        at = edge.end()
        if edge[0] == quote:
            return at
    raise _never_closed(sql, start, f"the {quote} quote")


def _end_of_code(sql: str, start: int) -> int:
    """Return the end of a comment that MySQL or MariaDB reads as code, from some version on."""
    end = _find(sql, "*/", start + 3, start, "the /*! comment")
    if _AMBIGUOUS.search(sql, start + 3, end - 2):
        raise TaskFileError(
            "a /*! comment is code to some servers and not to others; write quotes, placeholders and comments outside "
            "of it",
            line=line_of(sql, start),
        )
    return end


def _end_of_block(sql: str, start: int, *, nested: bool) -> int:
    if not nested:
        return _find(sql, "*/", start + 2, start, "the /* comment")
    depth = 0
    for edge in _BLOCK_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    raise _never_closed(sql, start, "the /* comment")


def _find(sql: str, closing: str, at: int, start: int, what: str) -> int:
    """Return the end of the next ``closing`` from ``at`` on."""
    found = sql.find(closing, at)
    if found < 0:
        raise _never_closed(sql, start, what)
    return found + len(closing)


def _never_closed(sql: str, start: int, what: str) -> TaskFileError:
    return TaskFileError(f"{what} that opens here is never closed", line=line_of(sql, start))

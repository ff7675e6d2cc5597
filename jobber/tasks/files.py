"""A ``.sql`` file cut into its queries, each with the lines that its parts stand on."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from aiosql.adapters.generic import GenericAdapter
from aiosql.query_loader import QueryLoader
from aiosql.types import QueryDatum, SQLOperationType
from aiosql.utils import SQLParseException

from jobber import sqllexer
from jobber.errors import TaskFileError

_NAME_LINE = re.compile(r"[ \t]*--[ \t]*name[ \t]*:[ \t]*(?P<rest>[^\n]*)", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(?=$|[\s(^$!<*#])")
_READS = (SQLOperationType.SELECT, SQLOperationType.SELECT_ONE, SQLOperationType.SELECT_VALUE)


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a file.

    Parameters:
        name: as it is written, hyphens kept.
        line: of its ``-- name:``, from 1.
        comments: the whole-line comments between name and SQL: line and text without its dashes.
        inner: those in and below the SQL, likewise.
        sql: what follows, as it stands in the file.
        sql_line: the line that ``sql`` begins on.
        parameters: names that ``-- name: x(a, b)`` declares, None without such a list.
    """

    name: str
    line: int
    comments: tuple[tuple[int, str], ...]
    inner: tuple[tuple[int, str], ...]
    sql: str
    sql_line: int
    parameters: tuple[str, ...] | None


def split(text: str) -> tuple[list[Query], list[TaskFileError]]:
    """Return the queries of a file, and what is wrong with the others; ``details["line"]`` is of the file.

    aiosql reads the heads. It never sees the SQL itself: it would drop comments out of the middle of it, take
    ``-- name:`` inside of a string for the next query, and colons of slices for parameters.
    """
    queries: list[Query] = []
    errors: list[TaskFileError] = []
    heads = _heads(text)
    before = text[: heads[0]] if heads else text
    if found := _first_sql(before):
        errors.append(TaskFileError("there is SQL before the first -- name:, so it belongs to no task", line=found))
    for start, end in pairwise([*heads, len(text)]):
        try:
            queries.append(_query(text, start, end))
        except TaskFileError as error:
            errors.append(error)
    return queries, errors


def _heads(text: str) -> list[int]:
    """Return where the ``-- name:`` lines begin that are not inside of a quote or a block comment."""
    candidates = [match.start() for match in re.finditer(rf"^{_NAME_LINE.pattern}", text, re.IGNORECASE | re.MULTILINE)]
    heads: list[int] = []
    at = 0
    known = frozenset(candidates)
    while (head := _next_head(text, at, candidates, known)) is not None:
        heads.append(head)
        at = text.find("\n", head)
        if at < 0:
            break
    return heads


def _next_head(text: str, at: int, candidates: list[int], known: frozenset[int]) -> int | None:
    """Return the first of ``candidates`` from ``at`` on, where no quote is open, that is a head.

    ``known`` are the same as a set.

    Which engine the query is for is not known here, and a backslash in a string, or a ``#``, is not the same to all of
    them. What is a head to either reading is one: no query looks like the end of another by chance. The readings walk
    side by side, so that one that has gone astray does not run to the end of the file.
    """
    following = bisect_left(candidates, at)
    if following == len(candidates):
        return None
    walks = [_Walk(text, rules, at, known) for rules in (sqllexer.ANY, sqllexer.ANY_OF_MYSQL)]
    while walking := [walk for walk in walks if walk.outcome is None]:
        walk = min(walking, key=lambda walk: walk.at)
        if walk.step():
            return walk.at
    if any(walk.outcome is _Outcome.END for walk in walks):
        return None
    # Something is never closed, perhaps long before the place where that shows: the query around it ends at the next
    # line that looks like a name, and is refused when its own SQL is parsed.
    return candidates[following]


class _Outcome(Enum):
    END = auto()
    UNCLOSED = auto()


class _Walk:
    """One reading of a text; ``outcome`` says how it ended, if it has."""

    def __init__(self, text: str, rules: sqllexer.Dialect, at: int, candidates: frozenset[int]) -> None:
        self.at = at
        self.outcome: _Outcome | None = None
        self._text = text
        self._candidates = candidates
        self._tokens = sqllexer.tokens(text, rules, at)

    def step(self) -> bool:
        """Go on by a token; True if it is a head, which ``at`` then is."""
        try:
            token = next(self._tokens, None)
        except TaskFileError:
            self.outcome = _Outcome.UNCLOSED
            return False
        if token is None:
            self.outcome = _Outcome.END
            return False
        self.at = token.end
        if token.kind is sqllexer.Kind.COMMENT:
            line_start = self._text.rfind("\n", 0, token.start) + 1
            if line_start in self._candidates and not self._text[line_start : token.start].strip():
                self.at = line_start
                return True
        return False


def _first_sql(text: str) -> int | None:
    """Return the line of the first token that is no comment to any engine; None if there is none."""
    lines = [_first_token(text, rules) for rules in (sqllexer.ANY, sqllexer.ANY_OF_MYSQL)]
    return None if None in lines else lines[0]


def _first_token(text: str, rules: sqllexer.Dialect) -> int | None:
    try:
        for token in sqllexer.tokens(text, rules):
            if token.kind not in {sqllexer.Kind.SPACE, sqllexer.Kind.COMMENT}:
                return sqllexer.line_of(text, token.start)
    except TaskFileError as error:
        line: int = error.details["line"]
        return line
    return None


def _query(text: str, start: int, end: int) -> Query:
    line = sqllexer.line_of(text, start)
    lines = text[start:end].split("\n")
    head = _NAME_LINE.fullmatch(lines[0])
    assert head is not None  # that is how it was found  # noqa: S101
    named = _NAME.match(rest := head["rest"].strip())
    if named is None:
        raise TaskFileError(
            f"{rest!r} is not a name: use A-Z a-z 0-9 _ . -, at most 100" if rest else "-- name: without a name",
            line=line,
        )
    comments: list[tuple[int, str]] = []
    body = len(lines)
    for number, content in enumerate(lines[1:], 1):
        stripped = content.strip()
        if stripped.startswith("--"):
            comments.append((line + number, _without_dashes(stripped)))
        elif stripped:
            body = number
            break
    if body == len(lines):
        raise TaskFileError("there is no SQL below the name", line=line, task=named[0])
    datum = _read_head(named[0], rest[named.end() :], line)
    if datum.operation_type not in _READS:
        raise TaskFileError(
            "is marked as a query that writes or as a script; jobber runs queries that read",
            line=line,
            task=named[0],
        )
    parameters = None if datum.parameters is None else tuple(datum.parameters)
    sql = "\n".join(lines[body:])
    inner = tuple((line + body + above, text) for above, text in _line_comments(sql))
    return Query(named[0], line, tuple(comments), inner, sql, line + body, parameters)


def _without_dashes(comment: str) -> str:
    return comment.lstrip("-").strip()


def _line_comments(sql: str) -> Iterator[tuple[int, str]]:
    """Yield the comments that stand on lines of their own: how many lines are above each, and its text."""
    with suppress(TaskFileError):  # something is never closed: told when the SQL itself is parsed
        for token in sqllexer.tokens(sql, sqllexer.ANY):
            text = sql[token.start : token.end]
            before = sql[sql.rfind("\n", 0, token.start) + 1 : token.start]
            if token.kind is sqllexer.Kind.COMMENT and text.startswith("--") and not before.strip():
                yield sqllexer.line_of(sql, token.start) - 1, _without_dashes(text)


def _read_head(name: str, signature: str, line: int) -> QueryDatum:
    """Let aiosql read what follows the name: its operation and its list of parameters."""
    adapter = GenericAdapter()  # type: ignore[no-untyped-call]
    loader = QueryLoader(adapter, None, attribute=None, mandatory_parameters=False)
    # aiosql takes fewer names than goyesql did, and turns hyphens into underscores: it is given one that it takes.
    plain = "task_" + re.sub(r"[^A-Za-z0-9_]", "_", name)
    # It holds the declared parameters against the SQL, so it gets SQL that has just these.
    declared = re.fullmatch(r"\s*\(([\w\s,]*)\).*", signature)
    values = ", ".join(f":{part.strip()}" for part in declared[1].split(",") if part.strip()) if declared else ""
    try:
        [datum] = loader.load_query_data_from_sql(f"-- name: {plain}{signature}\nSELECT {values or '1'}", [])
    except SQLParseException:
        raise TaskFileError(
            f"after the name {name} there may be a list of parameters, (a, b), and nothing but {signature.strip()!r} "
            "came",
            line=line,
            task=name,
        ) from None
    return datum

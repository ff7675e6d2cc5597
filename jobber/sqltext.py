"""Placeholders in SQL: found once when a task is loaded, rendered for each driver when a job runs.

jobber executes a task's SQL itself, so it alone decides what is a placeholder. Quotes, comments, dollar-quotes,
``::casts``, ``:=``, array slices and JSON operators are left alone. No value is ever pasted into the text by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from jobber.errors import BadArguments, TaskFileError
from jobber.jobs import Args, Scalar


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One occurrence of a placeholder; ``index`` counts the distinct parameters of the statement from 0."""

    index: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A task's SQL for one engine, cut at its placeholders.

    Parameters:
        sql: the text as it stands in the file, without its trailing semicolon.
        pieces: literal SQL and placeholders in turn.
        count: distinct parameters.
        names: their names where placeholders are ``:name``; empty where they are positional.
    """

    sql: str
    pieces: tuple[str | Placeholder, ...]
    count: int
    names: tuple[str, ...] = ()

    def render(self, placeholder: Callable[[int], str], literal: Callable[[str], str] = str) -> str:
        """Return the SQL with each placeholder as the driver wants it.

        Parameters:
            placeholder: gives the text for a parameter's index.
            literal: escapes the SQL between placeholders (drivers that use ``%`` or ``:`` need it).
        """
        return "".join(literal(piece) if isinstance(piece, str) else placeholder(piece.index) for piece in self.pieces)

    def bind(self, args: Args) -> list[Scalar]:
        """Return the values of the distinct parameters, in order of their index.

        Raises:
            BadArguments: too few or too many values, an unknown name, or a list where names are needed.
        """
        if isinstance(args, dict):
            if args and not self.names:
                raise BadArguments(
                    f"the query has {_placeholders(self.count)} by position; send args as a list, not as an object"
                    if self.count
                    else f"the query takes no arguments, but {len(args)} came"
                )
            missing = [name for name in self.names if name not in args]
            unknown = [name for name in args if name not in self.names]
            if missing or unknown:
                parts = []
                if missing:
                    parts.append("no value for " + ", ".join(f":{name}" for name in missing))
                if unknown:
                    parts.append("no placeholder for " + ", ".join(f":{name}" for name in unknown))
                raise BadArguments("the query's named placeholders do not fit the args: " + "; ".join(parts))
            return [args[name] for name in self.names]
        if self.names and args:
            raise BadArguments(
                "the query has named placeholders ("
                + ", ".join(f":{name}" for name in self.names)
                + "); send args as an object"
            )
        if len(args) != self.count:
            raise BadArguments(
                f"the query has {_placeholders(self.count)}, but {len(args)} args came"
                if len(args) != 1
                else f"the query has {_placeholders(self.count)}, but 1 arg came"
            )
        return list(args)


def _placeholders(count: int) -> str:
    return f"{count} placeholder" if count == 1 else f"{count} placeholders"


_COMMON = [
    ("comment", r"--[^\n]*"),
    ("string", r"'(?:[^']|'')*'"),
    ("quoted", r'"(?:[^"]|"")*"'),
    ("cast", r"::|:="),
    # A colon after a word, a bracket or a digit is a slice (``a[1:n]``), not a placeholder.
    ("slice", r"(?<=[\w\]\)]):\w*"),
    ("named", r":(?P<name>[A-Za-z_]\w*)"),
]
_POSTGRESQL = re.compile(
    "|".join(
        f"(?P<{kind}>{pattern})"
        for kind, pattern in [
            ("block", r"/\*"),  # nests; the scanner finds its end
            ("escape", r"\b[eE]'(?:[^'\\]|\\.|'')*'"),
            ("dollar", r"(?<![\w$])\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$"),
            ("number", r"(?<![\w$])\$(?P<position>\d+)"),
            *_COMMON,
        ]
    ),
    re.DOTALL,
)
_OTHER = re.compile(
    "|".join(
        f"(?P<{kind}>{pattern})"
        for kind, pattern in [
            ("block", r"/\*.*?\*/"),
            ("backtick", r"`[^`]*`"),
            ("bracket", r"\[[A-Za-z_][^\]\n:?]*\]"),
            ("question", r"\?"),
            *_COMMON,
        ]
    ),
    re.DOTALL,
)


def parse(sql: str, engine: str) -> Statement:
    """Find the placeholders of ``sql`` as ``engine`` writes them.

    ``$1`` on PostgreSQL (where ``?`` is an operator), ``?`` elsewhere, ``:name`` everywhere.

    Parameters:
        sql: one statement; a trailing semicolon is dropped.
        engine: ``postgresql``, ``sqlite`` or another SQLAlchemy dialect name.

    Raises:
        TaskFileError: positional and named placeholders are mixed, a number is left out (``$1, $3``), or a comment is
            never closed.
    """
    sql = sql.strip().removesuffix(";").rstrip()
    postgresql = engine == "postgresql"
    scanner = _POSTGRESQL if postgresql else _OTHER
    pieces: list[str | Placeholder] = []
    names: list[str] = []
    positions: set[int] = set()
    questions = 0
    start = at = 0
    while match := scanner.search(sql, at):
        at = match.end()
        kind = match.lastgroup
        # lastgroup is the outermost named group that matched last; inner ones name their outer kind here.
        kind = {"name": "named", "position": "number", "tag": "dollar"}.get(kind or "", kind)
        if kind == "block" and postgresql:
            at = _end_of_block(sql, match.start())
            continue
        if kind == "named":
            name = match["name"]
            if name not in names:
                names.append(name)
            placeholder = Placeholder(names.index(name))
        elif kind == "number":
            positions.add(int(match["position"]))
            placeholder = Placeholder(int(match["position"]) - 1)
        elif kind == "question":
            placeholder = Placeholder(questions)
            questions += 1
        else:
            continue
        if match.start() > start:
            pieces.append(sql[start : match.start()])
        pieces.append(placeholder)
        start = at
    if start < len(sql):
        pieces.append(sql[start:])
    if names and (positions or questions):
        raise TaskFileError(f"the query mixes named (:{names[0]}) and positional placeholders; use one kind")
    if positions and positions != set(range(1, len(positions) + 1)):
        missing = min(set(range(1, max(positions) + 1)) - positions, default=0)
        raise TaskFileError(f"the query uses ${max(positions)} but not ${missing}; number placeholders without gaps")
    return Statement(sql, tuple(pieces), len(names) or len(positions) or questions, tuple(names))


def _end_of_block(sql: str, start: int) -> int:
    """Return where the block comment that begins at ``start`` ends; PostgreSQL nests them."""
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(sql, start):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    raise TaskFileError("a /* comment is never closed")

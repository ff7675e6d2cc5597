"""Placeholders in SQL: found once when a task is loaded, rendered for each driver when a job runs.

jobber executes a task's SQL itself, so it alone decides what is a placeholder. Quotes, comments, dollar-quotes,
``::casts``, ``:=``, array slices and JSON operators are left alone. No value is ever pasted into the text by hand.

The text is cut by ``jobber.sqllexer``; here is what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobber.errors import BadArguments, TaskFileError
from jobber.jobs import Args, Scalar
from jobber.sqllexer import Dialect, Kind, Token, dialect, line_of, tokens

#: PostgreSQL counts parameters in 16 bits (https://www.postgresql.org/docs/current/limits.html).
MAX_PLACEHOLDERS = 65_535


_WHITE = " \t\n\r\f\v"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One occurrence of a placeholder; ``index`` counts the distinct parameters of the statement from 0."""

    index: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A task's SQL for one engine, cut at its placeholders.

    Parameters:
        sql: the text as it stands in the file, from its first to its last token: without the closing semicolon and
            the comments after the end, so that it can be put in parentheses.
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
        if isinstance(args, dict) and (self.names or args):
            return self._bind_names(args)
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

    def _bind_names(self, args: dict[str, Scalar]) -> list[Scalar]:
        if not self.names:
            raise BadArguments(
                f"the query has {_placeholders(self.count)} by position; send args as a list, not as an object"
                if self.count
                else f"the query takes no arguments, but {len(args)} came"
            )
        known = set(self.names)
        missing = [name for name in self.names if name not in args]
        unknown = [name for name in args if name not in known]
        if missing or unknown:
            parts = []
            if missing:
                parts.append("no value for " + ", ".join(f":{name}" for name in missing))
            if unknown:
                parts.append("no placeholder for " + ", ".join(f":{name}" for name in unknown))
            raise BadArguments("the query's named placeholders do not fit the args: " + "; ".join(parts))
        return [args[name] for name in self.names]


def _placeholders(count: int) -> str:
    return f"{count} placeholder" if count == 1 else f"{count} placeholders"


def parse(sql: str, engine: str) -> Statement:
    """Find the placeholders of ``sql`` as ``engine`` writes them.

    ``$1`` on PostgreSQL (where ``?`` is an operator), ``?`` elsewhere, ``:name`` everywhere.

    Parameters:
        sql: one statement; a closing semicolon and what comments follow it are dropped.
        engine: ``postgresql``, ``sqlite`` or another SQLAlchemy dialect name.

    Raises:
        TaskFileError: there is no statement or more than one, a quote or comment is never closed, positional and
            named placeholders are mixed, a number is left out (``$1, $3``), or a placeholder is written as another
            engine would. ``details["line"]`` counts the lines of ``sql`` from 1.
    """
    return _Parser(sql, dialect(engine)).parse()


class _Parser:
    """Walks over the tokens of one text once."""

    def __init__(self, sql: str, rules: Dialect) -> None:
        self.sql = sql
        self.rules = rules
        self.pieces: list[str | Placeholder] = []
        self.names: dict[str, int] = {}
        self.numbers: dict[int, int] = {}  # $N: where it stands first
        self.questions = 0
        self.positional_at: int | None = None  # where the first positional placeholder stands
        self.start: int | None = None  # of the first significant token
        self.copied = 0  # up to where the text is in ``pieces``
        self.end = 0  # of the last significant token
        self.brackets: list[str] = []  # open ( [ {
        self.previous: Token | None = None  # significant token

    def parse(self) -> Statement:
        semicolon: Token | None = None
        for token in tokens(self.sql, self.rules):
            if token.kind is Kind.SPACE or token.kind is Kind.COMMENT:
                continue
            if token.kind is Kind.SEMICOLON:
                semicolon = semicolon or token
                continue
            if semicolon is not None and self.start is not None:
                raise self._error("a task is one statement, but another begins after the semicolon", token.start)
            if self.start is None:
                if semicolon is not None:
                    raise self._error("the statement begins with a semicolon", semicolon.start)
                # Comments in front of the statement may be hints to the engine: they stay.
                self.start = self.copied = len(self.sql) - len(self.sql.lstrip(_WHITE))
            self._see(token)
            self.previous = token
            self.end = token.end
        if self.start is None:
            raise self._error("there is no SQL", 0)
        if self.copied < self.end:
            self.pieces.append(self.sql[self.copied : self.end])
        self._check()
        return Statement(
            self.sql[self.start : self.end],
            tuple(self.pieces),
            len(self.names) or len(self.numbers) or self.questions,
            tuple(self.names),
        )

    def _see(self, token: Token) -> None:
        text = self.sql[token.start : token.end]
        match token.kind:
            case Kind.OPEN:
                self.brackets.append(text)
            case Kind.CLOSE:
                if self.brackets:
                    self.brackets.pop()
            case Kind.NAMED if not self._is_slice(token):
                self._add(token, self.names.setdefault(text[1:], len(self.names)))
            case Kind.NUMBERED:
                # Nine digits are more than any limit, and int() of thousands of them is not for free.
                number = int(text[1:10])
                if not 1 <= number <= MAX_PLACEHOLDERS:
                    raise self._error(f"placeholders are numbered from $1 to ${MAX_PLACEHOLDERS}", token.start)
                self.numbers.setdefault(number, token.start)
                self._positional(token)
                self._add(token, number - 1)
            case Kind.QUESTION:
                self._positional(token)
                self._add(token, self.questions)
                self.questions += 1
            case Kind.FOREIGN:
                raise self._error(
                    f"{text} is not a placeholder that jobber binds on {self.rules.name}; write "
                    f"{'$1' if self.rules.numbered else '?'}, or :name, which works on every engine",
                    token.start,
                )

    def _is_slice(self, token: Token) -> bool:
        """Tell ``a[1:n]`` (a slice up to the column n) from a placeholder.

        In a subscript a colon after an operand can only be a slice; after a space, though, a word may be a keyword
        (``ARRAY[NOT :flag]``). Outside of subscripts SQLite and PostgreSQL know no lone colon at all; other engines
        may (``{a:b}``, ``doc:key``), always right after the operand.
        """
        previous = self.previous
        if previous is None or not self.rules.subscripts or previous.kind not in _OPERANDS:
            return False
        adjacent = previous.end == token.start
        if self.brackets and self.brackets[-1] == "[":
            return adjacent or previous.kind is not Kind.WORD
        return adjacent and self.rules.colon_paths

    def _positional(self, token: Token) -> None:
        if self.positional_at is None:
            self.positional_at = token.start

    def _add(self, token: Token, index: int) -> None:
        if token.start > self.copied:
            self.pieces.append(self.sql[self.copied : token.start])
        self.pieces.append(Placeholder(index))
        self.copied = token.end

    def _check(self) -> None:
        if self.names and self.positional_at is not None:
            raise self._error(
                f"the query mixes named (:{next(iter(self.names))}) and positional placeholders; use one kind",
                self.positional_at,
            )
        if self.numbers and len(self.numbers) != max(self.numbers):
            highest = max(self.numbers)
            missing = next(number for number in range(1, highest) if number not in self.numbers)
            raise self._error(
                f"the query uses ${highest} but not ${missing}; number placeholders without gaps",
                self.numbers[highest],
            )

    def _error(self, message: str, at: int) -> TaskFileError:
        return TaskFileError(message, line=line_of(self.sql, at))


#: After one of these a colon in a subscript is a slice.
_OPERANDS = frozenset({Kind.WORD, Kind.NUMBER, Kind.QUOTE, Kind.CLOSE, Kind.NAMED, Kind.NUMBERED, Kind.QUESTION})

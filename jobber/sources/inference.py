"""Column kinds of dynamically typed sources, found from declarations and from the rows themselves.

The first batch decides, together with what the database declares. A later value that does not fit raises
``SchemaChanged`` with wider columns, and the query is read again; so no value is ever changed to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobber.columns import Column, Kind, Row
from jobber.sources.base import Chunk, SchemaChanged, Shape
from jobber.sources.kinds import INTEGER_MAX, INTEGER_MIN, Unfit, join, kind_of, to_column

_NONE = type(None)
#: Python types whose values are canonical as they are, by kind.
_CANONICAL = {
    Kind.INTEGER: frozenset({int, _NONE}),
    Kind.FLOAT: frozenset({float, _NONE}),
    Kind.BOOLEAN: frozenset({bool, _NONE}),
    Kind.TEXT: frozenset({str, _NONE}),
}
#: Types of which equal values are the same value; one of them at a time, as 1 equals True.
_REPEATABLE = (frozenset({int, _NONE}), frozenset({str, _NONE}), frozenset({bytes, _NONE}))


@dataclass(slots=True)
class _State:
    """What is known of one column.

    Parameters:
        column: as it stands; its kind is a guess while ``open``.
        declared: the kind that the database declares, if any.
        open: neither a declaration nor a value has decided the kind yet.
    """

    column: Column
    declared: Kind | None
    open: bool = False

    def fit(self, values: Sequence[Any]) -> Sequence[Any] | None:
        """Return ``values`` in canonical form, None if the column is too narrow for one of them."""
        kind = self.column.kind
        types = set(map(type, values))
        if types == {_NONE}:
            return values
        if self.open:
            return None
        if (canonical := _CANONICAL.get(kind)) is not None and types <= canonical:
            if kind is not Kind.INTEGER:
                return values
            numbers = [value for value in values if value is not None] if _NONE in types else values
            return values if min(numbers) >= INTEGER_MIN and max(numbers) <= INTEGER_MAX else None
        try:
            return self._converted(values, types)
        except Unfit:
            return None

    def _converted(self, values: Sequence[Any], types: set[type]) -> list[Any]:
        column, declared = self.column, self.declared is self.column.kind
        if any(types <= one for one in _REPEATABLE):
            # Dates, flags and names repeat; converting each once is many times faster. Floats do not come here:
            # 0.0 equals -0.0.
            shown: dict[Any, Any] = {
                value: to_column(value, column, declared=declared) for value in set(values) if value is not None
            }
            return list(map(shown.get, values))
        return [None if value is None else to_column(value, column, declared=declared) for value in values]

    def widen(self, values: Sequence[Any]) -> None:
        """Make the column wide enough for ``values``."""
        for value in values:
            if value is None:
                continue
            if self.open:
                self.column, self.open = replace(self.column, kind=kind_of(value)), False
            if not self._fits(value) and self.column.precision is not None:
                self.column = replace(self.column, precision=None, scale=None)
            if not self._fits(value):
                self.column = Column(self.column.name, join(self.column.kind, kind_of(value)))
            if not self._fits(value):  # an integer beyond the exact ones of a float; a moment beyond the calendar
                wider = Kind.NUMERIC if self.column.kind is Kind.FLOAT else Kind.TEXT
                self.column = replace(self.column, kind=wider)

    def _fits(self, value: Any) -> bool:
        try:
            to_column(value, self.column, declared=self.declared is self.column.kind)
        except Unfit:
            return False
        return True


class Inference:
    """The kinds of one query's columns while its rows are read.

    Parameters:
        names: the columns' names.
        declared: what the database declares of each, None where it says nothing.
        columns: what an earlier ``SchemaChanged`` asked for.
    """

    def __init__(
        self, names: Sequence[str], declared: Sequence[Column | None], columns: Sequence[Column] | None = None
    ) -> None:
        self._states = []
        for i, name in enumerate(names):
            hint = declared[i] if i < len(declared) else None
            kind = hint.kind if hint else None
            if columns is not None and i < len(columns):
                self._states.append(_State(replace(columns[i], name=name), kind))
            elif hint is not None:
                self._states.append(_State(replace(hint, name=name), kind))
            else:
                self._states.append(_State(Column(name, Kind.TEXT), None, open=True))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns as they stand."""
        return tuple(state.column for state in self._states)

    def learn(self, rows: Sequence[Sequence[Any]]) -> None:
        """Widen the columns for the first rows, before anyone relies on them."""
        self._widen(list(zip(*rows, strict=True)))

    def canonical(self, rows: Sequence[Sequence[Any]]) -> list[Row]:
        """Return rows in canonical form.

        Raises:
            SchemaChanged: a value does not fit; all values of these rows are in the wider columns.
        """
        fields = list(zip(*rows, strict=True))
        fitted = [state.fit(values) for state, values in zip(self._states, fields, strict=bool(fields))]
        if any(values is None for values in fitted):
            self._widen(fields)
            raise SchemaChanged(self.columns)
        if all(after is before for after, before in zip(fitted, fields, strict=True)):
            return [tuple(row) for row in rows]  # of a tuple, tuple() makes no copy
        return list(zip(*[values for values in fitted if values is not None], strict=True))

    def _widen(self, fields: Sequence[Sequence[Any]]) -> None:
        for state, values in zip(self._states, fields, strict=bool(fields)):
            if state.fit(values) is None:
                state.widen(values)


class InferredRows:
    """The rows of a dynamically typed source (see ``sources.base.RowStream``).

    Parameters:
        first: the first batch as the driver gave it; empty if there are no rows.
        fetch: gives the next, empty after the last.
        inference: has seen no row yet.
    """

    shape = Shape.DECODED

    def __init__(
        self,
        first: Sequence[Sequence[Any]],
        fetch: Callable[[], Sequence[Sequence[Any]]],
        inference: Inference,
    ) -> None:
        inference.learn(first)
        self.columns: Sequence[Column] = inference.columns
        self._next = first
        self._fetch = fetch
        self._inference = inference

    def chunks(self) -> Iterator[Chunk]:
        """Refuse: the values are Python's."""
        raise TypeError("this stream is decoded")

    def batches(self) -> Iterator[list[Row]]:
        """Yield the rows in canonical form; SchemaChanged where one does not fit the columns."""
        while self._next:
            yield self._inference.canonical(self._next)
            self._next = self._fetch()

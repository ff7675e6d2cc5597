"""DELETE and UPDATE that return rows, on every engine: in one statement where it can, else in two.

Of two statements the first locks the rows, so nothing comes between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, delete, select, update

from jobber.store.database import TryAgain
from jobber.store.engines import Engine


class Deletion:
    """Deletes the rows ``where`` says; returns their ``columns``."""

    def __init__(
        self, table: Table, where: Sequence[ColumnElement[bool]], columns: Sequence[ColumnElement[Any]]
    ) -> None:
        self._delete = delete(table).where(*where)
        self._return = self._delete.returning(*columns)
        self._look = select(*columns).where(*where).with_for_update()

    def __call__(self, engine: Engine, connection: Connection, values: Mapping[str, Any]) -> Sequence[Row[Any]]:
        if engine.returning:
            return connection.execute(self._return, values).all()
        rows = connection.execute(self._look, values).all()
        if rows:
            connection.execute(self._delete, values)
        return rows


class Change:
    """Sets ``values`` in the rows of ``key`` where ``still`` holds; returns their ``columns`` as they are then.

    Parameters:
        key: finds the rows before and after the change.
        still: what the change may end.
    """

    def __init__(
        self,
        table: Table,
        key: ColumnElement[bool],
        values: Mapping[str, Any],
        columns: Sequence[ColumnElement[Any]],
        *,
        still: ColumnElement[bool] | None = None,
    ) -> None:
        changed = update(table).where(key) if still is None else update(table).where(key, still)
        self._update = changed.values(values)
        self._return = self._update.returning(*columns)
        self._look = select(*columns).where(key)

    def __call__(self, engine: Engine, connection: Connection, values: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """Change the rows. Raises TryAgain where only some of those that the key finds could be changed."""
        if engine.returning:
            return connection.execute(self._return, values).all()
        changed = connection.execute(self._update, values).rowcount
        if not changed:
            return []
        rows = connection.execute(self._look, values).all()
        if len(rows) != changed:
            raise TryAgain
        return rows

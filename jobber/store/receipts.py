"""Answers to requests that carry a key, so that who repeats one gets the first answer and nothing happens twice.

The answer is written down in the transaction that does what was asked for: ``claim`` comes early in it, ``keep`` last.
Who repeats a request meanwhile waits at the key; what fails leaves no trace, and may be tried again.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, select, update

from jobber.errors import IdempotencyConflict
from jobber.jobs import Micros
from jobber.store.database import Database
from jobber.store.schema import requests

#: Seconds that an answer is kept.
LIFETIME = 86_400
#: Longer answers (characters) are compressed: that of a bulk of ten thousand jobs has 20 MB, more than MySQL takes in
#: one statement by default, and a tenth of it repeats the rest.
_PLAIN = 4096
_COMPRESSED = "z:"  # no JSON begins so


@dataclass(frozen=True, slots=True)
class Receipt:
    """A request that is answered once.

    Parameters:
        key: the client's, of at most ``NAME_MAX`` characters.
        digest: of all that the request says.
        render: returns the answer, which is not empty, from what the call that takes the receipt returns.
    """

    key: str
    digest: str
    render: Callable[[Any], str]

    def of(self, part: Callable[[Any], Any]) -> Receipt:
        """Return the same for a call that returns more, of which ``part`` is rendered."""
        return Receipt(self.key, self.digest, lambda result: self.render(part(result)))


class Answered(Exception):
    """Raised instead of doing it again: the request was answered before. ``answer`` is what it was told."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer


class ReceiptBook:
    """Keeps answers. ``claim`` and ``keep`` do nothing without a receipt."""

    def __init__(self, database: Database) -> None:
        self._database = database
        table = requests.c
        self._look = select(table.digest, table.answer, table.created_at, database.engine.now.label("now"))

    def look(self, receipt: Receipt) -> None:
        """Raise Answered if the request was answered before, IdempotencyConflict if another one has its key."""
        self._database.read(lambda connection: self._check(connection, receipt, self._look))

    def claim(self, connection: Connection, receipt: Receipt | None) -> None:
        """Make this transaction the one that answers; waits for another one that is about to.

        Comes before whatever a request is refused for, and after ``runs.begin``.

        Raises:
            Answered: that other one, or an earlier one, has done it.
            IdempotencyConflict: the key is that of another request.
        """
        if receipt is None:
            return
        new = {"idempotency_key": receipt.key, "digest": receipt.digest, "answer": "", "created_at": 0}
        engine = self._database.engine
        insertion = engine.insert_missing(requests)
        if not engine.returning:
            connection.execute(insertion, new)
        elif connection.execute(insertion.returning(requests.c.idempotency_key), new).first():
            return
        self._check(connection, receipt, self._look.with_for_update())

    def keep(self, connection: Connection, receipt: Receipt | None, result: Any) -> None:
        """Write down the answer that ``result`` makes."""
        if receipt is None:
            return
        values = {
            "digest": receipt.digest,
            "answer": _packed(receipt.render(result)),
            "created_at": self._database.engine.now,
        }
        connection.execute(update(requests).where(requests.c.idempotency_key == receipt.key).values(values))

    def prune(self, limit: int) -> None:
        """Forget answers that are too old, at most ``limit``."""
        engine = self._database.engine
        then = engine.now - LIFETIME * 1_000_000
        old = select(requests.c.idempotency_key).where(requests.c.created_at <= then).limit(limit)
        gone = delete(requests).where(
            engine.among(requests.c.idempotency_key, "keys"),
            requests.c.created_at <= then,  # it may have been given out anew
        )

        def work(connection: Connection) -> None:
            if keys := connection.execute(old).scalars().all():
                connection.execute(gone, {"keys": engine.many(keys)})

        self._database.write(work)

    @staticmethod
    def _check(connection: Connection, receipt: Receipt, look: Select[Any]) -> None:
        row = connection.execute(look.where(requests.c.idempotency_key == receipt.key)).one_or_none()
        # One without an answer is this transaction's own.
        if row is None or not row.answer or _is_old(row.created_at, row.now):
            return
        if row.digest != receipt.digest:
            raise IdempotencyConflict(
                "Idempotency-Key: this key came with another request before; choose a new one for each request",
                field="Idempotency-Key",
            )
        raise Answered(_unpacked(row.answer))


def _is_old(created_at: Micros, now: Micros) -> bool:
    return created_at <= now - LIFETIME * 1_000_000


def _packed(answer: str) -> str:
    if len(answer) <= _PLAIN:
        return answer
    return _COMPRESSED + base64.b85encode(zlib.compress(answer.encode(), 1)).decode()


def _unpacked(stored: str) -> str:
    if not stored.startswith(_COMPRESSED):
        return stored
    return zlib.decompress(base64.b85decode(stored.removeprefix(_COMPRESSED))).decode()

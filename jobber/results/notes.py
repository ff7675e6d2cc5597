"""What a ledger notes of a result's columns, so that who published a result can be told what it published.

A note says whose the columns are: a process of an earlier version, which knows nothing of notes, may publish to the
same table meanwhile and leave an older one behind.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobber.columns import Column, decode_columns, encode_columns
from jobber.results.base import Published


def note(run: int, attempt: int, columns: Sequence[Column]) -> str:
    """Return the note of an attempt's columns."""
    return f"{_owner(run, attempt)}{encode_columns(columns)}"


def published(run: int, attempt: int, rows: int, noted: str | None) -> Published | None:
    """Return what an attempt published.

    Parameters:
        noted: the note that stands in the ledger.

    Returns:
        None if the note is missing or another attempt's: the result is of an earlier version of jobber.
    """
    owner = _owner(run, attempt)
    if noted is None or not noted.startswith(owner):
        return None
    return Published(rows, decode_columns(noted.removeprefix(owner)))


def _owner(run: int, attempt: int) -> str:
    return f"{run}.{attempt} "

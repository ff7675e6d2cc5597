"""Rows that come slowly travel on though they are few, so that who looks at the job sees them come."""

from __future__ import annotations

import time

from jobber.cancellation import Cancellation
from jobber.sources.base import DAWDLING, Shape, Source
from tests.sources.engines import Engine
from tests.sources.reading import parts_of, query


def test_rows_that_come_slowly_are_handed_over_long_before_they_fill_a_chunk(engine: Engine, source: Source) -> None:
    # Servers keep some kilobytes back before they send.
    nap = engine.sleep.replace("60", "0.05")
    sql = engine.rows(60, f"n, {nap} AS nap, {engine.text(3000)} AS filler")
    accepts = frozenset({Shape.ENCODED, Shape.DECODED})

    began = time.monotonic()
    with source.read(query(source, sql), accepts, timeout=60, cancellation=Cancellation()) as stream:
        parts = list(parts_of(stream))

    assert time.monotonic() - began > 4 * DAWDLING
    assert sum(parts) == 60
    assert len(parts) >= 3

"""Run one attempt of one job: read from a source, write to results. No Celery, no Flask, no state store in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row, named
from jobber.deadlines import deadlines
from jobber.errors import ResultsUnavailable, SourceUnavailable, TimedOut, TooManyRows
from jobber.jobs import Job
from jobber.results.base import CopyingWriter, ResultsBackend, ResultsWriter, Target
from jobber.sources.base import CopiedStream, GaveWay, Query, RowStream, SchemaChanged, Shape, Source
from jobber.tasks import Task

#: Seconds that the engine's own time limit gets before the watchdog interrupts the query from outside.
_GRACE = 1.0
#: Seconds that a query that is begun anew gets at least: 0 would be no limit.
_LEAST = 0.001
#: Rows of a decoded batch, about, that tell its size.
_SOME_ROWS = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a successful attempt published."""

    rows: int
    columns: tuple[Column, ...]


class Progress:
    """How far an attempt is; written by its thread, read by the heartbeat.

    Made when the attempt begins. Moments are ``time.monotonic()``.
    """

    __slots__ = ("asked", "began", "bytes", "phase", "query_at", "rows", "total", "total_basis")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.phase = "querying"
        self.rows = 0
        self.bytes = 0  # of decoded rows about as many as their text has
        #: When the query was sent that its rows come from: they are no older than that.
        self.query_at: float | None = None
        #: Rows that are expected, who says so (``history``, ``planner``), and how often somebody was asked.
        self.total: int | None = None
        self.total_basis = ""
        self.asked = 0

    def note_query(self) -> None:
        """Note that the query is sent now."""
        self.query_at = time.monotonic()


def run(
    job: Job,
    task: Task,
    *,
    sources: Mapping[str, Source],
    results: Mapping[str, ResultsBackend],
    timeout: float,
    cancellation: Cancellation,
    progress: Progress,
) -> Outcome:
    """Run the query of ``job`` and publish its rows as the job's table, whole or not at all.

    Parameters:
        timeout: seconds that the attempt may take from here to the publishing; 0 is no limit.

    Raises:
        AttemptError: why the attempt failed; nothing of it is left.
    """
    source, backend = _find(job, sources, results)
    label = f"task={job.task} job={job.job_id}"
    query = Query(task.statements[source.engine], job.args, label=label, begins=progress.note_query)
    target = Target(job.table, job.job_id, job.run, job.attempt, job.ttl, task.index)
    columns: Sequence[Column] | None = None
    accepts = backend.accepts
    ends_at, left = time.monotonic() + timeout, timeout
    with _time_limit(timeout, cancellation):
        while True:
            progress.phase, progress.rows, progress.bytes = "querying", 0, 0
            progress.note_query()
            try:
                with ExitStack() as staged:
                    with source.read(
                        query, accepts, timeout=left, cancellation=cancellation, columns=columns
                    ) as stream:
                        result = named(stream.columns)
                        task.check_columns(result)
                        writer = staged.enter_context(backend.begin(target, result, cancellation))
                        _transfer(stream, writer, task.max_rows, cancellation, progress)
                    # The source is let go first: publishing may wait for readers of the old result.
                    progress.phase = "publishing"
                    return Outcome(writer.publish(), result)
            except TimedOut as late:
                if left == timeout:
                    raise
                # A source that was told of a part of the limit says that part.
                raise _late(timeout) from late
            except SchemaChanged as changed:
                columns = changed.columns
            except GaveWay:
                accepts -= {Shape.COPIED}
            # What is begun anew has no more time than is left.
            left = max(ends_at - time.monotonic(), _LEAST) if timeout > 0 else 0


def _find(
    job: Job, sources: Mapping[str, Source], results: Mapping[str, ResultsBackend]
) -> tuple[Source, ResultsBackend]:
    if job.db not in sources:
        raise SourceUnavailable(f"the database {job.db!r} is not in this worker's config")
    if job.results not in results:
        raise ResultsUnavailable(f"the results database {job.results!r} is not in this worker's config")
    return sources[job.db], results[job.results]


def _transfer(
    stream: RowStream, writer: ResultsWriter, max_rows: int, cancellation: Cancellation, progress: Progress
) -> None:
    """Move every row of ``stream``, one piece in memory at a time."""
    if stream.shape is Shape.ENCODED:
        for chunk in stream.chunks():
            cancellation.check()
            progress.phase = "writing"
            _limit(progress.rows + chunk.rows, max_rows)
            writer.write_chunk(chunk)
            progress.rows += chunk.rows
            progress.bytes += len(chunk.data)
    elif stream.shape is Shape.COPIED:

        def moved(rows: int, size: int) -> None:
            progress.phase, progress.rows, progress.bytes = "writing", rows, size

        copy = partial(cast("CopiedStream", stream).copy, most=max_rows + 1 if max_rows else 0, moved=moved)
        cast("CopyingWriter", writer).write_copy(copy)
        _limit(writer.rows, max_rows)
    else:
        for batch in stream.batches():
            cancellation.check()
            progress.phase = "writing"
            _limit(progress.rows + len(batch), max_rows)
            writer.write_batch(batch)
            progress.rows += len(batch)
            progress.bytes += _size(batch)
    cancellation.check()


def _size(batch: Sequence[Row]) -> int:
    """Return about how many bytes a batch would have in COPY's text format, from a few of its rows."""
    some = batch[:: max(1, len(batch) // _SOME_ROWS)]
    size = sum(len(str(value)) + 1 if value is not None else 3 for row in some for value in row)
    return size * len(batch) // max(1, len(some))


def _limit(rows: int, max_rows: int) -> None:
    if max_rows and rows > max_rows:
        raise TooManyRows(f"the result has more than {max_rows} rows, the most that the task's max_rows tag allows")


@contextmanager
def _time_limit(seconds: float, cancellation: Cancellation) -> Iterator[None]:
    """Pull the token when the attempt takes too long in spite of the engine's own limit."""
    if seconds <= 0:
        yield
        return
    with deadlines.after(seconds + _GRACE, partial(cancellation.pull, _late(seconds))):
        yield


def _late(seconds: float) -> TimedOut:
    return TimedOut(f"the job ran longer than its limit of {seconds:g} s")

"""Run one attempt of one job: read from a source, write to results. No Celery, no Flask, no state store in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Timer

from jobber.cancellation import Cancellation
from jobber.columns import Column, Row, named
from jobber.errors import ResultsUnavailable, SourceUnavailable, TimedOut, TooManyRows
from jobber.jobs import Job
from jobber.results.base import ResultsBackend, ResultsWriter, Target
from jobber.sources.base import Query, RowStream, SchemaChanged, Shape, Source
from jobber.tasks import Task

#: Seconds that the engine's own time limit gets before the watchdog interrupts the query from outside.
_GRACE = 1.0
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
    with _time_limit(timeout, cancellation):
        while True:
            progress.phase, progress.rows, progress.bytes = "querying", 0, 0
            progress.note_query()
            try:
                with ExitStack() as staged:
                    with source.read(
                        query, backend.accepts, timeout=timeout, cancellation=cancellation, columns=columns
                    ) as stream:
                        result = named(stream.columns)
                        task.check_columns(result)
                        writer = staged.enter_context(backend.begin(target, result, cancellation))
                        progress.phase = "writing"
                        _transfer(stream, writer, task.max_rows, cancellation, progress)
                    # The source is let go first: publishing may wait for readers of the old result.
                    progress.phase = "publishing"
                    return Outcome(writer.publish(), result)
            except SchemaChanged as changed:
                columns = changed.columns


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
            _limit(progress.rows + chunk.rows, max_rows)
            writer.write_chunk(chunk)
            progress.rows += chunk.rows
            progress.bytes += len(chunk.data)
    else:
        for batch in stream.batches():
            cancellation.check()
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
    timer = Timer(
        seconds + _GRACE, cancellation.pull, [TimedOut(f"the job ran longer than its limit of {seconds:g} s")]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

"""Run one attempt of one job: read from a source, write to results. No Celery, no Flask, no state store in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Timer

from jobber.cancellation import Cancellation
from jobber.columns import Column, named
from jobber.errors import ResultsUnavailable, SourceUnavailable, TimedOut, TooManyRows
from jobber.jobs import Job
from jobber.results.base import ResultsBackend, ResultsWriter, Target
from jobber.sources.base import Query, RowStream, SchemaChanged, Shape, Source
from jobber.tasks import Task

#: Seconds that the engine's own time limit gets before the watchdog interrupts the query from outside.
_GRACE = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a successful attempt published."""

    rows: int
    columns: tuple[Column, ...]


class Progress:
    """How far an attempt is; written by its thread, read by the heartbeat."""

    __slots__ = ("bytes", "phase", "rows")

    def __init__(self) -> None:
        self.phase = "querying"
        self.rows = 0
        self.bytes = 0


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
    query = Query(task.statements[source.engine], job.args, label=f"task={job.task} job={job.job_id}")
    target = Target(job.table, job.job_id, job.run, job.attempt, job.ttl, task.index)
    columns: Sequence[Column] | None = None
    with _time_limit(timeout, cancellation):
        while True:
            progress.phase, progress.rows, progress.bytes = "querying", 0, 0
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
    cancellation.check()


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

"""A result made on trial, so that a missing right shows in ``jobber check`` and not in the first job."""

from __future__ import annotations

import uuid

from jobber.cancellation import Cancellation
from jobber.columns import Column, Kind
from jobber.results.base import ResultsBackend, Target

#: Seconds that the trial's table lives if nobody is left to drop it.
_TTL = 60


def rehearse(backend: ResultsBackend) -> None:
    """Do what jobs do to a results database: make a small result, replace it, read it, drop it.

    Raises:
        ResultsUnavailable, ResultsFailed: what a job would fail with.
    """
    backend.prepare()
    job_id = f"check-{uuid.uuid4()}"
    table = backend.table_name(job_id)
    columns = [Column("n", Kind.INTEGER)]
    for run in (1, 2):
        target = Target(table, job_id, run, attempt=1, ttl=_TTL, index=("n",))
        with backend.begin(target, columns, Cancellation()) as writer:
            writer.write_batch([(run,)])
            writer.publish()
    backend.rows(table, 2, columns, offset=0, limit=1)
    backend.drop(table, 2)

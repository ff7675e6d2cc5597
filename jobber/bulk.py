"""What is done to many jobs in one request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from jobber.completion import Completer, JobRequest
from jobber.errors import JobberError
from jobber.jobs import Job, NewJob
from jobber.store import Receipt, Store

#: Jobs of one request.
MOST = 10_000


class Bulk:
    """The operations on many jobs.

    Parameters:
        accept: raises Draining where nothing new is taken.
        wake_for: wakes the queues of new jobs.
    """

    def __init__(
        self,
        *,
        store: Store,
        completer: Completer,
        accept: Callable[[], None],
        wake_for: Callable[[Iterable[Job]], None],
    ) -> None:
        self._store = store
        self._completer = completer
        self._accept = accept
        self._wake_for = wake_for

    def create(
        self,
        requests: Sequence[JobRequest | JobberError],
        *,
        lost: Iterable[str] = (),
        receipt: Receipt | None = None,
    ) -> list[Job | JobberError]:
        """Accept those jobs that can be, durably, and wake their queues; return each, or why it was refused.

        Parameters:
            requests: those that are errors already stay so.
            lost: IDs of these, as far as they have one.
            receipt: renders what is returned.

        Raises:
            Answered, IdempotencyConflict: the receipt's key has come before.
            Draining, StateUnavailable: nothing is stored; try another instance, or later.
        """
        self._accept()
        new = [request if isinstance(request, JobberError) else self._completed(request) for request in requests]
        wrong = (
            request.job_id
            for request, job in zip(requests, new, strict=True)
            if isinstance(request, JobRequest) and isinstance(job, JobberError) and request.job_id
        )
        outcomes = self._store.batches.submit(new, lost={*lost, *wrong}, receipt=receipt)
        self._wake_for(job for job in outcomes if isinstance(job, Job))
        return outcomes

    def _completed(self, request: JobRequest) -> NewJob | JobberError:
        try:
            return self._completer.job(request)
        except JobberError as error:
            return error

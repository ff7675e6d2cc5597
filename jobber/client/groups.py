"""The client's calls about groups of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jobber.client.answers import GroupStatus, group_of
from jobber.client.bodies import NewJob, group_body
from jobber.client.waiting import until_finished
from jobber.client.wire import Wire, segment

#: Seconds that a server may need to drop the results of a large group: some 4 ms each.
_PURGE = 300.0


class GroupCalls:
    """The part of ``Client`` that is about groups."""

    _wire: Wire

    def submit_group(
        self,
        jobs: Iterable[NewJob],
        *,
        group_id: str | None = None,
        concurrency: int | None = None,
        callback: NewJob | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> GroupStatus:
        """Schedule a group of jobs: all of them or none.

        Parameters:
            jobs: 1 to 10,000, each a mapping with its ``task`` and, as ``submit`` takes them, ``args``, ``job_id`` ….
            group_id: made up by the server if absent. With one, a lost answer does no harm: submitting again is refused
                while the first group lives.
            concurrency: of its jobs that run at a time; no limit if absent.
            callback: a job that runs once, when all others are finished, whatever has become of them. The server fills
                those of the named args ``group_id``, ``succeeded``, ``failed``, ``cancelled`` and ``tables`` that its
                SQL names.
            callback_url: what the server calls when all its jobs are finished.
            idempotency_key: a text of the caller's own; the same call with the same key gets the first answer again.

        Raises:
            InvalidRequest: nothing is scheduled; the message names each job that is wrong by its place.
            GroupIsLive: a group of that ID is not finished; ``error.group`` is its GroupStatus, without the jobs.
            JobIsLive: a job of one of the IDs is pending or running; ``error.job`` is its JobStatus.

        >>> group = jobber.submit_group(
        ...     [{"task": "get_profit_entries", "args": [user]} for user in ("USER1", "USER2")],
        ...     group_id="profits",
        ...     callback={"task": "profits_done", "job_id": "profits-done"},
        ... )
        >>> [job.state for job in group.jobs]
        ['PENDING', 'PENDING']
        """
        body = group_body(
            jobs, group_id=group_id, concurrency=concurrency, callback=callback, callback_url=callback_url
        )
        return group_of(self._wire.call("POST", "/groups", body=body, key=idempotency_key)["data"])

    def group(self, group_id: str, *, wait: float = 0.0, jobs: bool = True) -> GroupStatus:
        """Return the newest run of a group.

        Parameters:
            wait: seconds, at most 60, that the server may wait for the end of all jobs before it answers.
            jobs: with its jobs; without, the answer about a large group is small.

        Raises:
            UnknownGroup: no group of that ID is live or in the history.

        >>> jobber.group("profits", wait=10).counts["SUCCESS"]
        2
        """
        query = {**({"wait": f"{wait:g}"} if wait else {}), **({} if jobs else {"jobs": "false"})}
        return group_of(self._wire.call("GET", _group(group_id), query=query or None, patience=wait)["data"])

    def wait_group(
        self,
        group_id: str,
        timeout: float | None = None,
        on_progress: Callable[[GroupStatus], object] | None = None,
    ) -> GroupStatus:
        """Return a group once all its jobs are finished, however they ended. Its callback is not waited for.

        A server that is away for less than 30 s (a restart) does not end the wait.

        Parameters:
            timeout: seconds; None waits for ever.
            on_progress: called with each status that is seen, about twice a second; only the last one lists the jobs.

        Raises:
            TimeoutError: not all jobs are finished; they go on.
            UnknownGroup: as ``group``.

        >>> jobber.wait_group("profits", 60, on_progress=lambda group: print(group.counts["SUCCESS"])).state
        'SUCCESS'
        """

        def ask(wait: float) -> GroupStatus:
            group = self.group(group_id, wait=wait, jobs=False)
            return self.group(group_id) if group.finished else group

        return until_finished(ask, f"group {group_id}", timeout, on_progress)

    def cancel_group(self, group_id: str, *, purge: bool = False) -> GroupStatus:
        """Cancel the jobs of a group that are not finished. Running ones stop soon after. Its callback runs then.

        Parameters:
            purge: remove a group that is finished already, with its jobs, its callback and their results, instead of
                refusing.

        Raises:
            UnknownGroup: as ``group``.
            GroupIsFinished: there is nothing to cancel; ``error.group`` is its GroupStatus, without the jobs.
            JobIsLive: the group cannot be removed before its callback, ``error.job``, is finished.

        >>> jobber.cancel_group("profits").counts["CANCELLED"]
        2
        """
        query = {"purge": "true"} if purge else None
        patience = _PURGE if purge else 0.0
        return group_of(self._wire.call("DELETE", _group(group_id), query=query, patience=patience)["data"])


def _group(group_id: str) -> str:
    return f"/groups/{segment(group_id, 'a group ID')}"

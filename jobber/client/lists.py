"""The client's calls about many jobs, and about single ones that are to be paused, resumed or run again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from jobber.client.answers import JobStatus, Tally, job_of
from jobber.client.bodies import NewJob, jobs_body, time_text
from jobber.client.wire import Wire, error_of, segment
from jobber.errors import JobberError

#: Seconds that a server may need to deal with very many jobs, beyond those of other calls.
_PATIENCE = 300.0


class ListCalls:
    """The part of ``Client`` that is about lists of jobs."""

    _wire: Wire

    def jobs(
        self,
        *,
        state: str | Iterable[str] | None = None,
        task: str | None = None,
        queue: str | None = None,
        group: str | None = None,
        tags: Mapping[str, str] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Iterator[JobStatus]:
        """Yield the runs of jobs that fit, those submitted last first, page by page.

        Parameters:
            state: one state, or several.
            since, until: of the submission; a datetime without a time zone is in UTC.
            limit: most jobs to yield; all if absent.

        >>> [job.job_id for job in jobber.jobs(state="FAILURE", tags={"customer": "acme"}, limit=10)]
        ['USER1-profit']
        """
        query = _filter(state=state, task=task, queue=queue, group=group, since=since, until=until)
        query |= {f"tag.{name}": value for name, value in (tags or {}).items()}
        left = limit
        while left is None or left > 0:
            page = self._wire.call("GET", "/jobs", query={**query, "limit": str(min(left or 1000, 1000))})
            yield from map(job_of, page["data"])
            if page["next"] is None:
                return
            query["cursor"] = page["next"]
            left = None if left is None else left - len(page["data"])

    def submit_many(
        self, jobs: Iterable[NewJob], *, idempotency_key: str | None = None
    ) -> list[JobStatus | JobberError]:
        """Schedule up to 10,000 jobs; return each of them, or why it was refused, in order.

        Parameters:
            jobs: as ``submit_group`` takes them; a bad one stops no other.

        >>> [type(answer).__name__ for answer in jobber.submit_many([{"task": "get_profit_entries"}, {"task": "no"}])]
        ['JobStatus', 'UnknownTask']
        """
        answer = self._wire.call("POST", "/jobs", body=jobs_body(jobs), patience=_PATIENCE, key=idempotency_key)
        return [_item(item) for item in answer["data"]]

    def cancel_many(self, job_ids: Iterable[str]) -> list[JobStatus | JobberError]:
        """Cancel up to 10,000 jobs; return each of them, or why it cannot be cancelled, in order."""
        return self._many("cancel", job_ids)

    def retry_many(self, job_ids: Iterable[str]) -> list[JobStatus | JobberError]:
        """Run up to 10,000 finished jobs again; return the new run of each, or why there is none, in order."""
        return self._many("retry", job_ids)

    def cancel_where(self, *, dry_run: bool = False, **conditions: Any) -> Tally:
        """Cancel all jobs that fit; return how many did, how many were cancelled or asked to stop, and why others not.

        Parameters:
            dry_run: only count.
            conditions: as those of ``jobs``, at least one.

        >>> jobber.cancel_where(queue="low", tags={"customer": "acme"}, dry_run=True).matched
        120
        """
        return self._where("cancel", dry_run, conditions)

    def retry_where(self, *, dry_run: bool = False, **conditions: Any) -> Tally:
        """Run all finished jobs again that fit; return how many did, how many will run, and why others will not.

        Parameters:
            dry_run: only count.
            conditions: as those of ``jobs``, at least one.
        """
        return self._where("retry", dry_run, conditions)

    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> JobStatus:
        """Run a finished job again, with the same arguments and options.

        Raises:
            UnknownJob, UnknownTask.
            JobIsLive: it is not finished; ``error.job`` is its JobStatus.
        """
        return job_of(self._wire.call("POST", f"{_job(job_id)}/retry", key=idempotency_key)["data"])

    def pause_job(self, job_id: str, reason: str = "") -> JobStatus:
        """Let a pending job wait until somebody resumes it. Raises UnknownJob, JobIsFinished, JobIsStarted."""
        return job_of(self._wire.call("POST", f"{_job(job_id)}/pause", body=_reason(reason))["data"])

    def resume_job(self, job_id: str) -> JobStatus:
        """Let a paused job run when it can. Raises UnknownJob, JobIsFinished."""
        return job_of(self._wire.call("POST", f"{_job(job_id)}/resume")["data"])

    def events(self, job_id: str, *, level: str | None = None) -> list[Mapping[str, Any]]:
        """Return what happened to the newest run of a job, oldest first: ``at``, ``event``, ``message`` ….

        Parameters:
            level: debug, info, warning or error; without those that matter less.

        >>> [event["event"] for event in jobber.events("USER1-profit")]
        ['submitted', 'started', 'success']
        """
        found: list[Mapping[str, Any]] = self._wire.call(
            "GET", f"{_job(job_id)}/events", query={"level": level} if level else None
        )["data"]
        return found

    def provenance(self, job_id: str) -> Mapping[str, Any]:
        """Return where the result of a job comes from: its SQL, arguments, source, snapshot and worker."""
        found: Mapping[str, Any] = self._wire.call("GET", f"{_job(job_id)}/provenance")["data"]
        return found

    def _many(self, what: str, job_ids: Iterable[str]) -> list[JobStatus | JobberError]:
        body = {"job_ids": list(job_ids)}
        return [_item(item) for item in self._wire.call("POST", f"/jobs/{what}", body=body, patience=_PATIENCE)["data"]]

    def _where(self, what: str, dry_run: bool, conditions: Mapping[str, Any]) -> Tally:
        wanted: dict[str, Any] = _filter(**{name: value for name, value in conditions.items() if name != "tags"})
        if conditions.get("tags") is not None:  # an empty one is sent, too: the server refuses what would fit all
            wanted["tags"] = dict(conditions["tags"])
        body: dict[str, Any] = {"filter": wanted, "dry_run": dry_run}
        matched = done = 0
        refused: Counter[str] = Counter()
        errors: dict[str, JobberError] = {}
        while True:
            answer = self._wire.call("POST", f"/jobs/{what}", body=body, patience=_PATIENCE)
            counts = answer["data"]
            matched, done = matched + counts["matched"], done + counts["done"]
            refused.update(counts["refused"])
            for refusal in counts["refusals"]:
                errors.setdefault(refusal["job_id"], error_of(refusal))
            if answer["next"] is None:
                return Tally(matched=matched, done=done, refused=dict(refused), errors=errors)
            body["cursor"] = answer["next"]  # of very many it does a part at a time


def _job(job_id: str) -> str:
    return f"/jobs/{segment(job_id, 'a job ID')}"


def _reason(reason: str) -> dict[str, str]:
    return {"reason": reason} if reason else {}


def _item(envelope: Mapping[str, Any]) -> JobStatus | JobberError:
    return job_of(envelope["data"]) if envelope["status"] == "success" else error_of(envelope)


def _filter(
    *,
    state: str | Iterable[str] | None = None,
    task: str | None = None,
    queue: str | None = None,
    group: str | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
) -> dict[str, str]:
    """Return the conditions that are given."""
    said = {
        "state": state if state is None or isinstance(state, str) else ",".join(state),
        "task": task,
        "queue": queue,
        "group": group,
        "since": time_text(since),
        "until": time_text(until),
    }
    return {name: value for name, value in said.items() if value is not None}

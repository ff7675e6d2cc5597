"""Jobs, groups and filters on their way to the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Required, TypedDict

from jobber.client.args import Arg, encoded
from jobber.errors import InvalidRequest


class NewJob(TypedDict, total=False):
    """A job of a group; each key means what the parameter of ``Client.submit`` means, and None leaves it out."""

    task: Required[str]
    args: Sequence[Arg] | Mapping[str, Arg] | None
    job_id: str | None
    queue: str | None
    eta: datetime | str | None
    retries: int | None
    ttl: int | None
    db: str | None
    results: str | None
    priority: int | str | None
    timeout: int | None
    tags: Mapping[str, str] | None
    depends_on: Sequence[str] | None
    depends_policy: str | None
    max_age: int | None
    single_flight: bool | None
    callback_url: str | None


def job_body(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job as JSON can say it, without what is None.

    Raises:
        InvalidRequest: an argument cannot be sent.
    """
    body = {name: value for name, value in job.items() if value is not None}
    if "args" in body:
        body["args"] = encoded(body["args"])
    if "eta" in body:
        body["eta"] = time_text(body["eta"])
    if isinstance(tags := body.get("tags"), Mapping):
        body["tags"] = dict(tags)
    if isinstance(parents := body.get("depends_on"), Iterable) and not isinstance(parents, str):
        body["depends_on"] = list(parents)
    return body


def group_body(
    jobs: Iterable[NewJob],
    *,
    group_id: str | None,
    concurrency: int | None,
    callback: NewJob | None,
    callback_url: str | None,
) -> dict[str, Any]:
    """Return a group as JSON can say it.

    Raises:
        InvalidRequest: names the job that cannot be sent by its place, and what is wrong with it.
    """
    body = {
        "group_id": group_id,
        "concurrency": concurrency,
        **jobs_body(jobs),
        "callback": None if callback is None else _member("callback", callback),
        "callback_url": callback_url,
    }
    return {name: value for name, value in body.items() if value is not None}


def jobs_body(jobs: Iterable[NewJob]) -> dict[str, Any]:
    """Return a list of jobs as JSON can say it.

    Raises:
        InvalidRequest: as ``group_body``.
    """
    if isinstance(jobs, str | bytes | Mapping) or not isinstance(jobs, Iterable):
        raise InvalidRequest(f"jobs: must be a list of jobs, not {type(jobs).__name__}", field="jobs")
    return {"jobs": [_member(f"jobs[{place}]", job) for place, job in enumerate(jobs)]}


def _member(place: str, job: object) -> dict[str, Any]:
    if not isinstance(job, Mapping):
        raise InvalidRequest(f"{place}: must be a mapping, not {type(job).__name__}", field=place)
    try:
        return job_body(job)
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}.{error.message}", field=f"{place}.{error.details['field']}") from None


def time_text(at: datetime | str | None) -> str | None:
    """Return a time as the server takes it; a datetime without a time zone is in UTC."""
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat() if isinstance(at, datetime) else at

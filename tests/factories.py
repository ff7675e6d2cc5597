"""Records for tests, complete but for what a test is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jobber.jobs import Job, JobState, Policy

_JOB = Job(
    run=1,
    job_id="myjob",
    task="task",
    queue="default",
    db="src",
    results="out",
    table="results_myjob",
    args=[],
    priority=5,
    retries=0,
    ttl=0,
    timeout=0,
    eta=None,
    tags={},
    replicas=(),
    reroutes=0,
    group_id="",
    group_run=None,
    group_limit=0,
    tenant="",
    version="",
    fingerprint=0,
    depends_on=(),
    depends_policy=Policy.SUCCESS,
    schedule="",
    callback_url="",
    reused=None,
    state=JobState.PENDING,
    attempt=0,
    failures=0,
    rescues=0,
    cancel_requested=False,
    worker="",
    phase="",
    rows_so_far=0,
    bytes_so_far=0,
    told_at=None,
    total=None,
    total_basis="",
    paused=None,
    rows=None,
    columns=(),
    error="",
    error_code="",
    created_at=0,
    started_at=None,
    snapshot_at=None,
    finished_at=None,
    expires_at=None,
)


def make_job(**facts: Any) -> Job:
    """Return a pending job with ``facts`` in the place of what it has by default."""
    return replace(_JOB, **facts)

"""What a job is: its states, the transitions between them, and the records that travel through the system.

A job is immutable here; the store changes rows and hands out new ``Job`` objects. Times are whole microseconds since
1970-01-01 UTC, always read from the state database's clock.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum

import simplejson

from jobber.columns import Column

#: Microseconds since the epoch, in UTC.
Micros = int

#: A JSON scalar as it stands in a request; numbers with a fraction are Decimal so that no digit is lost.
Scalar = str | int | Decimal | bool | None
#: Arguments of a job: a list for positional placeholders, a mapping for named ones.
Args = list[Scalar] | dict[str, Scalar]

JOB_ID_MAX = 100
#: Characters that a name may have: on MySQL a key has at most 3,072 bytes, and five names are a lane's
#: (https://dev.mysql.com/doc/refman/8.4/en/innodb-limits.html).
NAME_MAX = 150
JOB_ID_PATTERN = re.compile(r"[A-Za-z0-9_:-]{1,100}")
#: Named arguments that tell the callback of a group what has become of it: its ID, three counts of jobs, and the
#: tables of those that succeeded (a list of names as JSON text, in the order of the jobs).
OUTCOME_ARGS = ("group_id", "succeeded", "failed", "cancelled", "tables")
#: IDs that would collide with routes (``/jobs/queue/…``, ``POST /jobs/cancel``, ``POST /jobs/retry``).
RESERVED_JOB_IDS = frozenset({"queue", "cancel", "retry"})

PRIORITY_LOWEST, PRIORITY_NORMAL, PRIORITY_HIGHEST = 1, 5, 10
#: Names of some priorities; any whole number from 1 to 10 is one.
PRIORITIES: Mapping[str, int] = {"low": 1, "normal": 5, "high": 8, "critical": 10}


class JobState(StrEnum):
    """The states of a job; docs/job-lifecycle.md draws them."""

    PENDING = "PENDING"  # accepted; also while it waits for a start time, its group, a limit or a paused queue
    STARTED = "STARTED"  # a worker holds it
    RETRY = "RETRY"  # an attempt failed, the next one is due later
    SUCCESS = "SUCCESS"  # its result is published whole
    FAILURE = "FAILURE"  # its last attempt failed; no result of this run exists
    CANCELLED = "CANCELLED"  # somebody ended it; no result of this run exists

    @property
    def finished(self) -> bool:
        """Whether the run is over for good."""
        return self in FINISHED


FINISHED = frozenset({JobState.SUCCESS, JobState.FAILURE, JobState.CANCELLED})
LIVE = frozenset(JobState) - FINISHED

#: Every transition there is; the store's conformance suite holds the engines to it.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    # SUCCESS and FAILURE without a start: it shares the run of another job, or a job that it depends on failed.
    JobState.PENDING: frozenset({JobState.STARTED, *FINISHED}),
    # PENDING again: the worker stopped or died, and the job went back to its queue without spending a retry.
    JobState.STARTED: frozenset({JobState.RETRY, JobState.PENDING, *FINISHED}),
    JobState.RETRY: frozenset({JobState.STARTED, JobState.CANCELLED}),
    JobState.SUCCESS: frozenset(),
    JobState.FAILURE: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class Policy(StrEnum):
    """What the end of a job means for one that waits for it."""

    SUCCESS = "success"  # it runs if the other succeeded, and ends as that did if not
    FINISHED = "finished"  # it runs, whatever has become of the other
    SHARE = "share"  # it ends as the other did, with its result; runs by itself if the other was cancelled


class Ending(StrEnum):
    """What became of an attempt."""

    RUNNING = "running"  # nothing yet
    SUCCESS = "success"  # these three ended the run, too
    FAILURE = "failure"
    CANCELLED = "cancelled"
    RETRY = "retry"  # it failed, and the next one is due later
    REROUTED = "rerouted"  # its database could not be reached, and the next one reads another
    REQUEUED = "requeued"  # its worker stopped, or never knew of it
    RESCUED = "rescued"  # its worker died, or lost the state database


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One start of a run."""

    number: int  # from 1 on
    ending: Ending
    worker: str
    db: str  # the source database that it read
    error: str  # "" unless it failed
    error_code: str
    started_at: Micros
    ended_at: Micros | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job as it is submitted: all defaults of task and request already applied."""

    job_id: str
    task: str
    queue: str
    db: str  # the source database that was picked or named
    results: str  # the results database that was picked or named
    table: str  # name of its result table
    args: Args = field(default_factory=list)
    priority: int = PRIORITY_NORMAL  # 1 low … 10 critical
    retries: int = 0  # failed attempts that may be retried
    ttl: int = 0  # seconds the result lives once published; 0 is for ever
    timeout: int = 0  # seconds the query may run; 0 is no limit
    eta: Micros | None = None  # not before
    tags: Mapping[str, str] = field(default_factory=dict)
    replicas: tuple[str, ...] = ()  # databases that serve equally well, ``db`` among them; empty if one was asked for
    tenant: str = ""  # whose limits it counts against, and among whom turns are taken; "" is nobody
    version: str = ""  # SHA-256 of the task's SQL, hex
    fingerprint: int = 0  # of task, version and args: 64 bits, signed; see ``fingerprint``
    depends_on: tuple[str, ...] = ()  # IDs of jobs that must be finished first
    depends_policy: Policy = Policy.SUCCESS
    schedule: str = ""  # that made it
    callback_url: str = ""  # that is told when it is finished
    max_age: int | None = None  # seconds; take the result of an earlier run that is not older
    single_flight: bool = False  # share the run of a live job that asks for the same
    results_named: bool = False  # whether no other results database will do


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGroup:
    """A group of jobs as it is submitted: accepted whole or not at all."""

    group_id: str
    jobs: Sequence[NewJob]  # at least one
    concurrency: int = 0  # of its jobs that run at a time; 0 is no limit
    #: Runs once, when all jobs have finished, whatever their outcome. Of its named args, those in ``OUTCOME_ARGS`` get
    #: their values then.
    callback: NewJob | None = None
    callback_url: str = ""  # that is told when all are finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """Whose result a job has that did not run itself."""

    job_id: str
    run: int
    at: Micros  # when that run began to read: the result's age counts from here


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a job, as the store holds it."""

    run: int  # grows with every submission; two runs of one ID differ in it
    job_id: str
    task: str
    queue: str
    db: str
    results: str
    table: str
    args: Args
    priority: int
    retries: int
    ttl: int
    timeout: int
    eta: Micros | None
    tags: Mapping[str, str]
    replicas: tuple[str, ...]
    reroutes: int  # since an attempt last failed for good: how many of the replicas could not be reached
    group_id: str  # of the group that it is a job or the callback of, "" outside groups
    group_run: int | None  # run of the group that it is a job of; None also for a callback
    group_limit: int  # jobs of that group that run at a time, 0 is no limit
    tenant: str
    version: str
    fingerprint: int
    depends_on: tuple[str, ...]
    depends_policy: Policy
    schedule: str
    callback_url: str
    reused: Reused | None
    state: JobState
    attempt: int  # attempts started so far; 0 before the first
    failures: int  # attempts that failed (and count against ``retries``)
    rescues: int  # attempts whose worker died
    cancel_requested: bool
    worker: str  # name of the worker that holds or held it, "" before
    phase: str  # of the running attempt: "querying", "writing", "publishing"; "" otherwise
    rows_so_far: int  # that the running attempt has moved
    bytes_so_far: int
    # When its worker last told how far it is; None unless it runs and that was since it began. Says nothing of the job.
    told_at: Micros | None = field(compare=False)
    total: int | None  # rows that are expected of the running attempt …
    total_basis: str  # … and who says so: "history", "planner", "" for nobody
    paused: str | None  # why it is paused ("" for no reason), None if it is not; of a live job
    rows: int | None  # rows of the published result
    columns: tuple[Column, ...]  # of the published result
    error: str  # why the last attempt failed, "" if it did not
    error_code: str
    created_at: Micros
    started_at: Micros | None  # start of the newest attempt
    snapshot_at: Micros | None  # when the query began to read that made the result
    finished_at: Micros | None
    expires_at: Micros | None  # when the result is dropped

    @property
    def live(self) -> bool:
        """Whether the job is still pending, waiting for a retry, or running."""
        return self.state in LIVE

    @property
    def job_group(self) -> str:
        """What the limit of its group is known by; "" where the group has none."""
        return limit_key(self.group_run, self.group_limit)


def limit_key(group_run: int | None, group_limit: int) -> str:
    """Return what the limit of a group is known by; "" where the group has none."""
    return str(group_run) if group_limit else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One run of a group of jobs."""

    run: int  # grows with every submission
    group_id: str
    size: int  # jobs that it was submitted with
    concurrency: int  # of its jobs that run at a time; 0 is no limit
    counts: Mapping[JobState, int]  # jobs by state, every state; they add up to ``size``
    jobs: tuple[Job, ...]  # in the order of the submission; empty where nobody asked for them
    callback: Job | None
    callback_url: str = ""
    created_at: Micros
    finished_at: Micros | None  # when the last of its jobs did; the callback is not waited for

    @property
    def live(self) -> bool:
        """Whether one of its jobs is not finished."""
        return self.finished_at is None

    @property
    def state(self) -> JobState:
        """What has become of its jobs."""
        return group_state(self.counts)


def group_state(counts: Mapping[JobState, int]) -> JobState:
    """Return the state of a group from its jobs by state.

    PENDING: none has started. STARTED: not all have finished. SUCCESS: all have succeeded. FAILURE: all have finished,
    one has failed. CANCELLED: all have finished, none has failed, one was cancelled.
    """
    present = {state for state, count in counts.items() if count}
    if present & LIVE:
        return JobState.PENDING if present <= {JobState.PENDING, JobState.CANCELLED} else JobState.STARTED
    return next(
        state for state in (JobState.FAILURE, JobState.CANCELLED, JobState.SUCCESS) if state in present or not present
    )


#: The same in a fraction of the time, where no number has a fraction.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode_args(args: Args) -> str:
    """Return args as JSON text that keeps every digit of every number."""
    try:
        return _encode(args)
    except TypeError:  # of a Decimal
        return simplejson.dumps(args, use_decimal=True, ensure_ascii=False, separators=(",", ":"))


def fingerprint(task: str, version: str, args: Args) -> int:
    """Return 64 bits, signed, that are the same for the same task, SQL and args; names come in any order."""
    ordered = dict(sorted(args.items())) if isinstance(args, dict) and len(args) > 1 else args
    digest = hashlib.sha256("\0".join((task, version, encode_args(ordered))).encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], signed=True)


def running(job: Job, version: str) -> Job:
    """Return a job as it runs: of the SQL that its task has by now, which may not be that of its submission."""
    if version == job.version:
        return job
    same = fingerprint(job.task, version, job.args) if job.fingerprint else 0
    return replace(job, version=version, fingerprint=same)


def decode_args(text: str) -> Args:
    """Return the args that ``encode_args`` wrote."""
    decoded: Args = json.loads(text, parse_float=Decimal)
    return decoded

"""Every error that jobber raises on purpose, as one tree.

Each class carries a stable ``code`` that clients may rely on. Nothing here knows HTTP: one table in
``jobber.api.errors`` turns codes into statuses. Messages are written for the person who has to act on them; they
never hold a password, a DSN or a traceback.
"""

from __future__ import annotations

from typing import Any, ClassVar


class JobberError(Exception):
    """Base of all errors of jobber; raised itself only where nothing narrower fits.

    Parameters:
        message: one or two sentences for people: what is wrong, where, and what to do.
        details: JSON-able facts for machines (``field``, ``column``, ``nearest`` …), shown beside the code.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


# -- what the operator wrote ------------------------------------------------------------------------------------------


class ConfigError(JobberError):
    """Raised when a config file, an environment override or a flag is wrong; names the file and the key."""

    code = "invalid_config"


class TaskFileError(JobberError):
    """Raised when a ``.sql`` file is wrong; names the file, the line and the task."""

    code = "invalid_task_file"


# -- what a client asked for ------------------------------------------------------------------------------------------


class InvalidRequest(JobberError):
    """Raised when a request is malformed or invalid; ``details["field"]`` names the field where there is one."""

    code = "invalid_request"


class UnknownTask(JobberError):
    """Raised when no task of that name is loaded."""

    code = "unknown_task"


class UnknownJob(JobberError):
    """Raised when no job of that ID is live or in the history."""

    code = "unknown_job"


class JobIsLive(JobberError):
    """Raised when a job of that ID is pending or running already; ``job`` is that job."""

    code = "job_is_live"

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class JobIsFinished(JobberError):
    """Raised when a job that is already finished was to be cancelled; ``job`` is that job."""

    code = "job_is_finished"

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class JobIsStarted(JobberError):
    """Raised when a job that runs was to be paused; ``job`` is that job."""

    code = "job_is_started"

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class UnknownDatabase(JobberError):
    """Raised when no database of that name is in the config, and no job reads one; ``details`` has the nearest."""

    code = "unknown_database"


class UnknownGroup(JobberError):
    """Raised when no group of that ID is live or in the history."""

    code = "unknown_group"


class GroupIsLive(JobberError):
    """Raised when a group of that ID has jobs that are not finished; ``group`` is that group, without its jobs."""

    code = "group_is_live"

    def __init__(self, message: str, group: Any) -> None:
        super().__init__(message)
        self.group = group


class GroupIsFinished(JobberError):
    """Raised when a group that is already finished was to be cancelled; ``group`` is that group, without its jobs."""

    code = "group_is_finished"

    def __init__(self, message: str, group: Any) -> None:
        super().__init__(message)
        self.group = group


class IdempotencyConflict(JobberError):
    """Raised when an ``Idempotency-Key`` comes with another request than the one that it came with first."""

    code = "idempotency_conflict"


class UnknownSchedule(JobberError):
    """Raised when there is no schedule of that ID."""

    code = "unknown_schedule"


class ScheduleExists(JobberError):
    """Raised when there is a schedule of that ID already; it is not replaced."""

    code = "schedule_exists"


class ScheduleIsTagged(JobberError):
    """Raised when a schedule that a task's ``cron`` tag makes was to be changed otherwise than in its file."""

    code = "schedule_is_tagged"


class ResultsNotReady(JobberError):
    """Raised when the rows of a job that has no result (yet) are asked for; ``job`` is that job."""

    code = "results_not_ready"

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class ResultsGone(JobberError):
    """Raised when a result existed and is gone: expired, purged, or emptied by a crash of an unlogged table."""

    code = "results_gone"


# -- what is not there right now --------------------------------------------------------------------------------------


class Unavailable(JobberError):
    """Base of errors that time alone may cure; ``retry_after`` is in seconds."""

    code = "unavailable"

    def __init__(self, message: str, retry_after: int = 5, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after


class BacklogFull(Unavailable):
    """Raised when so many jobs of a queue, or of a tenant, wait that no more are taken; ``details`` name it."""

    code = "backlog_full"


class StateUnavailable(Unavailable):
    """Raised when the state database cannot be reached or refuses to answer."""

    code = "state_unavailable"


class BrokerUnavailable(Unavailable):
    """Raised when the broker cannot be reached. Never fatal for a job: the sweep wakes what a lost message did not."""

    code = "broker_unavailable"


class Draining(Unavailable):
    """Raised when this instance is stopping and accepts nothing new."""

    code = "draining"


class NotReady(Unavailable):
    """Raised when this instance cannot accept jobs now; ``details["dependencies"]`` tells what is missing and why."""

    code = "not_ready"


class ServerUnreachable(Unavailable):
    """Raised by the client when no jobber server answers at the address."""

    code = "server_unreachable"


# -- why an attempt of a job ended ------------------------------------------------------------------------------------


class AttemptError(JobberError):
    """Base of all that can end an attempt of a job.

    ``retryable`` says whether running the same thing again may give another outcome; the retry policy asks it.
    """

    code = "attempt_failed"
    retryable: bool = True

    def __init__(self, message: str, *, retryable: bool | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        if retryable is not None:
            self.retryable = retryable


class SourceUnavailable(AttemptError):
    """Raised when a source database cannot be reached, or the connection to it broke."""

    code = "source_unavailable"


class SourceOverloaded(SourceUnavailable):
    """Raised when a source database has too much to do for another connection; for clients a ``SourceUnavailable``.

    Parameters:
        reason: in a few words.
    """

    def __init__(self, message: str, *, reason: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.reason = reason


class QueryFailed(AttemptError):
    """Raised when the source refused or aborted the query; the message holds the engine's own words."""

    code = "query_failed"


class BadArguments(AttemptError):
    """Raised when a job's arguments do not fit the placeholders of its task."""

    code = "bad_arguments"
    retryable = False


class ValueNotRepresentable(AttemptError):
    """Raised when a value does not fit the column that the type mapping gives it; names column and value."""

    code = "value_not_representable"
    retryable = False


class TooManyRows(AttemptError):
    """Raised when a result is larger than the task's ``max_rows``."""

    code = "too_many_rows"
    retryable = False


class ResultsUnavailable(AttemptError):
    """Raised when a results database cannot be reached, or the connection to it broke."""

    code = "results_unavailable"


class ResultsFailed(AttemptError):
    """Raised when a results database refused rows (disk full, read-only, rights); holds the engine's own words."""

    code = "results_failed"


class TimedOut(AttemptError):
    """Raised when a job ran longer than its time limit."""

    code = "timed_out"
    retryable = False


class ParentFailed(AttemptError):
    """Names the reason of a job that did not run because one that it depends on failed; never raised."""

    code = "parent_failed"
    retryable = False


class ParentCancelled(AttemptError):
    """Names the reason of a job that was cancelled because one that it depends on was; never raised."""

    code = "parent_cancelled"
    retryable = False


class Cancelled(AttemptError):
    """Raised inside an attempt when somebody asked to cancel the job."""

    code = "cancelled"
    retryable = False


class Interrupted(AttemptError):
    """Raised inside an attempt when its worker is stopping; the job goes back to its queue."""

    code = "interrupted"


class Fenced(AttemptError):
    """Raised when an attempt was overtaken: cancelled, rescued or rerun elsewhere. It may publish nothing."""

    code = "fenced"
    retryable = False

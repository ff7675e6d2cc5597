"""Requests made whole: names looked up among the tasks and databases, blanks filled from task and settings.

All that is wrong with a request is told at once, each problem under its field; those of a group's jobs under their
place in it (``jobs[3].db``).
"""

from __future__ import annotations

import difflib
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from jobber import identities
from jobber.config import AppSettings, WebhookSettings
from jobber.errors import InvalidRequest, UnknownTask
from jobber.jobs import (
    NAME_MAX,
    OUTCOME_ARGS,
    PRIORITY_NORMAL,
    Args,
    Job,
    Micros,
    NewGroup,
    NewJob,
    Policy,
    Scalar,
    fingerprint,
)
from jobber.store.webhooks import host_of
from jobber.tasks import Task

#: What is told of a request that is wrong all over.
MOST_PROBLEMS = 20
#: By their names: to look an enumeration's member up by itself takes longer.
_POLICIES: Mapping[str, Policy] = {policy.value: policy for policy in Policy}
#: Names of tasks are not longer; of a longer one only so much is compared and shown.
_LONGEST_NAME = 100
#: What jobber fills in for a callback, as far as ``param:`` tags can be held against it before there is an outcome.
_TYPICAL: Mapping[str, Scalar] = {"group_id": "group", "succeeded": 0, "failed": 0, "cancelled": 0, "tables": "[]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What a client says of a job; None means absent, and the task's tag or the default applies.

    Values have the right types and ranges already; names are not looked up yet.
    """

    task: str
    job_id: str | None = None
    queue: str | None = None
    eta: Micros | None = None
    retries: int | None = None
    ttl: int | None = None
    args: Args = field(default_factory=list)
    db: str | None = None
    results: str | None = None
    priority: int | None = None
    timeout: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    depends_policy: str = Policy.SUCCESS.value
    max_age: int | None = None
    single_flight: bool = False
    callback_url: str = ""
    schedule: str = ""  # that made it; no client can say so


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequest:
    """What a client says of a group of jobs."""

    jobs: Sequence[JobRequest]  # at least one
    group_id: str | None = None
    concurrency: int = 0  # 0 is no limit
    callback: JobRequest | None = None
    callback_url: str = ""


def again(job: Job) -> JobRequest:
    """Return the request that makes a new run of a finished job: the same but for its start time and its group.

    What a schedule made is no firing of it when somebody runs it again, and who shared a run gets one of its own.
    """
    shared = job.depends_policy is Policy.SHARE
    return JobRequest(
        task=job.task,
        job_id=job.job_id,
        queue=job.queue,
        retries=job.retries,
        ttl=job.ttl,
        args=job.args,
        # Of replicas any one will do.
        db=None if job.replicas else job.db,
        results=job.results,
        priority=job.priority,
        timeout=job.timeout,
        tags=job.tags,
        depends_on=() if shared else job.depends_on,
        depends_policy=Policy.SUCCESS.value if shared else job.depends_policy.value,
        callback_url=job.callback_url,
    )


class Completer:
    """Turns requests into jobs as the store takes them.

    Parameters:
        app: holds the defaults.
        tasks: gives the tasks that are loaded at the moment of the call.
        table_name: gives the name of a result table, of a results database and a job ID.
        webhooks: say which hosts may be called; None for none.
    """

    def __init__(
        self,
        app: AppSettings,
        *,
        tasks: Callable[[], Mapping[str, Task]],
        table_name: Callable[[str, str], str],
        webhooks: WebhookSettings | None = None,
    ) -> None:
        self._webhooks = webhooks or WebhookSettings()
        self._app = app
        self._tasks = tasks
        self._table_name = table_name

    def task(self, name: str) -> Task:
        """Return a loaded task. Raises UnknownTask, with the nearest name that has one."""
        tasks = self._tasks()
        if name in tasks:
            return tasks[name]
        name = name[:_LONGEST_NAME]
        message = f"no task named {name!r} is loaded"
        if near := difflib.get_close_matches(name, tasks, n=1):
            raise UnknownTask(f"{message}; did you mean {near[0]}?", task=name, nearest=near[0])
        raise UnknownTask(f"{message}; GET /tasks lists those that are", task=name)

    def queue_of(self, task: Task) -> str:
        """Return the queue that jobs of ``task`` go to unless they name one."""
        return task.queue or self._app.default_queue

    def job(self, request: JobRequest) -> NewJob:
        """Return the job that is asked for.

        Raises:
            UnknownTask.
            InvalidRequest: ``details["fields"]`` holds all problems.
        """
        return self._complete(request, _checked)

    def group(self, request: GroupRequest) -> NewGroup:
        """Return the group that is asked for.

        Raises:
            InvalidRequest: of unknown tasks too; ``details["fields"]`` holds the problems, at most 20.
        """
        wanted = [(f"jobs[{place}]", job, _checked) for place, job in enumerate(request.jobs)]
        if request.callback:
            wanted.append(("callback", request.callback, _with_outcome))
        made: list[NewJob] = []
        problems: dict[str, str] = {}
        nearest: dict[str, str] = {}
        places: dict[str, str] = {}
        for place, job, check in wanted:
            if job.job_id and (other := places.setdefault(job.job_id, place)) != place:
                problems[f"{place}.job_id"] = f"{job.job_id} is the ID of {other} already"
            try:
                made.append(self._complete(job, check))
            except (InvalidRequest, UnknownTask) as error:
                told = error.details.get("fields", {"task": error.message})
                problems |= {f"{place}.{name}": problem for name, problem in told.items()}
                nearest = nearest or {key: value for key, value in error.details.items() if key == "nearest"}
            if len(problems) >= MOST_PROBLEMS:
                break
        self._check_callback(request.callback_url, problems)
        _refuse(dict(islice(problems.items(), MOST_PROBLEMS)), **nearest)
        return NewGroup(
            group_id=request.group_id or identities.fresh(),
            jobs=made[: len(request.jobs)],
            concurrency=request.concurrency,
            callback=made[-1] if request.callback else None,
            callback_url=request.callback_url,
        )

    def _check_callback(self, url: str, problems: dict[str, str]) -> None:
        """Note why a URL may not be called, if one was given."""
        if url and (refusal := self._webhooks.refusal(host_of(url))):
            problems["callback_url"] = f"cannot be called: {refusal}"

    def _complete(self, request: JobRequest, check: _Check) -> NewJob:
        task = self.task(request.task)
        problems: dict[str, str] = {}
        # Spreads load; nothing secret.
        chosen = task.databases[0] if len(task.databases) == 1 else random.choice(task.databases)  # noqa: S311
        db = _pick("db", request.db or chosen, task.databases, task, problems)
        job_id = request.job_id or identities.fresh()
        # The same for each run of an ID: a rerun takes the place of the older result.
        among = len(task.results)
        ours = task.results[0 if among == 1 else zlib.crc32(job_id.encode()) % among]
        results = _pick("results", request.results or ours, task.results, task, problems)
        args = check(task, request.args, problems)
        tenant = request.tags.get(self._app.tenant_tag, "") if self._app.tenant_tag else ""
        if len(tenant) > NAME_MAX:
            problems["tags"] = f"{self._app.tenant_tag} names the tenant; that may have {NAME_MAX} characters"
        if request.callback_url:
            self._check_callback(request.callback_url, problems)
        if job_id in request.depends_on:
            problems["depends_on"] = f"{job_id} is the job itself"
        if request.max_age or request.single_flight:
            what = "max_age" if request.max_age else "single_flight"
            if waits := "depends_on" if request.depends_on else "eta" if request.eta is not None else "":
                problems[what] = f"does not go with {waits}: what a job waits for is to happen before its query"
            elif check is not _checked:
                problems[what] = "the callback of a group always runs by itself"
        if problems:
            _refuse(problems)
        return NewJob(
            job_id=job_id,
            task=task.name,
            queue=request.queue or self.queue_of(task),
            db=db,
            results=results,
            table=self._table_name(results, job_id),
            args=args,
            priority=_first(request.priority, task.priority, PRIORITY_NORMAL),
            retries=_first(request.retries, task.retries, 0),
            ttl=_first(request.ttl, task.ttl, self._app.ttl),
            timeout=_first(request.timeout, task.timeout, 0),
            eta=request.eta,
            tags=request.tags,
            replicas=task.databases if request.db is None and len(task.databases) > 1 else (),
            tenant=tenant,
            version=task.version,
            # What a group's callback gets as args is not known yet.
            fingerprint=fingerprint(task.name, task.version, args) if check is _checked else 0,
            depends_on=request.depends_on,
            depends_policy=_POLICIES[request.depends_policy],
            schedule=request.schedule,
            callback_url=request.callback_url,
            max_age=request.max_age,
            single_flight=request.single_flight,
            results_named=request.results is not None,
        )


#: Returns the args of a job of a task, or notes what is wrong with them.
_Check = Callable[[Task, Args, dict[str, str]], Args]


def _checked(task: Task, args: Args, problems: dict[str, str]) -> Args:
    try:
        return task.check_args(args)
    except InvalidRequest as error:
        problems["args"] = error.message.removeprefix("args").lstrip(": ")
        return args


def _with_outcome(task: Task, args: Args, problems: dict[str, str]) -> Args:
    """Return the args of a callback: its own, and null for each of ``OUTCOME_ARGS`` that its SQL names."""
    if taken := [name for name in OUTCOME_ARGS if name in args and isinstance(args, dict)]:
        problems["args"] = f"{', '.join(taken)}: jobber fills in the outcome of the group; leave it out"
        return args
    names = {name for statement in task.statements.values() for name in statement.names}
    outcome = {name: _TYPICAL[name] for name in OUTCOME_ARGS if name in names}
    if not outcome:
        return _checked(task, args, problems)
    if args and not isinstance(args, dict):
        problems["args"] = f"must be an object: task {task.name} names its placeholders ({', '.join(sorted(names))})"
        return args
    for param in task.params:
        wanted = ("text",) if isinstance(outcome.get(param.name), str) else ("integer", "number")
        if param.name in outcome and param.type not in wanted:
            problems["task"] = (
                f"task {task.name} declares {param.name} as {param.type}, but jobber fills it with "
                f"{'text' if wanted == ('text',) else 'a whole number'}"
            )
            return args
    own = args if isinstance(args, dict) else {}
    checked = _checked(task, {**own, **outcome}, problems)
    return {**checked, **dict.fromkeys(outcome)} if isinstance(checked, dict) else checked


def _refuse(problems: Mapping[str, str], **details: str) -> None:
    if problems:
        message = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        raise InvalidRequest(message, field=next(iter(problems)), fields=dict(problems), **details)


def _first(*values: int | None) -> int:
    for value in values:
        if value is not None:
            return value
    raise ValueError("the last one is a default")


def _pick(name: str, wanted: str, allowed: Sequence[str], task: Task, problems: dict[str, str]) -> str:
    """Return the database that is wanted; note it where the task may not use it."""
    if wanted not in allowed:
        does_not = "does not run on" if name == "db" else "does not write to"
        problems[name] = f"task {task.name} {does_not} {wanted!r}; it may use {', '.join(allowed)}"
    return wanted

"""The client: one method per thing that one asks of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType

from jobber.client.answers import JobStatus, Page, Row, Task, columns_of, job_of, task_of
from jobber.client.args import Arg
from jobber.client.bodies import job_body
from jobber.client.groups import GroupCalls
from jobber.client.lists import ListCalls
from jobber.client.operations import OperatorCalls
from jobber.client.schedules import ScheduleCalls
from jobber.client.waiting import until_finished
from jobber.client.wire import Wire, segment
from jobber.errors import ResultsGone

DEFAULT_SERVER = "http://127.0.0.1:6060"


class Client(GroupCalls, ListCalls, ScheduleCalls, OperatorCalls):
    """Talks to one jobber server.

    Parameters:
        url: its address; a path in front of the API's own is kept (``https://example.org/jobber``).
        timeout: seconds to wait for an answer, beyond those that a call asks the server to wait.
        connect_timeout: seconds to wait for a connection.
        retries: how often a call that changes nothing is tried again after a lost connection; any call is, as long as
            no connection was made.
        connections: kept open at most.
        headers: sent with every request (an API gateway's key, say).

    Raises:
        InvalidRequest: ``url`` is no address of an HTTP server.

    Every method raises ``ServerUnreachable`` if no jobber server answers, and ``Unavailable`` or one of its kind if it
    answers that it cannot serve now.
    """

    def __init__(
        self,
        url: str = DEFAULT_SERVER,
        *,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        retries: int = 2,
        connections: int = 10,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._wire = Wire(
            url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            retries=retries,
            connections=connections,
            headers=headers or {},
        )

    @property
    def url(self) -> str:
        """The server's address, without a name and password."""
        return self._wire.url

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._wire.close()

    # -- tasks --------------------------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """Return the tasks that the server offers, by name.

        >>> [task.name for task in jobber.tasks()]
        ['get_profit_entries', 'get_profit_summary']
        """
        return [task_of(item) for item in self._wire.call("GET", "/tasks")["data"]]

    def task(self, name: str, *, sql: bool = False) -> Task:
        """Return one task, with its SQL if asked. Raises UnknownTask.

        >>> jobber.task("get_profit_entries", sql=True).sql
        'SELECT * FROM entries WHERE user_id = ?'
        """
        return task_of(
            self._wire.call("GET", f"/tasks/{segment(name, 'a task name')}", query={"sql": "1"} if sql else None)[
                "data"
            ]
        )

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        task: str,
        args: Sequence[Arg] | Mapping[str, Arg] | None = None,
        *,
        job_id: str | None = None,
        queue: str | None = None,
        eta: datetime | str | None = None,
        retries: int | None = None,
        ttl: int | None = None,
        db: str | None = None,
        results: str | None = None,
        priority: int | str | None = None,
        timeout: int | None = None,
        tags: Mapping[str, str] | None = None,
        depends_on: Sequence[str] | None = None,
        depends_policy: str | None = None,
        max_age: int | None = None,
        single_flight: bool | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobStatus:
        """Schedule a job; what is left out, the task or the server decides.

        Parameters:
            args: a sequence for positional placeholders, a mapping for named ones. A date or datetime is sent as
                ISO text (``2026-01-31``, ``2026-01-31 18:30:00``), one with a time zone in UTC.
            job_id: made up by the server if absent. With one, a lost answer does no harm: submitting again is refused
                while the first job lives.
            eta: not before; a datetime without a time zone is in UTC.
            ttl, timeout: seconds.
            priority: 1 low, 5 normal, 8 high, 10 critical; or one of these words.
            depends_on: IDs of jobs that must be finished before it may run.
            depends_policy: ``success`` (the default): those jobs must succeed; ``finished``: only finish.
            max_age: take the result of an equal job whose data are at most so many seconds old.
            single_flight: share the run of a pending or running job that asks for the same.
            callback_url: what the server calls when it is finished.
            idempotency_key: a text of the caller's own; the same call with the same key gets the first answer again.

        Raises:
            UnknownTask, InvalidRequest: nothing is scheduled.
            JobIsLive: a job of that ID is pending or running; ``error.job`` is its JobStatus.

        >>> jobber.submit("get_profit_entries", ["USER1"], job_id="USER1-profit", priority=8).state
        'PENDING'
        """
        body = job_body(
            {
                "args": args,
                "job_id": job_id,
                "queue": queue,
                "eta": eta,
                "retries": retries,
                "ttl": ttl,
                "db": db,
                "results": results,
                "priority": priority,
                "timeout": timeout,
                "tags": tags,
                "depends_on": depends_on,
                "depends_policy": depends_policy,
                "max_age": max_age,
                "single_flight": single_flight,
                "callback_url": callback_url,
            }
        )
        path = f"/tasks/{segment(task, 'a task name')}/jobs"
        return job_of(self._wire.call("POST", path, body=body, key=idempotency_key)["data"])

    def job(self, job_id: str, *, wait: float = 0.0) -> JobStatus:
        """Return the newest run of a job.

        Parameters:
            wait: seconds, at most 60, that the server may wait for its end before it answers.

        Raises:
            UnknownJob: no job of that ID is live or in the history.

        >>> jobber.job("USER1-profit", wait=10).finished
        True
        """
        query = {"wait": f"{wait:g}"} if wait else None
        return job_of(
            self._wire.call("GET", f"/jobs/{segment(job_id, 'a job ID')}", query=query, patience=wait)["data"]
        )

    def wait(
        self,
        job_id: str,
        timeout: float | None = None,
        on_progress: Callable[[JobStatus], object] | None = None,
    ) -> JobStatus:
        """Return a job once it is finished, however it ended.

        A server that is away for less than 30 s (a restart) does not end the wait.

        Parameters:
            timeout: seconds; None waits for ever.
            on_progress: called with each status that is seen, about twice a second.

        Raises:
            TimeoutError: the job is not finished; it goes on.
            UnknownJob: as ``job``.

        >>> jobber.wait("USER1-profit", 60, on_progress=lambda job: print(job.progress.rows)).state
        'SUCCESS'
        """
        return until_finished(lambda wait: self.job(job_id, wait=wait), f"job {job_id}", timeout, on_progress)

    def cancel(self, job_id: str, *, purge: bool = False) -> JobStatus:
        """Cancel a pending or running job. A running one stops soon after: ``wait`` for it if that matters.

        Parameters:
            purge: remove a job that is finished already, with its history and its result, instead of refusing.

        Raises:
            UnknownJob: as ``job``.
            JobIsFinished: there is nothing to cancel; ``error.job`` is its JobStatus.

        >>> jobber.cancel("USER1-profit").state
        'CANCELLED'
        """
        query = {"purge": "true"} if purge else None
        return job_of(self._wire.call("DELETE", f"/jobs/{segment(job_id, 'a job ID')}", query=query)["data"])

    def pending(self, queue: str, *, limit: int = 1000) -> list[JobStatus]:
        """Return the pending jobs of a queue in the order in which they will run, at most 1,000.

        >>> [job.job_id for job in jobber.pending("default")]
        ['USER2-profit', 'USER3-profit']
        """
        answer = self._wire.call("GET", f"/jobs/queue/{segment(queue, 'a queue name')}", query={"limit": str(limit)})
        return [job_of(item) for item in answer["data"]]

    # -- results ------------------------------------------------------------------------------------------------------

    def page(self, job_id: str, *, offset: int = 0, limit: int = 1000) -> Page:
        """Return one page of a job's rows.

        Parameters:
            limit: rows, at most 1,000.

        Raises:
            UnknownJob: as ``job``.
            ResultsNotReady: the job has not succeeded (yet); ``error.job`` is its JobStatus.
            ResultsGone: the result has expired or was lost.

        >>> jobber.page("USER1-profit", limit=2).columns
        (Column(name='total', type='NUMERIC(12,2)'), Column(name='entry_date', type='DATE'))
        """
        query = {"offset": str(offset), "limit": str(limit)}
        answer = self._wire.call("GET", f"/jobs/{segment(job_id, 'a job ID')}/results", query=query)
        return Page(
            answer["data"],
            columns_of(answer["columns"]),
            answer["count"],
            answer["next"],
            answer["run"],
            answer.get("newest", True),
        )

    def pages(self, job_id: str, *, offset: int = 0, size: int = 1000) -> Iterator[Page]:
        """Yield all pages of a job's rows from ``offset`` on.

        Raises:
            What ``page`` raises; ResultsGone also if the job ran again meanwhile: pages of two runs do not fit.

        >>> sum(len(page.rows) for page in jobber.pages("USER1-profit"))
        2
        """
        page = self.page(job_id, offset=offset, limit=size)
        run = page.run
        yield page
        while page.next is not None:
            page = self.page(job_id, offset=page.next, limit=size)
            if page.run != run:
                raise ResultsGone(f"job {job_id} ran again while its rows were read; read them from the start")
            yield page

    def results(self, job_id: str) -> Iterator[Row]:
        """Yield all rows of a job, each a dictionary in the order of the columns. Raises what ``pages`` raises.

        >>> next(jobber.results("USER1-profit"))
        {'total': Decimal('120.50'), 'entry_date': '2017-12-01'}
        """
        for page in self.pages(job_id):
            yield from page.rows

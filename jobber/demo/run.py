"""What the demo does, from the empty folder to the empty folder."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from jobber.client import Client, JobStatus, Page, Scalar
from jobber.demo import show
from jobber.demo.data import create_shop
from jobber.demo.server import HOST, QUERIES, Server, command, free_port, own_environment, write_config
from jobber.errors import JobberError

SERVE_PORT = 6060
#: Relative to the working folder.
SERVE_FOLDER = Path("jobber-data") / "demo"

#: Seconds that all jobs together may take, and between two looks at those that are not finished.
_PATIENCE, _LOOK = 300.0, 0.1
_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Step:
    """A job that the demo submits."""

    job_id: str
    task: str
    args: list[Scalar] | dict[str, Scalar]
    rows: int | None = None  # expected, where that is known


#: The job whose result is shown.
REPORT = "top-sellers"


def steps(rows: int) -> list[Step]:
    """Return the jobs of a demo with ``rows`` entries: one large, the others small, on two queues."""
    return [
        Step("all-entries", "export_entries", [], rows),
        Step(REPORT, "get_top_sellers", {"since": "2025-07-01", "sellers": 8}),
        *(Step(f"profit-USER{n}", "get_profit_summary", [f"USER{n}"]) for n in range(1, 5)),
        Step("entries-USER1", "get_profit_entries", ["USER1"]),
        Step("march-USER2", "get_profit_entries_by_date", ["USER2", "2025-03-01", "2025-04-01"]),
        Step("refunds-Amara", "find_orders", {"customer": "Amara", "status": "refunded"}),
        Step("daily-revenue", "get_daily_revenue", []),
        Step("cohorts", "get_cohorts", []),
    ]


class _Failed(Exception):
    """Raised when something went wrong that the server's log may explain."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


def demo(rows: int, port: int | None, *, as_json: bool) -> int:
    """Run the demo and return the exit status.

    Parameters:
        rows: of the largest table.
        port: to serve on; None picks a free one.
        as_json: print one JSON document instead of tables.
    """
    signal.signal(signal.SIGTERM, _end)
    screen = show.Silence() if as_json else show.Screen()
    try:
        with tempfile.TemporaryDirectory(prefix="jobber-demo-") as folder:
            outcome = _run(Path(folder), rows, port or free_port(), screen)
    except KeyboardInterrupt:
        show.error("interrupted; everything is stopped and removed")
        return 130
    except _Failed as failed:
        show.error(str(failed), failed.log.splitlines()[-_LOG_LINES:])
        return 1
    if as_json:
        show.print_json(outcome)
    else:
        screen.summary(outcome)
    return 0


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(folder: Path, rows: int, port: int, screen: show.Screen) -> show.Outcome:
    began = time.monotonic()
    shop = folder / "shop.db"
    create_shop(shop, rows)
    source_seconds = time.monotonic() - began
    screen.source(rows, source_seconds)
    config = write_config(folder, shop)
    server = Server(config, port)
    try:
        with server:
            began = time.monotonic()
            server.wait_ready()
            start_seconds = time.monotonic() - began
            screen.server(server.url, start_seconds)
            with Client(server.url) as client:
                began = time.monotonic()
                jobs = _submit_and_watch(client, steps(rows), screen)
                seconds = time.monotonic() - began
                screen.result(jobs[REPORT], _report(client, jobs))
            peak_memory = server.peak_memory()
    except (JobberError, TimeoutError) as error:
        raise _Failed(str(error), server.log()) from error
    return show.Outcome(
        source_rows=rows,
        source_seconds=source_seconds,
        start_seconds=start_seconds,
        jobs=list(jobs.values()),
        seconds=seconds,
        peak_memory=peak_memory or server.peak_memory(),
    )


def _report(client: Client, jobs: dict[str, JobStatus]) -> Page:
    failed = [job for job in jobs.values() if not job.succeeded]
    if failed:
        raise JobberError(
            "; ".join(f"job {job.job_id} ended as {job.state}: {job.error or 'no reason given'}" for job in failed)
        )
    return client.page(REPORT, limit=10)


def _submit_and_watch(client: Client, wanted: Sequence[Step], screen: show.Screen) -> dict[str, JobStatus]:
    """Submit all jobs and return them by ID, in the same order, when all are finished."""
    jobs: dict[str, JobStatus] = {}
    deadline = time.monotonic() + _PATIENCE
    with screen.progress({step.job_id: step.rows for step in wanted}) as progress:
        for step in wanted:
            jobs[step.job_id] = client.submit(step.task, step.args, job_id=step.job_id, tags={"from": "demo"})
            progress.update(jobs[step.job_id])
        while waiting := [job_id for job_id, job in jobs.items() if not job.finished]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished within {_PATIENCE:g} s: {', '.join(waiting)}")
            for job_id in waiting:
                jobs[job_id] = client.job(job_id)
                progress.update(jobs[job_id])
            time.sleep(_LOOK)
    return jobs


def serve(rows: int, port: int) -> NoReturn:
    """Set the demo up in ``SERVE_FOLDER`` and become its server.

    What an earlier call made there is used again.
    """
    screen = show.Screen()
    folder = SERVE_FOLDER.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    shop = folder / "shop.db"
    create_shop(shop, rows)
    screen.source(rows, time.monotonic() - began)
    config = write_config(folder, shop)
    screen.invitation(f"http://{HOST}:{port}", _shown(folder), _shown(QUERIES))
    sys.stdout.flush()
    # The server takes this process over: signals reach it, and its exit status is the demo's.
    os.execve(sys.executable, command(config, port), own_environment())  # noqa: S606  # our own program


def _shown(path: Path) -> Path:
    with suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path

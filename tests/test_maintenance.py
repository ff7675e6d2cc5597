"""What happens though nobody asks: lost workers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobber.config import AppSettings
from jobber.errors import Fenced
from jobber.jobs import Job, JobState
from jobber.maintenance import Maintenance
from tests.factories import make_job


def test_a_rescue_wakes_every_queue_that_has_something_to_run_since(tmp_path: Path) -> None:
    """The lost job's own, and that of the callback of a group whose last job it was."""
    lost = [make_job(job_id=name, state=JobState.STARTED, attempt=1, worker="w1") for name in ("gone", "back")]
    woken: list[str] = []
    fenced: list[Job] = []

    def rescue(job: Job, *, max_rescues: int) -> Any:
        if job.job_id == "back":
            raise Fenced("the worker is alive after all")
        return SimpleNamespace(job=make_job(state=JobState.FAILURE), wake=frozenset({"own", "of the callback"}))

    maintenance = Maintenance(
        settings=SimpleNamespace(app=AppSettings(data_dir=tmp_path, lease=0)),  # type: ignore[arg-type]
        store=SimpleNamespace(lost=lambda: lost, rescue=rescue),  # type: ignore[arg-type]
        queueing=SimpleNamespace(wake=woken.append),  # type: ignore[arg-type]
        janitor=SimpleNamespace(fence=fenced.append),  # type: ignore[arg-type]
        holder="test",
    )
    maintenance._rescue()

    assert sorted(woken) == ["of the callback", "own"]
    assert fenced == lost[:1]

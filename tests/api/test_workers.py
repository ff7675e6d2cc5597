"""Worker processes over HTTP."""

from __future__ import annotations

from pathlib import Path

from jobber.store import Progress
from tests.api.site import Site


def test_workers_are_told_with_their_memory_and_what_they_run(tmp_path: Path) -> None:
    site = Site(f"sqlite:///{tmp_path}/state.db", tmp_path)
    site.http.post("/tasks/between/jobs", {"job_id": "a", "args": {"first": 1}})
    job = site.claim()
    store = site.instance.store
    store.heartbeat(site._worker, {job.run: Progress("writing", 2, 40, 10, "history")}, lease=60, memory=50_000_000)
    store.register("gone", ["q"], 4, lease=0)

    gone, busy = site.http.get("/workers").data

    assert (gone["name"], gone["alive"], gone["slots"], gone["memory"], gone["busy"]) == ("gone", False, 4, None, 0)
    assert (busy["name"], busy["alive"], busy["slots"], busy["memory"], busy["busy"]) == ("w1", True, 1, 50_000_000, 1)
    assert busy["queues"] == ["reports", "default", "q"]
    (running,) = busy["jobs"]
    assert (running["job_id"], running["attempt"], running["task"]) == ("a", 1, "between")
    assert (running["phase"], running["rows"], running["db"]) == ("writing", 2, "main")
    progress = site.http.get("/jobs/a").data["progress"]
    assert progress["worker_memory"] == 50_000_000
    assert (progress["rows"], progress["total"], progress["total_basis"], progress["percent"]) == (2, 10, "history", 20)
    site.finish(job)
    assert site.http.get("/jobs/a").data["progress"]["worker_memory"] is None
    site.instance.close()

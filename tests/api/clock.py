"""An instance over a real store whose schedules become due when a test says so: the clock is moved by SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from jobber.jobs import Micros
from jobber.scheduling import Scheduler
from jobber.scheduling.planning import SECOND
from tests.api.http import Answer, Http
from tests.api.site import Site


class Clock:
    """An instance whose schedules become due when a test says so."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.http: Http = site.http
        self.store = site.instance.store
        self.woken: list[str] = []
        instance = site.instance
        self.scheduler = Scheduler(
            store=self.store, completer=instance.completer(), tasks=instance.tasks, wake=self.woken.append
        )

    def post(self, path: str, **body: Any) -> Answer:
        return self.http.post(path, body)

    def make(self, schedule_id: str, **body: Any) -> Any:
        """Make a schedule of tomorrow."""
        rhythm = {} if "cron" in body else {"interval": 86_400}
        plain = {"schedule_id": schedule_id, "task": "between", "args": {"first": 2}}
        return self.post("/schedules", **plain | rhythm | body).data

    def see(self, schedule_id: str) -> Any:
        return self.http.get(f"/schedules/{schedule_id}").data

    def now(self) -> Micros:
        return self.store.now() // SECOND * SECOND

    def come(self, schedule_id: str, at: Micros | None = None) -> None:
        """Make the next fire time of a schedule a moment, now if none is given, and fire all that is due."""
        move = text("UPDATE jobber_schedules SET next_at = :at WHERE schedule_id = :id")
        moved = {"at": self.now() if at is None else at, "id": schedule_id}
        self.store._database.write(lambda connection: connection.execute(move, moved))
        self.fire()

    def fire(self) -> None:
        self.scheduler.step(self.store.due(self.scheduler.tasks()).schedules)

    def another(self) -> Scheduler:
        """Return the scheduler of another instance, which goes on with the tasks that are loaded now."""
        instance, having = self.site.instance, self.site.instance.tasks()
        return Scheduler(store=self.store, completer=instance.completer(), tasks=lambda: having, wake=lambda _: None)

    def task_file(self, content: str | None) -> None:
        """Write or remove a task file, and reload."""
        file = self.site.instance.directories[0] / "nightly.sql"
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        self.site.instance.reload()
        self.fire()

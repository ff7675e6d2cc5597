"""The state database as the audit sees it: its tables, and a trail of its own that triggers write.

The trail knows what the tables forget: that a run was accepted, started and ended, how often, and in which order.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tests.servers import MariaDB, Postgres

_POSTGRESQL = """
CREATE TABLE chaos_trail (seq bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    event text NOT NULL, run bigint NOT NULL, attempt integer NOT NULL, state text NOT NULL, args text NOT NULL);
CREATE FUNCTION chaos_accepted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_trail (event, run, attempt, state, args) VALUES ('accepted', NEW.run, 0, '', NEW.args);
    RETURN NEW; END $$;
CREATE FUNCTION chaos_started() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_trail (event, run, attempt, state, args) VALUES ('started', NEW.run, NEW.attempt, '', '');
    RETURN NEW; END $$;
CREATE FUNCTION chaos_ended() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_trail (event, run, attempt, state, args)
    VALUES ('ended', NEW.run, NEW.attempt, NEW.state, NEW.args);
    RETURN NEW; END $$;
CREATE TRIGGER chaos_accepted AFTER INSERT ON jobber_jobs FOR EACH ROW EXECUTE FUNCTION chaos_accepted();
CREATE TRIGGER chaos_started AFTER INSERT ON jobber_running FOR EACH ROW EXECUTE FUNCTION chaos_started();
CREATE TRIGGER chaos_ended AFTER INSERT ON jobber_finished_jobs FOR EACH ROW EXECUTE FUNCTION chaos_ended();
"""
_MARIADB = (
    """CREATE TABLE chaos_trail (seq BIGINT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6) NOT NULL,
    event VARCHAR(20) NOT NULL, run BIGINT NOT NULL, attempt INT NOT NULL, state VARCHAR(20) NOT NULL,
    args LONGTEXT NOT NULL) DEFAULT CHARSET utf8mb4""",
    # UTC_TIMESTAMP is the statement's begin; these tell the moment of the insert.
    """CREATE TRIGGER chaos_accepted AFTER INSERT ON jobber_jobs FOR EACH ROW
    INSERT INTO chaos_trail (at, event, run, attempt, state, args)
    VALUES (CONVERT_TZ(SYSDATE(6), @@time_zone, '+00:00'), 'accepted', NEW.run, 0, '', NEW.args)""",
    """CREATE TRIGGER chaos_started AFTER INSERT ON jobber_running FOR EACH ROW
    INSERT INTO chaos_trail (at, event, run, attempt, state, args)
    VALUES (CONVERT_TZ(SYSDATE(6), @@time_zone, '+00:00'), 'started', NEW.run, NEW.attempt, '', '')""",
    """CREATE TRIGGER chaos_ended AFTER INSERT ON jobber_finished_jobs FOR EACH ROW
    INSERT INTO chaos_trail (at, event, run, attempt, state, args)
    VALUES (CONVERT_TZ(SYSDATE(6), @@time_zone, '+00:00'), 'ended', NEW.run, NEW.attempt, NEW.state, NEW.args)""",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Event:
    """A line of the trail."""

    seq: int
    at: datetime
    event: str
    run: int
    attempt: int
    state: str


@dataclass
class Run:
    """A run as the state database knows it in the end.

    Parameters:
        state: "" if the run is in no table.
        live: whether it is in the table of live jobs.
    """

    run: int
    salt: str = ""
    job_id: str = ""
    state: str = ""
    live: bool = False
    rows: int | None = None
    error: str = ""
    error_code: str = ""
    attempt: int = 0
    failures: int = 0
    rescues: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    events: list[Event] = field(default_factory=list)

    def told(self) -> str:
        """Return its story in a line."""
        steps = (
            f"{event.event}{f' {event.attempt}' if event.attempt else ''}{f' {event.state}' if event.state else ''} "
            f"{event.at:%H:%M:%S.%f}"
            for event in self.events
        )
        why = f" {self.error_code}: {self.error}" if self.error_code else ""
        return f"run {self.run} of {self.job_id} {self.state}{why} ({', '.join(steps)})"


class Trail:
    """Reads the state database, not through jobber."""

    def __init__(self, server: Postgres | MariaDB) -> None:
        self._server = server

    def install(self) -> None:
        """Begin the trail; the tables of jobber are there already."""
        if isinstance(self._server, Postgres):
            self._server.execute(_POSTGRESQL, "chaos")
        else:
            for statement in _MARIADB:
                self._server.execute(statement, "chaos")

    def live(self) -> int:
        """Return how many runs are not over."""
        return int(self._rows("SELECT count(*) FROM jobber_jobs")[0][0])

    def held(self) -> Sequence[Any]:
        """Return the attempts that hold a slot."""
        return self._rows("SELECT run, attempt, worker FROM jobber_running")

    def running(self, worker: str) -> dict[tuple[int, int], str]:
        """Return run, attempt and job ID of all that the workers of an instance hold."""
        found = self._rows(
            "SELECT r.run, r.attempt, j.job_id, w.name FROM jobber_running r JOIN jobber_jobs j ON j.run = r.run "
            "JOIN jobber_workers w ON w.id = r.worker ORDER BY r.run"
        )
        return {(run, attempt): job_id for run, attempt, job_id, name in found if name.startswith(worker)}

    def alive(self) -> set[str]:
        """Return the IDs of all runs that are not over."""
        return {job_id for (job_id,) in self._rows("SELECT job_id FROM jobber_jobs")}

    def runs(self) -> dict[int, Run]:
        """Return every run that there ever was."""
        events: defaultdict[int, list[Event]] = defaultdict(list)
        runs: dict[int, Run] = {}
        for seq, at, event, run, attempt, state, args in self._rows(
            "SELECT seq, at, event, run, attempt, state, args FROM chaos_trail ORDER BY seq"
        ):
            moment = at if at.tzinfo else at.replace(tzinfo=UTC)
            events[run].append(Event(seq, moment, event, run, attempt, state))
            known = runs.setdefault(run, Run(run))
            if event == "accepted":
                known.salt = _salt(args)
        columns = (
            "run, job_id, args, state, rows_of, error, error_code, attempt, failures, rescues, started_at, finished_at"
        )
        quote = '"rows"' if isinstance(self._server, Postgres) else "`rows`"
        for table in ("jobber_jobs", "jobber_finished_jobs"):
            for row in self._rows(f"SELECT {columns.replace('rows_of', quote)} FROM {table}"):
                run = runs.setdefault(row[0], Run(row[0]))
                run.live = table == "jobber_jobs"
                run.job_id, run.salt = row[1], _salt(row[2])
                run.state, run.rows, run.error, run.error_code = row[3:7]
                run.attempt, run.failures, run.rescues = row[7:10]
                run.started_at, run.finished_at = _moment(row[10]), _moment(row[11])
        for number, run in runs.items():
            run.events = events[number]
        return runs

    def _rows(self, sql: str) -> Sequence[Any]:
        if isinstance(self._server, MariaDB):
            return self._server.execute(sql, "chaos")
        with psycopg.connect(self._server.dsn("chaos")) as connection:
            return connection.execute(sql).fetchall()


def _salt(args: str) -> str:
    return str(json.loads(args).get("salt", ""))


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)

"""Statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from jobber.answers import rfc3339
from jobber.api.blueprint import Blueprint, service
from jobber.api.envelopes import success
from jobber.api.list_schemas import StatsAnswer, StatsQuery
from jobber.errors import StateUnavailable
from jobber.jobs import JobState
from jobber.store.statistics import Statistics, Tally

blueprint = Blueprint("stats", __name__)


@blueprint.operation("GET", "/stats", answer=StatsAnswer, query=StatsQuery(), errors=(StateUnavailable,))
def stats(query: dict[str, Any]) -> Response:
    """What has become of the jobs of the last hours

    Counts, failures, how long jobs waited and ran, throughput. Made once in a few seconds, less often the longer it
    takes, and shared by all who ask.
    """
    return success(_answer(service().statistics.look(query["hours"])))


def _answer(figures: Statistics) -> dict[str, Any]:
    return {
        "since": rfc3339(figures.since),
        "until": rfc3339(figures.until),
        "complete": figures.complete,
        "sample": figures.sample,
        "states": {state.value: count for state, count in figures.states.items()},
        "tasks": _tallies(figures.tasks),
        "queues": _tallies(figures.queues),
        "databases": _tallies(figures.databases),
        "interval_s": figures.interval,
        "series": [
            {"at": rfc3339(point.at), "finished": point.finished, "failed": point.failed, "rows": point.rows}
            for point in figures.series
        ],
    }


def _tallies(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    return {name: _tally(tally) for name, tally in sorted(tallies.items())}


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "count": tally.states.total(),
        "states": {state.value: count for state, count in sorted(tally.states.items())},
        "failed": tally.states[JobState.FAILURE],
        "failures": dict(tally.failures.most_common()),
        "rows": tally.rows,
        "queued_ms": {f"p{p}": ms for p, ms in tally.queued.items()},
        "run_ms": {f"p{p}": ms for p, ms in tally.run.items()},
    }

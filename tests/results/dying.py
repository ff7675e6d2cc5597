"""A worker that ends like one that was killed, at one of its steps; importable, so that a fork server can start it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from jobber.cancellation import Cancellation
from jobber.config import ResultsSettings
from jobber.results.base import Target
from jobber.results.mysql import MysqlResults, feeding, ledger, tables
from tests.results.conftest import BULKY, COLUMNS


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _then_die(function: Callable[..., Any]) -> Callable[..., None]:
    def wrapped(*given: Any, **named: Any) -> None:
        function(*given, **named)
        die()

    return wrapped


def write_on_mysql(url: str, step: str) -> None:
    """Run the second run of job ``a``, and die by SIGKILL at a step of it."""
    results = MysqlResults(ResultsSettings(name="main", url=url, engine="mysql"))
    steps: dict[str, tuple[Any, str, Callable[..., None]]] = {
        "claimed": (results, "_claim", _then_die(results._claim)),
        "created": (tables, "create", _then_die(tables.create)),
        "stored": (feeding.LoadData, "finish", _then_die(feeding.LoadData.finish)),
        "renaming": (tables, "rename", die),
        "renamed": (tables, "rename", _then_die(tables.rename)),
        "published": (ledger, "set_published", _then_die(ledger.set_published)),
    }
    if step in steps:
        setattr(*steps[step])
    with results.begin(Target("results_a", "a", 2, 1, 3600), COLUMNS, Cancellation()) as attempt:
        attempt.write_batch(BULKY)
        if step == "loading":
            die()
        attempt.publish()

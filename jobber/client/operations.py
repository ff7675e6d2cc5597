"""The client's calls of operators: queues, databases, workers, figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobber.client.wire import Wire, segment

#: What the server tells of a queue, a database, a worker; docs/http-api.md has the keys.
Facts = Mapping[str, Any]


class OperatorCalls:
    """The part of ``Client`` that is for operators."""

    _wire: Wire

    def queues(self) -> list[Facts]:
        """Return all queues, by name.

        >>> [(queue["queue"], queue["pending"], queue["running"]) for queue in jobber.queues()]
        [('default', 12, 4), ('low', 3100, 0)]
        """
        found: list[Facts] = self._wire.call("GET", "/queues")["data"]
        return found

    def pause_queue(self, queue: str, reason: str = "") -> Facts:
        """Let no job of a queue start; those that run go on."""
        return self._turn("queues", queue, "pause", {"reason": reason} if reason else {})

    def resume_queue(self, queue: str) -> Facts:
        """Let jobs of a queue start again."""
        return self._turn("queues", queue, "resume", None)

    def databases(self) -> list[Facts]:
        """Return all source databases, by name."""
        found: list[Facts] = self._wire.call("GET", "/databases")["data"]
        return found

    def pause_database(self, database: str, reason: str = "") -> Facts:
        """Let no job start that reads a database; those that run go on. Raises UnknownDatabase."""
        return self._turn("databases", database, "pause", {"reason": reason} if reason else {})

    def resume_database(self, database: str) -> Facts:
        """Let jobs start again that read a database. Raises UnknownDatabase."""
        return self._turn("databases", database, "resume", None)

    def workers(self) -> list[Facts]:
        """Return all worker processes, by name, with the jobs that they run."""
        found: list[Facts] = self._wire.call("GET", "/workers")["data"]
        return found

    def stats(self, hours: float = 24) -> Facts:
        """Return figures of the last hours: counts, percentiles, failures and throughput.

        >>> jobber.stats(hours=1)["states"]["SUCCESS"]
        4711
        """
        found: Facts = self._wire.call("GET", "/stats", query={"hours": f"{hours:g}"}, patience=30.0)["data"]
        return found

    def _turn(self, kind: str, name: str, what: str, body: Mapping[str, Any] | None) -> Facts:
        path = f"/{kind}/{segment(name, f'a {kind[:-1]} name')}/{what}"
        found: Facts = self._wire.call("POST", path, body=body)["data"]
        return found

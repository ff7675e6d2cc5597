"""A server with one route that does nothing, with the very settings of granian that jobber uses: ``PORT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import flask
import granian

from jobber.cli import child
from jobber.cli.processes import Plan


def app() -> flask.Flask:
    """Return the app."""
    made = flask.Flask("empty")

    @made.post("/tasks/<task>/jobs")
    def empty(task: str) -> dict[str, str]:
        return {"status": "success", "data": task}

    return made


class Same(granian.Granian):  # type: ignore[misc]  # has no types
    """Granian as jobber makes it, for another app."""

    def serve(self, *_: Any, **options: Any) -> None:
        """Serve the empty app."""
        super().serve(**{**options, "target_loader": app})


def main() -> None:
    """Serve until a signal."""
    granian.Granian = Same
    nothing: Any = None
    child.run_api(
        Plan(
            settings=nothing,
            directories=(Path(),),
            queues=(),
            name="",
            slots=1,
            host="127.0.0.1",
            port=int(sys.argv[1]),
        )
    )


if __name__ == "__main__":
    main()

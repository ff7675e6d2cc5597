"""Imports point down the floors that ARCHITECTURE.md shows, and no module outgrows a sitting."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jobber"

FLOORS = [
    {"errors"},
    {
        "config",
        "jobs",
        "columns",
        "sqltext",
        "sqllexer",
        "aside",
        "cancellation",
        "deadlines",
        "mysql",
        "bell",
        "filequeue",
        "identities",
        "rabbitqueue",
        "redisqueue",
    },
    {"store", "sources", "results", "tasks"},
    {
        "answers",
        "bulk",
        "changing",
        "service",
        "completion",
        "execution",
        "expecting",
        "figures",
        "maintenance",
        "janitor",
        "watcher",
        "queueing",
        "readiness",
        "leading",
        "rescue",
        "held",
        "relay",
        "replicas",
        "history",
        "joblog",
        "notifications",
        "publishing",
        "webhooks",
        "scheduling",
    },
    {"api", "worker", "consumer"},
    {"instance"},
    {"cli", "demo", "client"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in {"__init__", "__main__"}
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms of jobber that a module imports, those under TYPE_CHECKING and in functions included."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "jobber":
                rooms |= {alias.name for alias in node.names}
            elif node.module.startswith("jobber."):
                rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jobber.")}
    return rooms & FLOOR_OF.keys()


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in MODULES} <= FLOOR_OF.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room_of(path)
    above = {room for room in imported_rooms(path) - {here} if FLOOR_OF[room] > FLOOR_OF[here]}

    assert not above


def test_the_client_imports_nothing_else_of_jobber_but_errors() -> None:
    for path in MODULES:
        if room_of(path) == "client":
            assert imported_rooms(path) <= {"client", "errors"}


def test_no_module_outgrows_a_sitting() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}

    assert not {path: length for path, length in lengths.items() if length > 450}

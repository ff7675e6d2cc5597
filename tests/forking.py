"""Processes that die and compete in tests: forked from one that has imported what they need, which takes longest."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

_context = get_context("forkserver")
_context.set_forkserver_preload(["tests.store.crowd", "tests.results.dying", "alembic.command"])


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Run ``target``, of one of the modules above (the last is what migrations import), in a process of its own."""
    process = _context.Process(target=target, args=args, daemon=True)
    process.start()
    return process

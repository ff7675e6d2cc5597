"""What jobber needs while there is nothing to do: one process that answers HTTP, one that works, their supervisor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.measuring import MEGABYTES, PERCENT, Figure, Kind
from benchmarks.sites import config
from tests.e2e.running import Running, jobber

TASK = "-- name: one\nSELECT 1 AS one;\n"
#: Of a core; megabytes.
ON_SERVERS, EMBEDDED, MEMORY = 1.0, 2.0, 250


def measure(lab: Lab) -> Iterator[Figure]:
    """Measure an instance on servers, and one that needs none."""
    if lab.has("postgresql") and lab.has("redis"):
        with lab.database() as url, lab.room() as folder:
            yield from one(lab, folder, config(folder, url, lab.redis.url), "PostgreSQL and Redis", ON_SERVERS)
    with lab.room() as folder:
        (folder / "source.db").touch()
        embedded = f'[app]\ndata_dir = "{folder}/data"\n[db.source]\nurl = "sqlite:///{folder}/source.db"\n'
        yield from one(lab, folder, embedded, "embedded", EMBEDDED)


def one(lab: Lab, folder: Path, text: str, name: str, goal: float) -> Iterator[Figure]:
    """Measure an instance of ten threads."""
    with jobber(folder, text, {"bench.sql": TASK}, "--worker-concurrency", "10") as running:
        lab.say(f"{name}, {lab.scale.idle:.0f} s")
        time.sleep(min(10, lab.scale.idle))  # what is done once after the start
        began, before = time.monotonic(), busy(running)
        time.sleep(lab.scale.idle)
        share = (busy(running) - before) / (time.monotonic() - began) * 100
        infos = [process.memory_full_info() for process in running.family()]
    own, whole = (sum(getattr(info, kind) for info in infos) / 2**20 for kind in ("pss", "rss"))
    yield Figure(f"processor, {name}", PERCENT, [share], kind=Kind.MOST, goal=goal, note="of one core")
    yield Figure(
        f"memory, {name}",
        MEGABYTES,
        [own],
        kind=Kind.MOST,
        goal=MEMORY,
        note=f"what {len(infos)} processes share counts once (PSS); their RSS adds up to {whole:.0f} MB",
    )


def busy(running: Running) -> float:
    """Return the seconds of processor time of all processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in running.family())

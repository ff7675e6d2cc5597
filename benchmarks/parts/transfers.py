"""Whole jobs of many rows between all engines, beside the engines' own tools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from benchmarks.lab import Lab
from benchmarks.measuring import SECONDS, Figure, alternate
from benchmarks.transfer import ENGINES, FILLERS, QUERY, baseline, in_process

NAMES = {"postgresql": "PostgreSQL", "mysql": "MariaDB", "sqlite": "SQLite"}
TOOLS = {
    ("postgresql", "postgresql"): "psql COPY (query) piped into psql COPY",
    ("postgresql", "mysql"): "psql COPY piped into LOAD DATA LOCAL",
    ("mysql", "postgresql"): "mariadb --quick piped into psql COPY",
    ("mysql", "mysql"): "mariadb --quick piped into LOAD DATA LOCAL",
    ("sqlite", "sqlite"): "ATTACH and CREATE TABLE AS",
}
GOALS = {
    ("postgresql", "postgresql"): 0.9,
    ("postgresql", "mysql"): 0.8,
    ("mysql", "postgresql"): 0.8,
    ("mysql", "mysql"): 0.6,
    ("sqlite", "sqlite"): 0.5,
}


def measure(lab: Lab) -> Iterator[Figure]:
    """Measure every pair of engines that there are."""
    with sources(lab) as urls:
        for source in ENGINES:
            for results in ENGINES:
                if {source, results} <= urls.keys():
                    yield from pair(lab, urls, source, results)


@contextmanager
def sources(lab: Lab) -> Iterator[dict[str, URL]]:
    """Give a database with the same table on each engine that there is."""
    with ExitStack() as stack:
        folder: Path = stack.enter_context(lab.room())
        urls = {"sqlite": URL.create("sqlite", database=str(folder / "source.db"))}
        for engine in ("postgresql", "mysql"):
            if lab.has(engine):
                urls[engine] = make_url(stack.enter_context(lab.database(engine)))
        for engine, url in urls.items():
            lab.say(f"filling {NAMES[engine]} with {lab.scale.rows:,} rows")
            FILLERS[engine](url, lab.scale.rows)
        yield urls


def pair(lab: Lab, urls: dict[str, URL], source: str, results: str) -> Iterator[Figure]:
    """Measure one pair."""
    name = f"{NAMES[source]} → {NAMES[results]}"
    work = f"{lab.scale.rows:,} rows, {name}"
    in_process(source, results, urls, QUERY.replace("ORDER", "WHERE id <= 100 ORDER"))  # so that its types are there

    def job() -> float:
        took, rows, _ = in_process(source, results, urls)
        if rows != lab.scale.rows:
            raise RuntimeError(f"{rows} of {lab.scale.rows} rows")
        return took

    def tools() -> float:
        took = baseline(source, results, urls)
        assert took is not None
        return took

    def say(text: str) -> None:
        lab.say(f"{name}, {text}")

    if (source, results) not in TOOLS:
        say(f"{lab.scale.rounds} rounds")
        yield Figure(work, SECONDS, [job() for _ in range(lab.scale.rounds)])
        return
    ours, theirs = alternate(lab.scale.rounds, job, tools, say)
    yield Figure(work, SECONDS, ours, theirs, against=TOOLS[source, results], goal=GOALS[source, results])

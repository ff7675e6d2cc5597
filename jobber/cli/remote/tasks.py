"""``jobber tasks``: what a server offers."""

from __future__ import annotations

from typing import Any

import click

from jobber.cli.remote.command import remote
from jobber.cli.remote.terminal import facts, print_json, show, table, text
from jobber.client import Client, Task


@click.command()
@click.argument("task", required=False)
@click.option("--sql", is_flag=True, help="With the SQL of TASK.")
@remote
def tasks(client: Client, task: str | None, *, sql: bool, as_json: bool) -> None:
    """List the tasks of the server, or show all that one needs to submit TASK."""
    if sql and not task:
        raise click.UsageError("--sql needs the name of a task")
    found = [client.task(task, sql=sql)] if task else client.tasks()
    if as_json:
        print_json(found[0].raw if task else [item.raw for item in found])
        return
    if task:
        _show_task(found[0])
        return
    rows = ((item.name, item.queue, ", ".join(item.db), _first_line(item.description)) for item in found)
    show(table(["TASK", "QUEUE", "DB", "DESCRIPTION"], rows))


def _first_line(description: str) -> str:
    return text(next(iter(description.splitlines()), ""))


def _show_task(task: Task) -> None:
    said = task.raw
    description = [("", text(line)) for line in task.description.splitlines()]
    params = [("", _param(param)) for param in task.params]
    show(
        facts(
            [
                ("task", task.name),
                *_headed("description", description),
                *_headed("params", params),
                ("placeholders", _placeholders(said["placeholders"])),
                ("queue", task.queue),
                ("databases", ", ".join(task.db)),
                ("results", ", ".join(task.results)),
                ("ttl", _seconds(said["ttl"], "for ever")),
                ("timeout", _seconds(said["timeout"], "the limit of the database")),
                ("priority", str(said["priority"])),
                ("retries", str(said["retries"])),
                ("max rows", f"{said['max_rows']:,}" if said["max_rows"] else "no limit"),
                ("concurrency", str(said["concurrency"]) if said["concurrency"] else "no limit"),
                *([("cron", text(f"{said['cron']} ({said['timezone'] or 'UTC'})"))] if said.get("cron") else []),
                *([("index", text(", ".join(said["index"])))] if said["index"] else []),
                ("file", text(f"{said['file']}:{said['line']}")),
            ]
        )
    )
    if task.sql is not None:
        click.echo("\n" + "\n".join(text(line) for line in task.sql.splitlines()))


def _headed(name: str, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name if position == 0 else "", line) for position, (_, line) in enumerate(lines)]


def _param(param: Any) -> str:
    """Return a param in the words of its tag."""
    declared = f"{param['name']} {param['type']}"
    if param["required"]:
        return text(f"{declared} (required)")
    default = param["default"]
    return text(f"{declared} = {'null' if default is None else repr(default) if default == '' else text(default)}")


def _placeholders(placeholders: Any) -> str:
    if placeholders["names"]:
        return text(", ".join(f":{name}" for name in placeholders["names"]))
    return f"{placeholders['count']} positional" if placeholders["count"] else "none"


def _seconds(seconds: int, none: str) -> str:
    return f"{seconds:,} s" if seconds else none

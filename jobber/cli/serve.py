"""``jobber``, ``jobber check`` and ``jobber reload``: what an operator runs on the server's machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

import jobber
from jobber import queueing, tasks
from jobber.cli import child
from jobber.cli.flags import Flags
from jobber.cli.logs import configure_logging
from jobber.cli.processes import RELOAD, Child, Plan, ask
from jobber.cli.rehearsal import rehearse
from jobber.cli.starting import Start
from jobber.cli.supervisor import Supervisor, check_address, reload_running
from jobber.errors import ConfigError, JobberError, StateUnavailable, TaskFileError
from jobber.instance import Instance
from jobber.scheduling import disobeyed
from jobber.tasks import TaskSet


def serve(flags: Flags) -> int:
    """Check everything, start the processes, and watch over them until a signal; return the exit status."""
    began = time.monotonic()
    host, port = flags.address()
    flags.queue_names()
    settings = flags.settings()
    configure_logging(settings.app.log_level)
    _may_write(settings.app.data_dir)
    if not flags.worker_only:
        check_address(host, port)
    instance = Instance(settings, flags.folders())
    plan = Plan(
        settings=settings,
        directories=tuple(flags.directories),
        queues=flags.queue_names(),
        name=flags.worker_name,
        slots=flags.worker_concurrency,
        host=host,
        port=port,
    )

    def reload() -> list[str]:
        fresh = Instance(settings, flags.folders())
        try:
            refuse_bad_tasks(fresh)
            fresh.announce_limits()
            warnings = (*fresh.tasks().warnings, *disobeyed(fresh.store, fresh.tasks()))
        finally:
            fresh.close()
        return [_count(len(fresh.tasks()), "task"), *(f"warning: {warning}" for warning in warnings)]

    supervisor = Supervisor(plan, workers=flags.worker_processes, api=not flags.worker_only, reload=reload)
    supervisor.listen()
    for line in _headline(instance, plan, flags):
        click.echo(line)
    _warn((*settings.warnings, *instance.tasks().warnings))
    start = Start(instance)

    def begin() -> Child:
        return ask(
            "start",
            lambda: start.wait(settings.app.start_timeout, strict=flags.strict),
            then=start.finish,
            commands={RELOAD: lambda: _ask_about_new_tasks(instance)},
        )

    starter = begin()
    try:
        child.prepare(api=not flags.worker_only, redis=settings.broker.url.startswith("redis"))
        _warn(supervisor.answer(starter))
    except BaseException:
        starter.kill()
        raise
    return supervisor.run(
        lambda: click.echo(
            click.style(f"{'ready':<11}", fg="green") + f"after {time.monotonic() - began:.1f} s; Ctrl-C stops"
        ),
        starter,
        begin,
    )


def _ask_about_new_tasks(instance: Instance) -> None:
    """Load the tasks that the supervisor has just accepted: a database that is still missed is asked about these."""
    with suppress(TaskFileError):  # they are being edited again
        instance.reload()


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(click.style("warning  ", fg="yellow") + warning)


def _may_write(data_dir: Path) -> None:
    """Raise ConfigError if this account can write nothing in the data folder, which need not be there yet."""
    there = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"app.data_dir: jobber may not write in {data_dir}, where each instance notes that it runs; name a folder "
            'of its own under [app], like data_dir = "/var/lib/jobber"'
        )


def refuse_bad_tasks(instance: Instance) -> None:
    """Prepare every task on every database that it may run on and that is there.

    Raises:
        TaskFileError: all tasks that a database refuses, with file, line and the engine's words.
    """
    prepared = tasks.prepare(instance.tasks().values(), instance.sources)
    if prepared.problems:
        raise TaskFileError("\n".join(prepared.problems))


def _headline(instance: Instance, plan: Plan, flags: Flags) -> Iterable[str]:
    settings = instance.settings
    loaded: TaskSet = instance.tasks()
    yield click.style(f"jobber {jobber.__version__}", bold=True)
    files = len({task.file for task in loaded.values()})
    facts = {
        "config": str(flags.config or "environment and defaults"),
        "listening": "nowhere (worker only)" if flags.worker_only else f"http://{_shown(plan.host)}:{plan.port}",
        "state": _engine_of(settings.state.url),
        "broker": "embedded (files)" if queueing.embedded(settings) else settings.broker.url.split(":", 1)[0],
        "databases": _named((name, source.engine) for name, source in instance.sources.items()),
        "results": _named((name, backend.engine) for name, backend in instance.results.items()),
        "tasks": f"{len(loaded)} from {_count(files, 'file')}: {_some(loaded, 6)}",
        "queues": _some(plan.queues or instance.queues()),
        "workers": f"{flags.worker_processes} × {flags.worker_concurrency} jobs at a time",
        "data": str(settings.app.data_dir),
    }
    for name, value in facts.items():
        yield click.style(f"{name:<11}", fg="cyan") + value


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _engine_of(url: str) -> str:
    engine = url.split(":", 1)[0].split("+", 1)[0]
    return "sqlite (embedded)" if engine == "sqlite" else engine


def _named(items: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({engine})" for name, engine in items)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _some(names: Iterable[str], most: int = 12) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" … and {len(every) - most} more" if len(every) > most else "")


@dataclass(frozen=True, slots=True)
class _Finding:
    what: str
    ok: bool
    text: str

    def mark(self) -> str:
        """Return how a line about it begins."""
        if self.what == _WARNING:
            return click.style("warn", fg="yellow")
        return click.style("ok  ", fg="green") if self.ok else click.style("FAIL", fg="red")


#: What a finding is about that is no mistake.
_WARNING = "warning"


def check(flags: Flags, *, as_json: bool) -> int:
    """Check config, task files, databases and broker; print what was found and return the exit status."""
    findings = list(_findings(flags))
    failed = any(not finding.ok for finding in findings)
    if as_json:
        items = [{"what": finding.what, "ok": finding.ok, "message": finding.text} for finding in findings]
        click.echo(json.dumps({"ok": not failed, "checks": items}, ensure_ascii=False, indent=2))
        return int(failed)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        head, *rest = finding.text.splitlines() or [""]
        click.echo(f"{finding.mark()} {'' if finding.what == _WARNING else finding.what:<{width}}  {head}")
        for line in rest:
            click.echo(f"{'':<{width + 7}}{line}")
    return int(failed)


def _findings(flags: Flags) -> Iterable[_Finding]:
    try:
        settings = flags.settings()
        _may_write(settings.app.data_dir)
        yield _Finding("config", True, str(flags.config or "environment and defaults"))
        instance = Instance(settings, flags.folders())
    except JobberError as error:
        yield _Finding("config" if isinstance(error, ConfigError) else "task files", False, error.message)
        return
    loaded = instance.tasks()
    yield _Finding("task files", True, f"{_count(len(loaded), 'task')}: {_some(loaded)}")
    for warning in (*settings.warnings, *loaded.warnings):
        yield _Finding(_WARNING, True, warning)
    for of in instance.dependencies():
        if of.kind in ("state", "broker", "events"):  # more is asked of the others
            yield _tried(of.kind, of.ask, "reachable")
    with suppress(StateUnavailable):  # said of the state itself, and it has none where it has no tables yet
        for warning in disobeyed(instance.store, loaded):
            yield _Finding(_WARNING, True, warning)
    for name, backend in instance.results.items():
        yield _tried(f"results {name}", partial(rehearse, backend), f"reachable, writable ({backend.engine})")
    prepared = tasks.prepare(loaded.values(), instance.sources)
    for name, source in instance.sources.items():
        why = prepared.unavailable.get(name)
        yield _Finding(f"database {name}", why is None, why or f"reachable ({source.engine})")
    unasked = f"; not asked: {', '.join(prepared.unavailable)}" if prepared.unavailable else ""
    text = "\n".join(prepared.problems) or _count(prepared.prepared, "statement") + " prepared" + unasked
    yield _Finding("tasks", not prepared.problems, text)
    instance.close()


def _tried(what: str, attempt: Callable[[], None], text: str) -> _Finding:
    try:
        attempt()
    except JobberError as error:
        return _Finding(what, False, error.message)
    return _Finding(what, True, text)


def reload_all(flags: Flags) -> int:
    """Make every running instance of this config's data folder reload; print each answer and return the status."""
    data_dir = flags.settings().app.data_dir
    try:
        answers = reload_running(data_dir)
    except PermissionError:
        raise ConfigError(f"the instances of {data_dir} belong to another account; reload as that one") from None
    if not answers:
        click.echo(f"no jobber runs with the data folder {data_dir}", err=True)
        return 1
    for pid, ok, message in answers:
        said = message if ok else f"\n{message}"
        click.echo(f"process {pid} {'reloaded' if ok else 'refused, the old tasks stay'}: {said}".replace("\n", "\n  "))
    return int(not all(ok for _, ok, _ in answers))

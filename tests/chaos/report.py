"""What people see: how far a run is, its table, and its violations."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.run import Report

#: Violations of one check that are printed; all stand in the report file.
_SHOWN = 10


class Screen:
    """Prints a bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=120)
        self._progress: Progress | None = None
        self._plain = not self._console.is_terminal

    def __enter__(self) -> Screen:
        if not self._plain:
            columns = (
                TextColumn("{task.fields[name]}"),
                BarColumn(30),
                TimeElapsedColumn(),
                TextColumn("{task.fields[said]}"),
            )
            self._progress = Progress(*columns, console=self._console)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def line(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def teller(self, name: str) -> Teller:
        """Return what tells how far the run of that name is."""
        return Teller(self, self._progress, name)

    def table(self, report: Report) -> None:
        """Print what a run has to tell, as one table."""
        options = report.options
        where = "on the server of sources and results" if options.shared else "on a server of its own"
        table = Table(title=f"chaos, seed {options.seed}: state on {options.state}, {where}", show_lines=False)
        table.add_column("")
        table.add_column("what", overflow="fold")
        table.add_column("count", justify="right")
        table.add_column("", overflow="fold")
        sections = {
            "faults": report.faults,
            "submissions": report.submissions,
            "answers": report.refusals,
            "outcomes": report.outcomes,
        }
        for name, counts in sections.items():
            for number, (what, count) in enumerate(counts.items()):
                table.add_row("" if number else name, what, f"{count:,}")
            table.add_section()
        for number, (what, fact) in enumerate(report.facts.items()):
            shown = (
                f"{fact:,}"
                if isinstance(fact, int | float)
                else str(sum(fact.values()) if isinstance(fact, dict) else fact)
            )
            table.add_row("" if number else "facts", what, shown)
        table.add_section()
        for number, check in enumerate(report.checks):
            said = f"[red]{len(check.violations)} violations[/red]" if check.violations else "[green]ok[/green]"
            table.add_row("" if number else "checks", check.name, f"{check.looked:,}", said)
        self._console.print(table)

    def violations(self, report: Report) -> None:
        """Print what is wrong, and where the logs are."""
        for check in report.checks:
            for text in check.violations[:_SHOWN]:
                self.line(f"VIOLATION {check.name}: {text}")
            if len(check.violations) > _SHOWN:
                self.line(f"… and {len(check.violations) - _SHOWN} more of: {check.name}")
        if report.violations or report.options.keep:
            self.line(f"logs and report.json: {report.folder}")


class Teller:
    """Tells how far one run is."""

    def __init__(self, screen: Screen, progress: Progress | None, name: str) -> None:
        self._screen, self._progress, self._name = screen, progress, name
        self._task = progress.add_task("", total=1.0, name=name, said="") if progress else None

    def __call__(self, text: str, part: float) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=part, said=text)
        else:
            self._screen.line(f"{self._name} {part:4.0%} {text}")

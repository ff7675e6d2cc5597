"""Values, tables and documents on standard output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import simplejson
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {"SUCCESS": "green", "FAILURE": "red", "CANCELLED": "yellow", "STARTED": "cyan", "RETRY": "magenta"}
#: Characters that would steer a terminal; data comes from databases.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
#: Wider than any row: what is not a terminal gets whole lines.
_ENDLESS = 1_000_000


def console(*, err: bool = False) -> Console:
    """Return a console of standard output or standard error that shows text as it is."""
    made = Console(stderr=err, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _ENDLESS
    return made


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Return a value as JSON text that keeps every digit."""
    return simplejson.dumps(value, use_decimal=True, indent=indent)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json_text(value))


def text(value: Any) -> str:
    """Return a value as it is shown: exact, on one line, harmless to the terminal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        value = simplejson.dumps(value, use_decimal=True, ensure_ascii=False)
    shown = str(value)
    if shown.isprintable():  # much faster to tell, and true of nearly all
        return shown
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)


def time(at: datetime | None) -> str:
    """Return a time to the second, or nothing."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")


def state(name: str) -> Text:
    """Return the name of a job's state in its colour."""
    return Text(name, style=_COLOURS.get(name, ""))


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[bool] = ()) -> Table:
    """Return a table of a few rows; ``right`` says which columns are aligned to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    whole = not console().is_terminal
    for position, heading in enumerate(headings):
        justify = "right" if position < len(right) and right[position] else "left"
        made.add_column(text(heading), justify=justify, no_wrap=whole, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*row)
    return made


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Return names and values below each other."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    return grid


def show(shown: Table) -> None:
    """Print a table; without the blanks that would fill its last column up."""
    out = console()
    if out.is_terminal:
        out.print(shown)
        return
    with out.capture() as capture:
        out.print(shown)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))

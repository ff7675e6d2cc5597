"""``jobber results``: rows page by page, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click
from rich.cells import cell_len
from rich.text import Text

from jobber.cli.remote.command import remote
from jobber.cli.remote.terminal import console, json_text, show, table, text
from jobber.client import Client, Column, Page

_NUMBERS = ("BIGINT", "NUMERIC", "REAL", "DECIMAL", "DOUBLE")
_PAGE = 1000


@click.command()
@click.argument("job_id")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most rows to show.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Rows to skip.")
@click.option("--all", "everything", is_flag=True, help="All rows, as plain lines.")
@remote
def results(client: Client, job_id: str, *, limit: int, offset: int, everything: bool, as_json: bool) -> None:
    """Show the rows of a job."""
    pages = client.pages(job_id, offset=offset, size=_PAGE if everything else min(limit, _PAGE))
    if not everything:
        pages = _first(pages, limit)
    if as_json:
        _write_json(pages)
        return
    shown, count = _write_tables(pages) if console().is_terminal and not everything else _write_lines(pages)
    if count is not None and shown and offset + shown < count:
        click.echo(f"rows {offset + 1} to {offset + shown} of {count}; --all shows all", err=True)


def _first(pages: Iterator[Page], limit: int) -> Iterator[Page]:
    """Yield pages with ``limit`` rows together, and ask for no further one."""
    for page in pages:
        yield replace(page, rows=page.rows[:limit])
        limit -= len(page.rows)
        if limit <= 0:
            return


def _write_json(pages: Iterator[Page]) -> None:
    """Print one document, a row a line.

    Should the server fail on the way, the document stays unfinished: nobody takes it for the whole result.
    """
    separator = "\n"
    for number, page in enumerate(pages):
        if number == 0:
            columns = [{"name": column.name, "type": column.type} for column in page.columns]
            head = json_text({"columns": columns, "count": page.count})
            click.echo(f'{head.removesuffix("}").rstrip()},\n  "rows": [', nl=False)
        if page.rows:
            lines = ",\n".join(f"    {json_text(row, indent=None)}" for row in page.rows)
            click.echo(separator + lines, nl=False)
            separator = ",\n"
    click.echo("\n  ]\n}")


def _write_tables(pages: Iterator[Page]) -> tuple[int, int | None]:
    """Print a table per page; return how many rows were shown and how many there are."""
    shown, count = 0, None
    for page in pages:
        types = [Text(text(column.type), style="dim") for column in page.columns]
        body = ([_cell(row[column.name]) for column in page.columns] for row in page.rows)
        show(table([column.name for column in page.columns], (types, *body), _right(page.columns)))
        shown, count = shown + len(page.rows), page.count
    return shown, count


def _cell(value: Any) -> Text:
    return Text(text(value), style="dim" if value is None else "")


def _write_lines(pages: Iterator[Page]) -> tuple[int, int | None]:
    """Print a line per row; a column is as wide as the widest value so far. Returns as ``_write_tables``."""
    shown, count = 0, None
    widths: list[int] = []
    for page in pages:
        lines = [[text(row[column.name]) for column in page.columns] for row in page.rows]
        if not widths:
            lines = [
                [text(column.name) for column in page.columns],
                [text(column.type) for column in page.columns],
                *lines,
            ]
            widths = [0] * len(page.columns)
        widths = (
            [
                max(width, max(map(_width, cells), default=0))
                for width, cells in zip(widths, zip(*lines, strict=True), strict=True)
            ]
            if lines
            else widths
        )
        right = _right(page.columns)
        if lines:
            click.echo("\n".join(_line(line, widths, right) for line in lines))
        shown, count = shown + len(page.rows), page.count
    return shown, count


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    for cell, width, to_the_right in zip(cells, widths, right, strict=True):
        blanks = " " * (width - _width(cell))
        parts.append(blanks + cell if to_the_right else cell + blanks)
    return "  ".join(parts).rstrip()


def _width(cell: str) -> int:
    """Return the columns that a text takes on a terminal."""
    return len(cell) if cell.isascii() else cell_len(cell)


def _right(columns: Sequence[Column]) -> list[bool]:
    return [column.type.startswith(_NUMBERS) for column in columns]

"""Draws the figures of a run as SVG files, readable on light and on dark pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

#: Pixels: of the whole, from where bars begin, of a row, and what is left for the value behind a bar.
WIDTH, LEFT, ROW, RIGHT = 840, 380, 26, 140
TOP = 56
#: Ratios beyond are drawn as long.
LONGEST = 1.5

#: Viewers that do not know the preference of their reader show the first colours.
STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.faint { fill: #59636e; font-size: 12px }
.met { fill: #2a78d6 }
.missed { fill: #c9820a }
.free { fill: #818b98 }
.axis { stroke: #59636e; stroke-dasharray: 3 3 }
.goal { stroke: #1f2328; stroke-width: 2 }
.spread { stroke: #1f2328 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .faint { fill: #9198a1 }
  .axis { stroke: #9198a1 }
  .goal, .spread { stroke: #e6edf3 }
  .met { fill: #4493f8 }
  .missed { fill: #d9a13b }
  .free { fill: #7d8590 }
}"""

Row = Mapping[str, Any]


def draw(found: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Draw what a run found and return the files: its figures, and a plot of each part that has some to compare."""
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    data = into / "figures.json"
    data.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    drawn = [data]
    for part in found["parts"]:
        for kind, title, plot in (
            ("ratio", "as a share of the baseline's speed", _ratios),
            ("more", "beside the baseline", _pairs),
            ("most", "", _plain),
        ):
            rows = [row for row in part["figures"] if row["kind"] == kind and row["value"] is not None]
            if kind == "most":  # of what is allowed
                rows = [row for row in rows if row["goal"] is not None]
            if rows and part["name"] != "claim":
                path = into / f"{part['name']}{'' if kind == 'ratio' else f'-{kind}'}.svg"
                path.write_text(plot(part["title"] + (f", {title}" if title else ""), rows))
                drawn.append(path)
    return drawn


def _ratios(title: str, rows: Sequence[Row]) -> str:
    """Bars of ratios; 1 is the baseline, a mark is the goal, a thin line the spread."""
    scale = (WIDTH - LEFT - RIGHT) / LONGEST

    def bar(row: Row, y: float) -> str:
        length = min(row["value"], LONGEST) * scale
        low, high = (LEFT + min(row[end], LONGEST) * scale for end in ("least", "most"))
        middle = y + 9
        shown = f"{row['value']:.2f}"
        return (
            _bar(row, y, length, shown, least=LONGEST * scale)
            + f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
            + (_goal(LEFT + row["goal"] * scale, y) if row["goal"] is not None else "")
        )

    one = LEFT + scale
    axis = (
        f'<line class="axis" x1="{one:.1f}" x2="{one:.1f}" y1="{TOP - 8}" y2="{TOP + ROW * len(rows)}"/>'
        f'<text class="faint" x="{one:.1f}" y="{TOP - 12}" text-anchor="middle">baseline</text>'
    )
    return _whole(
        title, rows, bar, axis, "a bar to the mark or beyond meets the goal; the thin line is the spread of the rounds"
    )


def _pairs(title: str, rows: Sequence[Row]) -> str:
    """Bars of jobber's figures; the part of the baseline is grey, the mark is the baseline and what may be added."""
    longest = max(max(row["jobber"], row["baseline"] + (row["goal"] or 0)) for row in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest

    def bar(row: Row, y: float) -> str:
        shown = f"{row['jobber']:,.1f} {row['unit']} (+{max(row['value'], 0):,.1f})"
        grey = min(row["baseline"], row["jobber"]) * scale
        mark = LEFT + (row["baseline"] + row["goal"]) * scale if row["goal"] is not None else None
        return (
            _bar(row, y, row["jobber"] * scale, shown, least=(mark or LEFT) - LEFT)
            + f'<rect class="free" x="{LEFT}" y="{y}" width="{grey:.1f}" height="18" rx="2"/>'
            + (_goal(mark, y) if mark is not None else "")
        )

    return _whole(title, rows, bar, "", "grey is the baseline; a bar up to the mark meets the goal")


def _plain(title: str, rows: Sequence[Row]) -> str:
    """Bars of shares of what is allowed."""

    def bar(row: Row, y: float) -> str:
        full = (WIDTH - LEFT - RIGHT) / 1.2
        share = min(row["value"] / row["goal"], 1.2) if row["goal"] else 0
        shown = f"{row['value']:,.{2 if row['unit'] == '%' else 0}f} of {row['goal']:g} {row['unit']}"
        return _bar(row, y, share * full, shown, least=full) + _goal(LEFT + full, y)

    return _whole(title, rows, bar, "", "a bar up to the mark meets the goal")


def _bar(row: Row, y: float, length: float, shown: str, least: float = 0) -> str:
    """Return a row's name, its bar, and its value behind whatever else is drawn there."""
    style = {True: "met", False: "missed", None: "free"}[row["met"]]
    return (
        f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(row["work"])}</text>'
        f'<rect class="{style}" x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="18" rx="2"/>'
        f'<text x="{LEFT + max(length, least) + 8:.1f}" y="{y + 14}">{escape(shown)}</text>'
    )


def _goal(x: float, y: float) -> str:
    return f'<line class="goal" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + 21}"/>'


def _whole(title: str, rows: Sequence[Row], bar: Callable[[Row, float], str], axis: str, legend: str) -> str:
    height = TOP + ROW * len(rows) + 30
    bars = "\n".join(bar(row, TOP + ROW * place) for place, row in enumerate(rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n"
        f'<text class="title" x="8" y="20">{escape(title)}</text>\n{bars}\n{axis}\n'
        f'<text class="faint" x="8" y="{height - 8}">{escape(legend)}</text>\n</svg>\n'
    )

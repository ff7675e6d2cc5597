"""TOML as text: the comments of a file, which tomllib leaves out, and values as they are written."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from jobber.config.problems import KeyPath

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADING = re.compile(r"\s*\[[^\[].*")
_KEY = re.compile(r"\s*([A-Za-z0-9_.-]+|\"[^\"\\]*\"|'[^']*')\s*=")


@dataclass(slots=True)
class Comments:
    """The comments that belong to a section or a key.

    Parameters:
        above: whole lines, with their ``#``; an empty one stands for blank lines between two comments.
        beside: what follows on the same line, with its ``#``, or nothing.
        below: whole lines at the end of a section.
    """

    above: list[str] = field(default_factory=list)
    beside: str = ""
    below: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return all of it as lines of their own."""
        return [*self.above, *([self.beside] if self.beside else []), *self.below]


def comments(text: str) -> dict[KeyPath, Comments]:
    """Return the comments of a valid TOML text by the section or key that they stand at; those at its end by ``()``.

    A comment belongs to what comes next, but to the section above where it follows that without a blank line and no
    key of it comes any more; one inside of a value belongs to its key. Lines inside of a value of several lines are
    taken for what they look like, which only ever costs a comment its place.
    """
    found: dict[KeyPath, Comments] = {}
    section: KeyPath = ()
    here: KeyPath = ()
    pending: list[str] = []
    attached = False  # whether ``pending`` began right below a line that was no comment
    for line in text.split("\n"):
        stripped = line.strip()
        if not stripped:
            if pending and pending[-1]:
                pending.append("")
            attached = attached and bool(pending)
            continue
        if stripped.startswith("#"):
            pending.append(stripped)
            continue
        if _HEADING.fullmatch(line) and (path := _path(line)):
            if attached and "" in pending and section in found:
                end = pending.index("")
                found[section].below, pending = pending[:end], pending[end + 1 :]
            section = here = path
        elif key := _KEY.match(line):
            here = (*section, *(_path(f"{key[1]} = 0") or (key[1],)))
        else:  # inside of a value
            if here in found:
                found[here].above += [*_without_end(pending), *([inside] if (inside := _beside(line)) else [])]
                pending = []
            continue
        found[here] = Comments(_without_end(pending), _beside(line))
        pending = []
        attached = True
    if pending:
        found[()] = Comments(_without_end(pending))
    return found


def _without_end(lines: list[str]) -> list[str]:
    return lines[:-1] if lines and not lines[-1] else lines


def _path(line: str) -> KeyPath | None:
    """Return the keys that a line of TOML leads to; None if it is no such line."""
    try:
        table: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    path = []
    while isinstance(table, dict) and table:
        [(key, table)] = table.items()
        path.append(key)
    return tuple(path)


def _beside(line: str) -> str:
    """Return the comment at the end of a line that is valid by itself, or as a part of a list over several lines."""
    for match in re.finditer("#", line):
        for before, after in _AROUND:
            if all(_is_valid(f"{before}{text}{after}") for text in (line[: match.start()], line)):
                return line[match.start() :].strip()
    return ""


#: What makes a line whole: nothing, the end of a list that it begins, both ends of one, the begin of one that it ends.
_AROUND = (("", ""), ("", "\n]"), ("list = [", "\n]"), ("list = [", ""))


def _is_valid(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def heading(path: KeyPath) -> str:
    """Return the line that begins a section."""
    return f"[{'.'.join(part if _BARE.fullmatch(part) else value(part) for part in path)}]"


def value(found: str | bool | int | float | list[str]) -> str:
    """Return a value as TOML writes it."""
    if isinstance(found, str):
        return json.dumps(found, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(found, list):
        return f"[{', '.join(value(item) for item in found)}]"
    return str(found).lower()

"""Tags: what the leading comments of a query say about how to run it. docs/task-files.md describes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jobber.config import Settings, seconds
from jobber.config.problems import nearest
from jobber.config.schemas import QUEUE_NAME, RETRY_ON
from jobber.jobs import PRIORITIES, PRIORITY_HIGHEST, PRIORITY_LOWEST
from jobber.tasks import params
from jobber.tasks.cron import check_cron, check_timezone

_TAG_LINE = re.compile(r"(?P<word>[A-Za-z][\w-]*)\s*:\s*(?P<value>.*)", re.DOTALL)

#: Another name of a tag.
ALIASES: Mapping[str, str] = {"conc": "concurrency"}

# -- values -----------------------------------------------------------------------------------------------------------


def _names(value: str, known: Iterable[str], what: str) -> tuple[str, ...]:
    known = list(known)
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise ValueError("names nothing")
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}{nearest(name, known)} (configured: {', '.join(known)})")
    return tuple(dict.fromkeys(names))


def _databases(value: str, settings: Settings) -> tuple[str, ...]:
    return _names(value, settings.databases, "database")


def _results(value: str, settings: Settings) -> tuple[str, ...]:
    return _names(value, settings.results, "results database")


def _queue(value: str, _: Settings) -> str:
    if not QUEUE_NAME.match(value):
        raise ValueError("must be one name of 1 to 100 characters A-Z a-z 0-9 _ : -")
    return value


_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _flag(value: str, _: Settings) -> bool:
    if value.lower() not in _FLAGS:
        raise ValueError("must be 1 or 0")
    return _FLAGS[value.lower()]


def _whole(at_least: int, at_most: int = 2**31 - 1) -> Callable[[str, Settings], int]:
    def convert(value: str, _: Settings) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", value) or not at_least <= int(value) <= at_most:
            raise ValueError(f"must be a whole number between {at_least} and {at_most}")
        return int(value)

    return convert


def _priority(value: str, _: Settings) -> int:
    number = str(PRIORITIES.get(value.lower(), value))
    if not re.fullmatch("[0-9]{1,2}", number) or not PRIORITY_LOWEST <= int(number) <= PRIORITY_HIGHEST:
        raise ValueError(f"must be {PRIORITY_LOWEST} to {PRIORITY_HIGHEST} or one of {', '.join(PRIORITIES)}")
    return int(number)


def _duration(value: str, _: Settings) -> int:
    duration = seconds(value)
    if duration != int(duration):
        raise ValueError("must be whole seconds")
    return int(duration)


def _columns(value: str, _: Settings) -> tuple[str, ...]:
    columns = [column.strip() for column in value.split(",")]
    if not all(columns):
        raise ValueError("has an empty column name between its commas")
    return tuple(dict.fromkeys(columns))


def _param(value: str, _: Settings) -> params.Param:
    return params.parse(value)


def _cron(value: str, _: Settings) -> str:
    check_cron(value)
    return " ".join(value.split())


def _timezone(value: str, _: Settings) -> str:
    check_timezone(value)
    return value


def _retry_on(value: str, _: Settings) -> str:
    if value.lower() not in RETRY_ON:
        raise ValueError(f"must be {' or '.join(RETRY_ON)}")
    return value.lower()


#: Every tag and what turns its text into its value; ValueError says what is wrong.
TAGS: Mapping[str, Callable[[str, Settings], Any]] = {
    "db": _databases,
    "queue": _queue,
    "results": _results,
    "raw": _flag,
    "concurrency": _whole(0),
    "timeout": _duration,
    "ttl": _duration,
    "priority": _priority,
    "retries": _whole(0),
    "retry_on": _retry_on,
    "max_rows": _whole(0),
    "param": _param,
    "index": _columns,
    "cron": _cron,
    "timezone": _timezone,
}
#: Words that are a slip away from a tag, and yet are found in descriptions.
_PROSE: Mapping[str, str] = {"params": "param", "row": "raw"}
#: Tags that goyesql, the parser of sql-jobber and dungbeetle, finds in and below the SQL too; and only in lower case.
_ANYWHERE = re.compile(r"(?:db|queue|results|raw|conc|concurrency)\s*:\s*\S")
#: Tags that may stand more than once.
_REPEATED = frozenset({"param"})


def warnings(comments: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return line and text of what is right in leading comments, and yet not what one may expect of it."""
    found = ((line, _TAG_LINE.fullmatch(text)) for line, text in comments)
    words = [(line, match["word"].lower()) for line, match in found if match]
    return [
        (line, f"{word}: is no tag, so the line is description; the tag is {_PROSE[word]}")
        for line, word in words
        if word in _PROSE
    ]


def counts_anywhere(comment: str) -> bool:
    """Whether a comment is a tag wherever it stands on a line of its own."""
    return bool(_ANYWHERE.match(comment))


# -- reading them -----------------------------------------------------------------------------------------------------


def read(
    comments: Iterable[tuple[int, str]], settings: Settings
) -> tuple[dict[str, Any], list[str], list[tuple[int, str]]]:
    """Sort leading comments into tags and description.

    Parameters:
        comments: line and text of each.
        settings: names the databases that there are.

    Returns:
        The tags' values (``param`` as a list), the lines of the description, and line and text of each problem.
    """
    values: dict[str, Any] = {}
    description: list[str] = []
    problems: list[tuple[int, str]] = []
    for line, text in comments:
        found = _TAG_LINE.fullmatch(text)
        word = found["word"].lower() if found else ""
        tag = ALIASES.get(word, word)
        if found is None or (tag not in TAGS and (word in _PROSE or not _misspelt(word))):
            description.append(text)
            continue
        value = found["value"].strip()
        if tag not in TAGS:
            problems.append((line, f"there is no tag {word}; did you mean {_misspelt(word)}?"))
        elif not value:
            problems.append((line, f"{word}: has no value"))
        elif tag in values and tag not in _REPEATED:
            problems.append((line, f"{word}: is given twice"))
        else:
            try:
                converted = TAGS[tag](value, settings)
            except ValueError as error:
                problems.append((line, f"{word}: {error}"))
                # Given, though wrongly: a second one is still a second one.
                values.setdefault(tag, [] if tag in _REPEATED else None)
                continue
            if tag in _REPEATED:
                values.setdefault(tag, []).append(converted)
            else:
                values[tag] = converted
    return values, description, problems


def _misspelt(word: str) -> str | None:
    """Return the tag that ``word`` is one slip away from; None if it is just a word of a comment."""
    return next((tag for tag in (*TAGS, *ALIASES) if word != tag and _one_slip(word.replace("-", "_"), tag)), None)


def _one_slip(word: str, tag: str) -> bool:
    """Whether one letter too many, too few, changed, or two swapped make ``word`` of ``tag``."""
    if abs(len(word) - len(tag)) > 1:
        return False
    start = 0
    while start < min(len(word), len(tag)) and word[start] == tag[start]:
        start += 1
    rest, wanted = word[start:], tag[start:]
    return (
        rest[1:] == wanted[1:]
        or rest[1:] == wanted
        or rest == wanted[1:]
        or (rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:])
    )

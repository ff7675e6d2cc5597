"""``-- param:`` tags: the types of arguments, checked when a job is submitted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

from jobber.config.problems import nearest
from jobber.errors import InvalidRequest
from jobber.jobs import Args, Scalar


@dataclass(frozen=True, slots=True)
class Param:
    """A ``-- param: NAME TYPE [= DEFAULT]`` tag."""

    name: str
    type: str  # integer | number | text | boolean | date | timestamp
    required: bool
    default: str | int | Decimal | bool | None = None


# -- types ------------------------------------------------------------------------------------------------------------

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_FIRST, _LAST = -(2**63), 2**63 - 1


def _integer(value: Scalar) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    # The range comes first: int() of 1e999999999 would fill the memory.
    if isinstance(value, Decimal) and value.is_finite() and _FIRST <= value <= _LAST and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not _FIRST <= value <= _LAST:
        raise ValueError("an integer of at most 64 bits")
    return value


def _number(value: Scalar) -> int | Decimal:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        try:
            value = Decimal(value)
        except InvalidOperation:  # pragma: no cover  # the pattern admits nothing that Decimal refuses
            raise ValueError("a number") from None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        raise ValueError("a number")
    return value


def _text(value: Scalar) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def _boolean(value: Scalar) -> bool:
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _date(value: Scalar) -> str:
    wanted = "a date such as 2026-01-31"
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError(wanted)
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError(wanted) from None
    return value


def _timestamp(value: Scalar) -> str:
    wanted = "a timestamp such as 2026-01-31 23:59:59"
    if isinstance(value, str) and _DATE.fullmatch(value):
        return _date(value)
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        raise ValueError(wanted)
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(wanted) from None
    return value


#: Each type and what turns an argument into it; ValueError says what was wanted.
TYPES: Mapping[str, Callable[[Scalar], str | int | Decimal | bool]] = {
    "integer": _integer,
    "number": _number,
    "text": _text,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
}

_TAG = re.compile(r"(?P<name>[^\W\d]\w*)\s+(?P<type>\w+)\s*(?:=\s*(?P<default>.*))?", re.DOTALL)


def parse(text: str) -> Param:
    """Return the param that a tag's value declares: ``NAME TYPE`` or ``NAME TYPE = DEFAULT``.

    A default of ``null`` makes the param optional without a value; text may stand in single quotes.

    Raises:
        ValueError: it is not of that form, the type is unknown, or the default is not of the type.
    """
    declared = _TAG.fullmatch(text.strip())
    if declared is None:
        raise ValueError(f"must be NAME TYPE or NAME TYPE = DEFAULT, with a type of {', '.join(TYPES)}")
    name, kind, default = declared["name"], declared["type"].lower(), declared["default"]
    if kind not in TYPES:
        raise ValueError(f"{kind} is not one of the types {', '.join(TYPES)}{nearest(kind, TYPES)}")
    if default is None:
        return Param(name, kind, required=True)
    default = default.strip()
    if not default:
        raise ValueError("has an = but no default after it; write '' for empty text")
    if default.lower() == "null":
        return Param(name, kind, required=False)
    if len(default) >= 2 and default[0] == default[-1] == "'":
        default = default[1:-1].replace("''", "'")
    try:
        return Param(name, kind, required=False, default=TYPES[kind](default))
    except ValueError as wanted:
        raise ValueError(f"the default of {name} must be {wanted}") from None


# -- checking a job's args --------------------------------------------------------------------------------------------


def check(params: Sequence[Param], args: Args, names: Sequence[str]) -> Args:
    """Return ``args`` converted to the types of ``params`` and filled up with their defaults.

    ``null`` stands for a value that is not there. Text in the form of a number, a boolean or a date is taken as such:
    some clients send every argument as text.

    Parameters:
        params: where placeholders are positional, one for each, in their order.
        args: what came.
        names: of all placeholders; empty where they are positional.

    Raises:
        InvalidRequest: ``details["field"]`` is ``args``.
    """
    if names:
        if not isinstance(args, dict):
            if args:
                raise InvalidRequest(
                    f"args must be an object with the names {', '.join(names)}, not a list", field="args"
                )
            args = {}
        return _check_named(params, args, names)
    if isinstance(args, dict):
        if args:
            raise InvalidRequest(f"args must be a list of {_count(len(params), 'value')}, not an object", field="args")
        args = []
    return _check_listed(params, args)


def _check_named(params: Sequence[Param], args: dict[str, Scalar], names: Sequence[str]) -> dict[str, Scalar]:
    by_name = {param.name: param for param in params}
    checked: dict[str, Scalar] = {}
    problems = [f"there is no argument {name}{nearest(name, names)}" for name in args if name not in set(names)]
    for name in names:
        if param := by_name.get(name):
            _take(param, args.get(name), checked, problems)
        elif name in args:
            checked[name] = args[name]
        else:
            problems.append(f"{name} is missing")
    _refuse(problems)
    return checked


def _check_listed(params: Sequence[Param], args: list[Scalar]) -> list[Scalar]:
    checked: dict[str, Scalar] = {}
    problems: list[str] = []
    if len(args) > len(params):
        problems.append(f"{_count(len(args), 'argument')} came, but the task takes at most {len(params)}")
    for position, param in enumerate(params):
        _take(param, args[position] if position < len(args) else None, checked, problems)
    _refuse(problems)
    return list(checked.values())


def _take(param: Param, value: Scalar, checked: dict[str, Scalar], problems: list[str]) -> None:
    if value is None:
        if param.required:
            problems.append(f"{param.name} is missing ({param.type})")
        checked[param.name] = param.default
        return
    try:
        checked[param.name] = TYPES[param.type](value)
    except ValueError as wanted:
        problems.append(f"{param.name} must be {wanted}, not {_shown(value)}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _shown(value: Scalar) -> str:
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise InvalidRequest("args: " + "; ".join(problems), field="args")

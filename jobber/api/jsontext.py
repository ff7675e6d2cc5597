"""JSON in and out without losing a digit: what Flask's own provider cannot do.

Out: simplejson where there is a Decimal, because it writes one as a number with all its digits, from C; the standard
library, which refuses it, where there is none.
In: the standard library with ``Decimal`` for numbers with a fraction or an exponent, and stricter than its default:
no ``NaN``, no key twice, no half of a surrogate pair, no number that no database could hold.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import simplejson
from flask.json.provider import JSONProvider

from jobber.errors import InvalidRequest

#: PostgreSQL's numeric, the widest of all (https://www.postgresql.org/docs/current/datatype-numeric.html): digits
#: before and after the point. Without a bound ``1e999999999`` would be a gigabyte of zeros once written out.
_DIGITS_BEFORE, _DIGITS_AFTER = 131_072, 16_383

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

#: A string, also one without its end, or a bracket.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_CLOSER = {"{": "}", "[": "]"}


def loads(body: bytes) -> Any:
    """Return the value that a request body holds; an empty body is an empty object.

    Raises:
        InvalidRequest: it is no JSON (with line and column), or JSON that RFC 8259 calls unpredictable.
    """
    try:
        text = body.decode("utf-8-sig")  # some shells put a byte order mark in front
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: byte {error.start} cannot stand there") from None
    if not text.strip():
        return {}
    try:
        value = _decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False, default=str).encode()
    except json.JSONDecodeError as error:
        raise _malformed(text, error) from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except UnicodeEncodeError:
        raise InvalidRequest("the body holds half of a surrogate pair (\\ud800 to \\udfff), which is no text") from None
    except ValueError:  # Python reads integers of at most 4,300 digits
        raise InvalidRequest("the body holds an integer of too many digits") from None
    return value


def _malformed(text: str, error: json.JSONDecodeError) -> InvalidRequest:
    """Say what is wrong and where; of a body that ends too early, what it still lacks."""
    end = len(text.rstrip())
    if error.pos > end:
        error = json.JSONDecodeError(error.msg, text, end)
    at = f"line {error.lineno}, column {error.colno}"
    what = f"{error.msg} at {at}"
    if error.msg.startswith("Unterminated string"):  # no string holds a line break: it runs to the end
        what = f'it ends too early, inside the text that begins at {at}; still missing: "{_closers(text)}'
    elif error.pos == end:
        what = f"it ends too early, at {at}; still missing: {_closers(text)}"
    return InvalidRequest(f"the body is not valid JSON: {what}", line=error.lineno, column=error.colno)


def _closers(text: str) -> str:
    """Return the brackets that close what is still open at the end of ``text``."""
    still_open: list[str] = []
    for found in _STRING_OR_BRACKET.finditer(text):
        token = found[0]
        if token in _CLOSER:
            still_open.append(_CLOSER[token])
        elif token in _CLOSER.values():
            still_open.pop()
    return _shown("".join(reversed(still_open)))


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise InvalidRequest(f"the number {_shown(text)} is out of range") from None
    exponent = number.as_tuple().exponent
    if number.adjusted() >= _DIGITS_BEFORE or not isinstance(exponent, int) or exponent < -_DIGITS_AFTER:
        raise InvalidRequest(f"the number {_shown(text)} is out of range")
    return number


def _no_constant(text: str) -> NoReturn:
    raise InvalidRequest(f"{text} is not JSON; send it as text if the query wants it")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRequest(f"{_shown(twice)} stands twice in one object", field=twice[:100])
    return value


#: Made once: to make them takes longer than to use them.
_decode = json.JSONDecoder(parse_float=_decimal, parse_constant=_no_constant, object_pairs_hook=_object).decode
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _shown(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def dumps(value: Any, **options: Any) -> str:
    """Return ``value`` as ASCII JSON text; a Decimal becomes a number with all its digits."""
    if not options:
        # The standard library writes the same in a fraction of the time, but for Decimals.
        try:
            return _encode(value)
        except TypeError:
            pass
    options.setdefault("separators", (",", ":"))
    return simplejson.dumps(value, use_decimal=True, allow_nan=False, **options)


class Provider(JSONProvider):
    """Makes Flask and flask-smorest write JSON as the rest of the API does."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return dumps(obj, **kwargs)

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return loads(s.encode() if isinstance(s, str) else s)

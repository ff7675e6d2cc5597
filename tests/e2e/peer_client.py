"""The peer's Go client as it encodes and decodes: an answer that Go could not read is an error here too.

Go's rules are those of https://pkg.go.dev/encoding/json: a struct's keys match without regard to case, of several that
match the last one stands, null changes nothing, unknown keys are skipped, and a value of another type is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import urllib3

# -- decoding ---------------------------------------------------------------------------------------------------------


class GoError(Exception):
    """What the client returns as its error."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Number:
    """A JSON number as it was written: 1.0 is no integer in Go."""

    text: str


@dataclass(frozen=True)
class Object:
    """A JSON object with its keys in order, those that come twice too."""

    pairs: Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Int:
    """A Go integer: its least and its greatest value."""

    least: int
    most: int


@dataclass(frozen=True)
class Time:
    """A ``time.Time``."""


@dataclass(frozen=True)
class Pointer:
    """A pointer, nil where the value is null."""

    to: Any


#: Shapes: ``str`` is a string, a list holds the shape of a slice's elements, a mapping the fields of a struct.
Shape = Any
INT, UINT32, TIME = Int(-(2**63), 2**63 - 1), Int(0, 2**32 - 1), Time()
#: An ``interface{}``: takes any value.
ANY = object()
#: What a ``time.Time`` is before somebody sets it.
ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


def decode(text: str | bytes, shape: Shape) -> Any:
    """Decode JSON text as ``json.Unmarshal`` does into a fresh variable. Raises GoError."""
    try:
        value = json.loads(
            text, object_pairs_hook=Object, parse_int=Number, parse_float=Number, parse_constant=_no_constant
        )
    except ValueError as error:
        raise GoError(f"error unmarshaling JSON response: {error}") from error
    return _into(shape, value, _zero(shape), "")


def _no_constant(text: str) -> None:
    raise ValueError(f"invalid character {text[0]!r} looking for beginning of value")


def _zero(shape: Shape) -> Any:
    if isinstance(shape, Mapping):
        return {name: _zero(field) for name, field in shape.items()}
    if isinstance(shape, list):
        return []
    if isinstance(shape, Int):
        return 0
    return "" if shape is str else ZERO_TIME if shape is TIME else None


def _into(shape: Shape, value: Any, old: Any, at: str) -> Any:
    """Return what a variable of ``shape`` that holds ``old`` holds once ``value`` is decoded into it."""
    if shape is ANY:
        return value
    if isinstance(shape, Pointer):
        return None if value is None else _into(shape.to, value, _zero(shape.to), at)
    if value is None:
        return [] if isinstance(shape, list) else old
    if isinstance(shape, Mapping) and isinstance(value, Object):
        return _struct(shape, value, dict(old), at)
    if isinstance(shape, list) and isinstance(value, list):
        (element,) = shape
        return [_into(element, item, _zero(element), f"{at}[{place}]") for place, item in enumerate(value)]
    if shape is str and isinstance(value, str):
        return value
    if isinstance(shape, Int) and isinstance(value, Number) and re.fullmatch(r"-?\d+", value.text):
        number = int(value.text)
        if shape.least <= number <= shape.most:
            return number
    if shape is TIME and isinstance(value, str):
        return _time(value, at)
    raise GoError(f"cannot unmarshal {value!r} into {at or 'the value'}, which is {shape!r}")


def _struct(fields: Mapping[str, Shape], value: Object, decoded: dict[str, Any], at: str) -> dict[str, Any]:
    by_folded_name = {name.lower(): name for name in fields}
    for key, item in value.pairs:
        name = by_folded_name.get(key.lower())
        if name is not None:
            decoded[name] = _into(fields[name], item, decoded[name], f"{at}.{key}")
    return decoded


def _time(text: str, at: str) -> datetime:
    if found := _RFC3339.fullmatch(text):
        seconds, fraction, zone = found.groups()
        try:
            return datetime.fromisoformat(f"{seconds}{(fraction or '.0')[:7]}{zone}")
        except ValueError:
            pass
    raise GoError(f"parsing time {text!r} of {at}: it is not RFC 3339")


# -- the client's structs ---------------------------------------------------------------------------------------------

JOB_RESP = {"job_id": str, "task": str, "queue": str, "eta": Pointer(TIME), "retries": INT}
JOB_STATUS_RESP = {"job_id": str, "state": str, "count": INT, "error": str}
GROUP_RESP = {"group_id": str, "jobs": [JOB_RESP]}
GROUP_STATUS_RESP = {"group_id": str, "state": str, "jobs": [JOB_STATUS_RESP]}
JOB_MESSAGE = {
    **dict.fromkeys(("ID", "Status", "Queue", "Schedule", "PrevErr"), str),
    **dict.fromkeys(("MaxRetry", "Retried"), UINT32),
    "ProcessedAt": TIME,
    "Job": Pointer({"Task": str}),
}


#: A struct's fields by their JSON names.
Struct = dict[str, Any]


def job_req(task: str, **said: Any) -> Struct:
    """Return a ``JobReq``: fields that nobody sets are there with Go's zero values."""
    blank = {"task": task, "job_id": "", "queue": "", "eta": "", "retries": 0, "ttl": 0, "args": None, "db": ""}
    assert said.keys() <= blank.keys()
    return blank | said


def encode(value: Any) -> bytes:
    """Return what ``json.Marshal`` makes of ``value``: UTF-8, with what HTML could take for its own escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


class PeerClient:
    """The methods of the peer's client; each raises GoError where that returns an error.

    Parameters:
        url: of the server, without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = urllib3.PoolManager(
            headers={"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}, retries=False, timeout=30
        )

    def close(self) -> None:
        """Close the connections that are kept."""
        self._http.clear()

    def post_job(self, job: Struct) -> Struct:
        """Post a ``job_req``."""
        return self._struct("POST", f"/tasks/{job['task']}/jobs", JOB_RESP, job)

    def get_job_status(self, job_id: str) -> Struct:
        return self._struct("GET", f"/jobs/{job_id}", JOB_STATUS_RESP)

    def get_pending_jobs(self, queue: str) -> list[Struct]:
        jobs: list[Struct] = self._call("GET", f"/jobs/queue/{queue}", [JOB_MESSAGE])
        return jobs

    def delete_job(self, job_id: str, purge: bool) -> None:
        self._call("DELETE", f"/jobs/{job_id}?purge={str(purge).lower()}", ANY)

    def post_job_group(self, group_id: str, jobs: Sequence[Struct]) -> Struct:
        return self._struct("POST", "/groups", GROUP_RESP, {"group_id": group_id, "jobs": list(jobs)})

    def get_group_status(self, group_id: str) -> Struct:
        return self._struct("GET", f"/groups/{group_id}", GROUP_STATUS_RESP)

    def delete_group_job(self, group_id: str, purge: bool) -> None:
        self._call("DELETE", f"/groups/{group_id}?purge={str(purge).lower()}", ANY)

    def _struct(self, method: str, path: str, data: Shape, body: Struct | None = None) -> Struct:
        answer: Struct = self._call(method, path, data, body)
        return answer

    def _call(self, method: str, path: str, data: Shape, body: Struct | None = None) -> Any:
        send: Callable[..., urllib3.BaseHTTPResponse] = self._http.request
        if body is not None:
            headers = {**self._http.headers, "Content-Type": "application/json"}
            response = send(method, self._url + path, body=encode(body), headers=headers)
        else:
            response = send(method, self._url + path)
        envelope = decode(response.data, {"status": str, "message": str, "data": data})
        if response.status != 200:
            raise GoError(envelope["message"], response.status)
        return envelope["data"]

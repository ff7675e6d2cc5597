"""Requests and answers on the wire: connections, the envelope, and errors by their codes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote

import simplejson
import urllib3

from jobber.client.answers import group_of, job_of
from jobber.errors import (
    GroupIsFinished,
    GroupIsLive,
    InvalidRequest,
    JobberError,
    JobIsFinished,
    JobIsLive,
    JobIsStarted,
    ResultsNotReady,
    ServerUnreachable,
    Unavailable,
)


class Wire:
    """The connections to one server; the parameters are those of ``Client``."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        connect_timeout: float,
        retries: int,
        connections: int,
        headers: Mapping[str, str],
    ) -> None:
        parts = _address(url)
        # A name and password in the address go into a header; messages show the address without them.
        self.url = parts._replace(auth=None, query=None, fragment=None).url.rstrip("/")
        secret = urllib3.util.make_headers(basic_auth=unquote(parts.auth)) if parts.auth else {}
        self._headers = {"Accept": "application/json", "User-Agent": "jobber-client", **secret, **headers}
        self._timeout, self._connect_timeout = timeout, connect_timeout
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            retries=urllib3.Retry(
                connect=retries,
                read=retries,
                redirect=False,
                status=0,
                respect_retry_after_header=False,  # the caller decides, with ``retry_after``
                other=0,
                allowed_methods=frozenset({"GET"}),
                backoff_factor=0.1,
            ),
        )

    def close(self) -> None:
        """Close the connections that are kept."""
        self._pool.clear()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        patience: float = 0.0,
        key: str | None = None,
    ) -> dict[str, Any]:
        """Return the envelope of a successful answer; raise the error that any other one tells.

        Parameters:
            patience: seconds that the server was asked to wait before it answers.
            key: of idempotency: a call that is repeated with it does nothing twice.
        """
        sent = None if body is None else _encoded(body)
        headers = dict(self._headers)
        if sent is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            answer = self._pool.request(
                method,
                self.url + path,
                fields=query,
                body=sent,
                headers=headers,
                timeout=urllib3.Timeout(connect=self._connect_timeout, read=self._timeout + patience),
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServerUnreachable(f"no jobber server answers at {self.url}: {_reason(error)}") from error
        try:
            envelope = json.loads(answer.data, parse_float=Decimal)
            said = envelope["status"]
        except (ValueError, KeyError, TypeError):
            raise ServerUnreachable(
                f"what answers at {self.url} is no jobber server (status {answer.status}, no envelope)"
            ) from None
        if said == "success":
            found: dict[str, Any] = envelope
            return found
        raise error_of(envelope)


def _address(url: str) -> urllib3.util.Url:
    try:
        parts = urllib3.util.parse_url(url)
    except (urllib3.exceptions.LocationParseError, ValueError, TypeError, AttributeError):
        parts = urllib3.util.Url()
    if parts.scheme not in ("http", "https") or not parts.host:
        # Without the address itself: it may hold a password.
        raise InvalidRequest("the server's address must look like http://HOST:PORT", field="url")
    return parts


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return simplejson.dumps(body, use_decimal=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None


def segment(name: str, what: str) -> str:
    """Return a name as one segment of a path.

    Parameters:
        what: the kind of name, with its article.

    Raises:
        InvalidRequest: it is not text, or would be another path.
    """
    if not isinstance(name, str):
        raise InvalidRequest(f"{what} is text, not {type(name).__name__}")
    if name in ("", ".", "..") or "/" in name:
        raise InvalidRequest(f"{name[:100]!r} is no {what.partition(' ')[2]}")
    return quote(name, safe="")


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Return why a request failed, in a few words and without the address (which may hold a secret)."""
    cause: object = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return "its name cannot be resolved"
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return "connection refused"
    if isinstance(cause, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(cause, urllib3.exceptions.SSLError):
        return "TLS failed"
    return "the connection broke"


def _subclasses(kind: type[JobberError]) -> Iterator[type[JobberError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _subclasses(below)


# Of classes that share a code the one above: what tells them apart matters on the server only.
_BY_CODE = {kind.code: kind for kind in reversed([*_subclasses(JobberError)])}


def error_of(envelope: Mapping[str, Any]) -> JobberError:
    """Return the error that an answer tells, as the class of its code; an unknown code becomes a JobberError."""
    message, details = str(envelope.get("message", "")), dict(envelope.get("error") or {})
    code = details.pop("code", None)
    kind = _BY_CODE.get(code, JobberError)
    if issubclass(kind, JobIsLive | JobIsFinished | JobIsStarted | ResultsNotReady):
        job = details.pop("job", None)
        error = kind(message, job_of(job) if job else None)
        error.details |= details
        return error
    if issubclass(kind, GroupIsLive | GroupIsFinished):
        group = details.pop("group", None)
        return kind(message, group_of(group) if group else None)
    if kind is JobberError:
        details["server_code"] = code
    if issubclass(kind, Unavailable):
        return kind(message, int(details.pop("retry_after", 5)), **details)
    return kind(message, **details)

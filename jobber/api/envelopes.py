"""The envelope of every answer: JSON, one body per response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Response

from jobber.api import jsontext

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

#: Of every answer.
HEADERS = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))


class _Whole(Response):
    """A response whose body is there: as a list, which granian sends at once instead of asking for one piece more."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        pieces, status, headers = self.get_wsgi_response(environ)
        start_response(status, headers)
        body = list(pieces)
        self.close()
        return body


def respond(envelope: Mapping[str, Any], status: int = 200) -> Response:
    """Return ``envelope`` as the response's one JSON body; states change, so nobody may cache it."""
    return respond_text(text_of(envelope), status)


def text_of(envelope: Mapping[str, Any]) -> str:
    """Return ``envelope`` as it is sent."""
    return jsontext.dumps(envelope) + "\n"


def respond_text(text: str, status: int = 200) -> Response:
    """Return as a response what ``text_of`` made of an envelope."""
    return _Whole(text, status, HEADERS)


def success(data: Any, **beside: Any) -> Response:
    """Return the answer to a request that succeeded, always 200.

    Parameters:
        beside: further keys of the envelope (``columns``, ``count``, ``next`` …).
    """
    return respond({"status": "success", "data": data, **beside})

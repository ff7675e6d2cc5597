"""The envelope of every answer: JSON, one body per response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from jobber.api import jsontext


def respond(envelope: Mapping[str, Any], status: int = 200) -> Response:
    """Return ``envelope`` as the response's one JSON body; states change, so nobody may cache it."""
    return respond_text(text_of(envelope), status)


def text_of(envelope: Mapping[str, Any]) -> str:
    """Return ``envelope`` as it is sent."""
    return jsontext.dumps(envelope) + "\n"


def respond_text(text: str, status: int = 200) -> Response:
    """Return as a response what ``text_of`` made of an envelope."""
    response = Response(text, status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def success(data: Any, **beside: Any) -> Response:
    """Return the answer to a request that succeeded, always 200.

    Parameters:
        beside: further keys of the envelope (``columns``, ``count``, ``next`` …).
    """
    return respond({"status": "success", "data": data, **beside})

"""``Idempotency-Key``: a request that is sent again is answered as it was the first time, and does nothing more.

The answer is kept by the transaction that does what was asked for (``jobber.store.receipts``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Response, g, request

from jobber.api.blueprint import service
from jobber.api.envelopes import respond_text, text_of
from jobber.errors import InvalidRequest, JobberError
from jobber.jobs import NAME_MAX
from jobber.store import Answered, Receipt

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(rf"[\x20-\x7e]{{1,{NAME_MAX}}}")

T = TypeVar("T")


def once(act: Callable[[Receipt | None], T], envelope: Callable[[T], Mapping[str, Any] | str]) -> Response:
    """Do something and answer; only answer where it was done for this request before.

    Parameters:
        act: does it, and hands the receipt, None without the header, to the store.
        envelope: makes the answer of what ``act`` returns, or its text.

    Raises:
        InvalidRequest: the header holds no key.
        IdempotencyConflict: the key came with another request before.
    """
    told: list[str] = []

    def render(result: T) -> str:
        said = envelope(result)
        told.append(said if isinstance(said, str) else text_of(said))
        return told[-1]

    receipt = _receipt(render)
    if receipt is None:
        return respond_text(render(act(None)))
    try:
        try:
            act(receipt)
        except JobberError:
            # It may be refused for what this very request did before: its job is live, its backlog full.
            service().receipts.look(receipt)
            raise
    except Answered as before:
        answer = respond_text(before.answer)
        answer.headers[REPLAYED] = "true"
        return answer
    return respond_text(told[-1])


def _receipt(render: Callable[[Any], str]) -> Receipt | None:
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidRequest(f"{HEADER}: must be 1 to {NAME_MAX} printable ASCII characters", field=HEADER)
    said = hashlib.sha256(f"{request.method} {request.full_path}\n".encode(errors="replace"))
    said.update(g.get("jobber_body", b""))
    return Receipt(key, said.hexdigest(), render)

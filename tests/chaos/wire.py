"""HTTP as a careful client speaks it: it knows what was carried out, what was not, and what may have been."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

#: Codes of answers that say that nothing was done; ``state_unavailable`` may follow a commit whose answer was lost.
_NOT_DONE = frozenset({"draining"})


@dataclass(frozen=True)
class Answer:
    """What came back.

    Parameters:
        status: of HTTP; 0 if nothing came back.
        code: of the error; "" is success. ``connection_refused`` and ``connection_lost`` are our own.
        data: of a success; else the details of the error.
    """

    status: int
    code: str
    data: Any

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def later(self) -> bool:
        """Whether to try again later."""
        return self.status in (0, 503)

    @property
    def doubtful(self) -> bool:
        """Whether it may have been carried out all the same."""
        return self.later and self.code not in _NOT_DONE and self.code != "connection_refused"


class Wire:
    """Connections to all instances. Safe to use from several threads."""

    def __init__(self, timeout: float = 10.0) -> None:
        self._pool = urllib3.PoolManager(
            retries=False, maxsize=20, timeout=urllib3.Timeout(connect=2, read=timeout), num_pools=20
        )

    def call(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Send one request, once."""
        sent = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, url, body=sent, headers={"Content-Type": "application/json"})
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            return Answer(0, "connection_refused", None)
        except urllib3.exceptions.HTTPError:
            return Answer(0, "connection_lost", None)
        try:
            document = json.loads(answer.data)
        except ValueError:
            return Answer(answer.status, "no_envelope", answer.data[:200])
        if answer.status == 200:
            return Answer(200, "", document["data"] if "columns" not in document else document)
        return Answer(answer.status, document["error"]["code"], document)

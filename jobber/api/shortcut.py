"""A short way for the requests that come most often: past the parts of Flask that they have no use for.

To find a route, to set a request up and to take it down again costs Flask more than jobber's own share of a submission.
What is asked in the simplest form, without options and without headers that matter, is answered by ``Shortcut.answer``;
everything else goes Flask's own way, and so does every error, so that each is told in one place. No client can see
which way was taken.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask, Response, request

from jobber.answers import Answers
from jobber.api.envelopes import HEADERS
from jobber.service import Service

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

#: What a short way raised, for the general way to tell.
_FAILED = "jobber.failed"
#: Bytes of a body from which on the general way costs nothing in comparison.
_SMALL = 65_536
#: Hosts that Flask has nothing against: of another one it does not look for a route.
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,9}(?::[0-9]{1,5})?")
_LENGTH = re.compile(r"[0-9]{1,9}")


class Shortcut(NamedTuple):
    """How requests of one route are answered without Flask.

    Parameters:
        method: of the request.
        path: matches the paths of the route, or some of them; its group is what the route has a parameter for.
        answer: makes the text of the answer, of that parameter and the body; None where the general way has to.
    """

    method: str
    path: re.Pattern[str]
    answer: Callable[[Service, Answers, str, bytes], str | None]


class App(Flask):
    """Flask, with short ways beside its own.

    A hook of every request (``before_request`` and its like) would not see what goes a short way: there must be none.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        #: Shortcuts of this application.
        self.shortcuts: list[Shortcut] = []

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        for shortcut in self.shortcuts:
            if shortcut.method == method and (found := shortcut.path.fullmatch(path)):
                text = self._shortly(shortcut, found[1], environ)
                if text is None:
                    break
                body = text.encode()
                start_response("200 OK", [*HEADERS, ("Content-Length", str(len(body)))])
                return [body]
        return super().wsgi_app(environ, start_response)

    def _shortly(self, shortcut: Shortcut, about: str, environ: WSGIEnvironment) -> str | None:
        """Return the text of an answer; None where the general way has to answer, which finds the body untouched."""
        if (
            environ.get("QUERY_STRING")
            or environ.get("SCRIPT_NAME")
            or "HTTP_IDEMPOTENCY_KEY" in environ
            or "HTTP_UPGRADE" in environ
            or not _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        ):
            return None
        try:
            body = b"" if shortcut.method == "GET" else self._body(environ)
            if body is None:
                return None
            extensions = self.extensions
            return shortcut.answer(extensions["jobber.service"], extensions["jobber.answers"], about, body)
        except Exception as error:  # noqa: BLE001  # whatever it is, Flask's own way tells and logs it
            environ[_FAILED] = error
            return None

    def _body(self, environ: WSGIEnvironment) -> bytes | None:
        """Return the whole of a small body of an announced length, and leave a copy; None if it is no such one."""
        length = environ.get("CONTENT_LENGTH", "")
        if "HTTP_TRANSFER_ENCODING" in environ or not _LENGTH.fullmatch(length):
            return None
        left = int(length)
        if left > min(_SMALL, self.config["MAX_CONTENT_LENGTH"]):
            return None
        stream, body = environ["wsgi.input"], b""
        while left and (part := stream.read(left)):
            body += part
            left -= len(part)
        environ["wsgi.input"] = io.BytesIO(body)
        return None if left else body

    def dispatch_request(self) -> Response:
        """Run the view; raise instead what a short way has raised, so that nothing is done twice."""
        failed = request.environ.pop(_FAILED, None)
        if failed is not None:
            raise failed
        answered: Response = super().dispatch_request()  # type: ignore[assignment]
        return answered

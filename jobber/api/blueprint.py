"""How a route is declared: one decorator that validates, documents and registers it.

flask-smorest documents it. What comes in is read and validated here: bodies exactly and strictly, whatever their
content type says (``curl --data`` says that it is a form), and what is wrong becomes an ``InvalidRequest``.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any, Protocol, TypeVar, runtime_checkable

import flask_smorest
import marshmallow as ma
from flask import Request, Response, current_app, g, request
from werkzeug.exceptions import RequestEntityTooLarge

from jobber.answers import Answers
from jobber.api import jsontext
from jobber.api.errors import statuses
from jobber.api.fields import json_type
from jobber.api.requests import _Body
from jobber.completion import MOST_PROBLEMS
from jobber.errors import IdempotencyConflict, InvalidRequest, JobberError
from jobber.jobs import JOB_ID_MAX, JOB_ID_PATTERN, NAME_MAX
from jobber.service import Service

#: Of longer names no more is told: finding the nearest one costs some 50 µs each.
_LONGEST_NAME = 100

View = TypeVar("View", bound=Callable[..., Response])


def service() -> Service:
    """Return the service that this application speaks for."""
    found: Service = current_app.extensions["jobber.service"]
    return found


def answers() -> Answers:
    """Return the builder of this application's answers."""
    found: Answers = current_app.extensions["jobber.answers"]
    return found


def path_id(text: str, unknown: type[JobberError], what: str) -> str:
    """Return an ID from a path. Raises ``unknown`` for what can be none, before a database chokes on it."""
    if not JOB_ID_PATTERN.fullmatch(text):
        raise unknown(f"{text[:JOB_ID_MAX]!r} is no {what} ID")
    return text


def path_queue(text: str) -> str:
    """Return the name of a queue from a path. Raises InvalidRequest for what can be none."""
    if not JOB_ID_PATTERN.fullmatch(text):
        raise InvalidRequest(
            f"queue: {text[:JOB_ID_MAX]!r} can be no queue; names hold letters and digits (ASCII), _, : and -",
            field="queue",
        )
    return text


def _body(schema: ma.Schema) -> Any:
    """Return what a schema loads of the body. Raises InvalidRequest."""
    sent = _read(request)
    g.jobber_body = sent  # is read once: whether two requests are the same is asked later
    body = jsontext.loads(sent)
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {json_type(body)}")
    try:
        return schema.load(body)
    except ma.ValidationError as error:
        raise complaint(error.messages_dict, schema) from error


def _options(schema: ma.Schema) -> Any:
    """Return what a schema loads of the query string. Raises InvalidRequest."""
    options = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidRequest(f"{name[:_LONGEST_NAME]}: is given twice", field=name[:_LONGEST_NAME])
        if values[0] or name not in schema.fields:  # a known one without a value is left out
            options[name] = values[0]
    try:
        return schema.load(options, unknown=ma.RAISE)
    except ma.ValidationError as error:
        raise complaint(error.messages_dict, schema, "option") from error


def complaint(messages: Mapping[Any, Any], schema: ma.Schema, kind: str = "field") -> InvalidRequest:
    """Return the error for what marshmallow says of a request; all that is wrong is told at once.

    Parameters:
        kind: what its fields are called.
    """
    told = list(islice(_problems(messages, schema, kind), MOST_PROBLEMS))
    problems = {place: problem for place, problem, _ in told}
    details: dict[str, Any] = {"field": next(iter(problems)), "fields": problems}
    if nearest := next((near for *_, near in told if near), None):
        details["nearest"] = nearest
    return InvalidRequest("; ".join(f"{field}: {problem}" for field, problem in problems.items()), **details)


def _read(req: Request) -> bytes:
    """Return the body; raise RequestEntityTooLarge beyond ``max_body``, also where no length was announced (chunks).

    Werkzeug refuses an announced length; without one it cuts the body off at the limit instead of refusing it.
    """
    if req.content_length is not None or not req.environ.get("wsgi.input_terminated"):
        return req.get_data(cache=False)
    most: int = current_app.config["MAX_CONTENT_LENGTH"]
    stream, body = req.environ["wsgi.input"], bytearray()
    while len(body) <= most and (part := stream.read(most + 1 - len(body))):
        body += part
    if len(body) > most:
        raise RequestEntityTooLarge
    return bytes(body)


_NO_OPTIONS = ma.Schema()
_NO_FIELDS = _Body()


def takes_no_options(view: View) -> View:
    """Make a view refuse every option in the query string."""

    @functools.wraps(view)
    def run(*args: Any, **kwargs: Any) -> Response:
        if request.query_string and request.args:
            _options(_NO_OPTIONS)
        return view(*args, **kwargs)

    return run  # type: ignore[return-value]


def takes_no_fields(view: View) -> View:
    """Make a view refuse every field of a body; one without any, or none at all, is fine."""

    @functools.wraps(view)
    def run(*args: Any, **kwargs: Any) -> Response:
        _body(_NO_FIELDS)
        return view(*args, **kwargs)

    return run  # type: ignore[return-value]


def _takes(load: Callable[[ma.Schema], Any], schema: ma.Schema, view: View) -> View:
    """Hand a view what ``load`` returns of a request, behind its other arguments."""

    @functools.wraps(view)
    def run(*args: Any, **kwargs: Any) -> Response:
        return view(*args, load(schema), **kwargs)

    return run  # type: ignore[return-value]


def _problems(
    messages: Mapping[Any, Any], schema: ma.Schema, kind: str, within: str = ""
) -> Iterator[tuple[str, str, str | None]]:
    """Yield the place of each problem (``jobs[3].args``), what is wrong, and the known name nearest to an unknown one.

    Parameters:
        messages: what marshmallow says: texts, below the names of fields and, within lists, positions.
        within: the place of what they are about.
    """
    for name, said in messages.items():
        if isinstance(name, int):
            place, known, below = f"{within}[{name}]", True, schema
        else:
            place, known = (f"{within}." if within else "") + name[:_LONGEST_NAME], name in schema.fields
            field = schema.fields.get(name)
            below = field.schema if isinstance(field, ma.fields.Nested) else schema
        if isinstance(said, dict):
            yield from _problems(said, below, kind, place)
        elif known:
            yield place, str(said[0]), None
        else:
            near = _nearest(name[:_LONGEST_NAME], schema)
            yield place, f"there is no such {kind}" + (f"; did you mean {near}?" if near else ""), near


def _nearest(name: str, schema: ma.Schema) -> str | None:
    """Return the field that an unknown one may stand for; a schema whose fields have open names knows better."""
    if isinstance(schema, Guesses) and (guess := schema.guess(name)):
        return guess
    return next(iter(difflib.get_close_matches(name.lower(), schema.fields, n=1)), None)


@runtime_checkable
class Guesses(Protocol):
    """A schema that knows what somebody meant by a name that it does not have."""

    def guess(self, name: str) -> str | None:
        """Return the name that was meant; None if it is nothing special."""


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """flask-smorest's, with a single typed decorator in the place of its stack of four."""

    def operation(
        self,
        method: str,
        rule: str,
        *,
        answer: type[ma.Schema],
        query: ma.Schema | None = None,
        body: ma.Schema | None = None,
        errors: tuple[type[JobberError], ...] = (),
        keyed: bool = False,
    ) -> Callable[[View], View]:
        """Register a view, which returns a finished response, under a method and a path.

        Parameters:
            answer: describes the answer; it is not run over it.
            query, body: validate what comes in; made once, at import. What they load is passed in this order. Where
                there is none, nothing may come in; the body of a GET is not read.
            errors: what the view may answer besides ``InvalidRequest``, which every one may: of an unknown option.
            keyed: whether it takes an ``Idempotency-Key`` (``idempotency.once``).
        """

        def decorate(view: View) -> View:
            documented: Any = self.response(200, answer)(view)
            if keyed:
                documented = self.doc(parameters=[_KEY])(documented)
            for status in statuses(*errors, *([IdempotencyConflict] if keyed else []), InvalidRequest):
                documented = self.alt_response(status, response=_COMPONENT[status])(documented)
            if body:
                documented = self.arguments(body, location="json", required=False, error_status_code=400)(documented)
            if query:
                documented = self.arguments(query, location="query", error_status_code=400)(documented)
            # All these wrappers only document: kept, they would cost 5 µs each and request, and those of arguments 20.
            runs: Any = view
            # The outermost decorator's arguments come first.
            if body:
                runs = _takes(_body, body, runs)
            elif method != "GET":
                runs = takes_no_fields(runs)
            runs = _takes(_options, query, runs) if query else takes_no_options(runs)
            runs._apidoc = documented._apidoc
            self.route(rule, methods=[method])(runs)
            return view

        return decorate


_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "description": "The same key with the same request gets the first answer again, for 24 hours, and does nothing.",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": NAME_MAX, "pattern": "^[ -~]+$"},
}
_COMPONENT = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    409: "CONFLICT",
    410: "GONE",
    422: HTTPStatus(422).name,
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL_SERVER_ERROR",
    503: "SERVICE_UNAVAILABLE",
}

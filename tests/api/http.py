"""A test client that holds every answer to the promises of the envelope and to its schema in OpenAPI."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from decimal import Decimal
from functools import cache, cached_property
from typing import Any

from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from jobber.answers import Answers
from jobber.api import create_app

#: By the type of the service; see ``application``.
_built: dict[type, Flask] = {}


def application(service: Any) -> Flask:
    """Return an application that answers for a service: a copy of one that was built before.

    To build one takes longer than most tests, nearly all of it for the description at ``/openapi.json``, and it holds
    no state of its own. The settings of services of one type may differ in nothing that an error tells.
    """
    if type(service) not in _built:
        _built[type(service)] = create_app(service)
    app = copy(_built[type(service)])
    app.extensions = {**app.extensions, "jobber.service": service, "jobber.answers": Answers(service.settings)}
    app.config = copy(app.config)
    app.config["MAX_CONTENT_LENGTH"] = service.settings.app.max_body
    return app


@cache
def _spec(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


class Answer:
    """An answer, already checked."""

    def __init__(self, response: TestResponse) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.text = response.get_data(as_text=True)
        self.envelope: dict[str, Any] = json.loads(self.text, parse_float=Decimal)

    @property
    def data(self) -> Any:
        assert self.status == 200, self.text
        return self.envelope["data"]

    @property
    def error(self) -> dict[str, Any]:
        assert self.status != 200, self.text
        found: dict[str, Any] = self.envelope["error"]
        return found

    @property
    def message(self) -> str:
        return str(self.envelope["message"])


class Http:
    """Sends requests to an application and checks what comes back."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()

    @cached_property
    def spec(self) -> dict[str, Any]:
        return _spec(self.client.get("/openapi.json").data)

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def delete(self, path: str) -> Answer:
        return self.send("DELETE", path)

    def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        """Post bytes or text as they are, None as no body, anything else as JSON."""
        data = body if isinstance(body, bytes | str | None) else json.dumps(body)
        return self.send("POST", path, data=data, **{"content_type": "application/json", **options})

    def send(self, method: str, path: str, **options: Any) -> Answer:
        response = self.client.open(path, method=method, **options)
        answer = Answer(response)
        assert response.mimetype == "application/json"
        assert response.headers["Cache-Control"] == "no-store"
        assert "Traceback" not in answer.text
        assert "secret" not in answer.text
        assert (answer.status == 200) == (answer.envelope["status"] == "success")
        if answer.status == 200:
            self._conforms(answer, self._schema(method, path))
        else:
            self._conforms(answer, {"$ref": "#/components/schemas/ErrorAnswer"})
            assert answer.message
        return answer

    def _schema(self, method: str, path: str) -> dict[str, Any]:
        with self.app.test_request_context(path, method=method) as context:
            assert context.request.url_rule is not None
            rule = context.request.url_rule.rule.replace("<", "{").replace(">", "}")
        operation = self.spec["paths"][rule][method.lower()]
        found: dict[str, Any] = operation["responses"]["200"]["content"]["application/json"]["schema"]
        return found

    def _conforms(self, answer: Answer, schema: dict[str, Any]) -> None:
        Draft202012Validator({**schema, "components": self.spec["components"]}).validate(answer.envelope)


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an application on a free port of loopback; gives its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

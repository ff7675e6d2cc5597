"""The one table from error codes to HTTP statuses, and the one shape in which errors are answered."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import flask_smorest
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from jobber.answers import Answers
from jobber.api.envelopes import respond
from jobber.api.schemas import ErrorAnswer
from jobber.errors import JobberError, Unavailable
from jobber.jobs import Group, Job

log = logging.getLogger(__name__)

#: Every code that an answer can carry. An attempt's errors are normally told in the job's ``error``; those of a
#: results database can also meet a reader of rows.
STATUS: Mapping[str, int] = {
    "internal_error": 500,
    "invalid_config": 500,
    "invalid_task_file": 500,
    "invalid_request": 400,
    "unknown_task": 404,
    "unknown_job": 404,
    "job_is_live": 409,
    "job_is_finished": 409,
    "job_is_started": 409,
    "unknown_database": 404,
    "unknown_group": 404,
    "group_is_live": 409,
    "group_is_finished": 409,
    "idempotency_conflict": 422,
    "unknown_schedule": 404,
    "schedule_exists": 409,
    "schedule_is_tagged": 409,
    "results_not_ready": 409,
    "results_gone": 410,
    "backlog_full": 429,
    "unavailable": 503,
    "state_unavailable": 503,
    "broker_unavailable": 503,
    "draining": 503,
    "not_ready": 503,
    "server_unreachable": 503,
    "attempt_failed": 500,
    "source_unavailable": 503,
    "query_failed": 500,
    "bad_arguments": 400,
    "value_not_representable": 500,
    "too_many_rows": 500,
    "results_unavailable": 503,
    "results_failed": 500,
    "timed_out": 500,
    "parent_failed": 500,
    "parent_cancelled": 500,
    "cancelled": 500,
    "interrupted": 503,
    "fenced": 500,
    # Of HTTP alone: no class of the error tree stands behind these.
    "not_found": 404,
    "method_not_allowed": 405,
    "request_too_large": 413,
}

_RETRY_AFTER = 5
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 500: "internal_error"}


def statuses(*errors: type[JobberError]) -> list[int]:
    """Return the HTTP statuses of error classes, for the description of an operation."""
    return sorted({STATUS[error.code] for error in errors})


def _answer(
    status: int, code: str, message: str, details: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    response = respond(_envelope(code, message, details), status)
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        response.headers["Retry-After"] = str(details.get("retry_after", _RETRY_AFTER))
    response.headers.update(headers or {})
    return response


def _envelope(code: str, message: str, details: Mapping[str, Any]) -> dict[str, Any]:
    error = {"code": code, **{key: value for key, value in details.items() if key != "code"}}
    return {"status": "error", "message": message, "data": None, "error": error}


def envelope_of(error: JobberError, answers: Answers) -> dict[str, Any]:
    """Return the envelope that tells an error, for an item of a list of envelopes."""
    return _envelope(error.code, error.message, _details(error, answers))


def _details(error: JobberError, answers: Answers) -> dict[str, Any]:
    """Return what an error says to machines."""
    details = dict(error.details)
    job = getattr(error, "job", None)
    if isinstance(job, Job):
        details["job"] = answers.job(job)
    group = getattr(error, "group", None)
    if isinstance(group, Group):
        details["group"] = answers.group(group)
    if isinstance(error, Unavailable):
        details["retry_after"] = error.retry_after
    return details


def _jobber_error(error: JobberError, answers: Answers) -> Response:
    status = STATUS[error.code]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # What is merely away says enough in a line; anything else is a bug, or a case that nobody thought of.
        away = status == HTTPStatus.SERVICE_UNAVAILABLE
        log.warning("%s %s: %s", request.method, request.path, error.message, exc_info=None if away else error)
    return _answer(status, error.code, error.message, _details(error, answers))


def register(app: Flask, answers: Answers) -> None:
    """Answer every error of jobber's own in the envelope; ``Api`` does the same for those of HTTP."""
    app.register_error_handler(JobberError, lambda error: _jobber_error(error, answers))


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's, with our error envelope in the place of its own."""

    ERROR_SCHEMA = ErrorAnswer

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Answer an unknown route, a wrong method, a body that is too large, or a bug (its traceback is logged)."""
        status = error.code or 500
        code = _CODE_OF_STATUS.get(status, "invalid_request" if status < 500 else "internal_error")
        headers = {}
        message = error.description or HTTPStatus(status).phrase
        if code == "not_found":
            message = f"there is no {request.path}; /openapi.json lists what there is"
        elif isinstance(error, MethodNotAllowed):
            allowed = ", ".join(sorted(error.valid_methods or ()))
            headers["Allow"] = allowed
            message = f"{request.path} does not take {request.method}; it takes {allowed}"
        elif code == "request_too_large":
            message = f"the request body is larger than {self._app.config['MAX_CONTENT_LENGTH']} bytes"
        elif code == "internal_error":
            message = "jobber failed on this request; its log says why"
        return _answer(status, code, message, {}, headers)

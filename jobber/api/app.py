"""The application factory."""

from __future__ import annotations

from flask import Flask

import jobber
from jobber.answers import Answers
from jobber.api import (
    bulk,
    databases,
    events,
    groups,
    jobs,
    jsontext,
    lists,
    meta,
    queues,
    schedules,
    stats,
    tasks,
    workers,
)
from jobber.api.blueprint import takes_no_options
from jobber.api.errors import Api, register
from jobber.api.shortcut import App
from jobber.service import Service


def create_app(service: Service) -> Flask:
    """Return the WSGI application that answers for ``service``.

    It holds no state of its own: any number of them may serve one state store.
    """
    app = App(__name__, static_folder=None)
    app.json = jsontext.Provider(app)
    app.config.update(
        MAX_CONTENT_LENGTH=service.settings.app.max_body,
        API_TITLE="jobber",
        API_VERSION=jobber.__version__,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
    )
    # A redirect would answer //jobs with a page of HTML.
    app.url_map.merge_slashes = False
    answers = Answers(service.settings)
    app.extensions["jobber.service"] = service
    app.extensions["jobber.answers"] = answers
    api = Api(app)
    register(app, answers)
    for room in (meta, tasks, jobs, bulk, lists, events, groups, schedules, queues, databases, workers, stats):
        api.register_blueprint(room.blueprint)
    app.shortcuts = [tasks.SUBMIT, jobs.STATUS]
    described = "api-docs.openapi_json"
    app.view_functions[described] = takes_no_options(app.view_functions[described])  # type: ignore[type-var]
    return app

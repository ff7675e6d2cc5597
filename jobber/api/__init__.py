"""The HTTP API: a Flask application over ``jobber.service.Service``."""

from jobber.api.app import create_app

__all__ = ["create_app"]

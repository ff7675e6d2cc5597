"""Validated settings: TOML and environment in, frozen dataclasses out."""

from __future__ import annotations

from jobber.config.durations import seconds
from jobber.config.loading import embedded, load, read
from jobber.config.migrating import migrate
from jobber.config.settings import (
    AppSettings,
    BrokerSettings,
    DatabaseSettings,
    EventSettings,
    ResultsSettings,
    Settings,
    StateSettings,
    WebhookSettings,
)

__all__ = [
    "AppSettings",
    "BrokerSettings",
    "DatabaseSettings",
    "EventSettings",
    "ResultsSettings",
    "Settings",
    "StateSettings",
    "WebhookSettings",
    "embedded",
    "load",
    "migrate",
    "read",
    "seconds",
]

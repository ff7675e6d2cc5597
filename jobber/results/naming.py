"""Names in a results database: of result tables, from the operator's template, and of staging tables."""

from __future__ import annotations

import hashlib
import secrets

from jobber.columns import shorten
from jobber.config import ResultsSettings
from jobber.errors import ConfigError
from jobber.results.base import STAGING_PREFIX, Target

#: Everything that jobber makes for itself begins with this.
OWN_PREFIX = "jobber_"


def check_template(settings: ResultsSettings) -> None:
    """Refuse a template whose table names could meet jobber's own or leave the results folder.

    Raises:
        ConfigError: ``results_table`` does not hold ``%s`` once, adds nothing to it, begins with ``jobber_``, or holds
            a slash or a NUL.
    """
    template = settings.results_table
    key = f"results_table of [results.{settings.name}]"
    if template.count("%s") != 1 or template == "%s":
        raise ConfigError(f'{key} must hold %s once and add to it, as in "results_%s"; it is "{template}"')
    if template.lower().startswith(OWN_PREFIX) or template.startswith("."):
        raise ConfigError(f'{key} must not begin with "{OWN_PREFIX}" (jobber\'s own tables) or a dot')
    if set(template) & set("/\\\0"):
        raise ConfigError(f"{key} must not hold a slash, a backslash or a NUL")


def table_name(template: str, job_id: str, *, folds_case: bool) -> str:
    """Return the name of the result table of a job.

    A name of more than 63 bytes, or with capitals where the engine folds case, ends in ``_`` and 8 hex digits of the
    job ID's SHA-256.
    """
    name = template.replace("%s", job_id)
    return shorten(name, 8, always=folds_case and name != name.lower(), of=job_id)


def staging_name(target: Target) -> str:
    """Return a name for the staging table of one attempt (or the beginning of the names of several).

    It was never used before, has only safe characters, and is at most 59 bytes long.
    """
    key = hashlib.sha256(target.table.encode()).hexdigest()[:8]
    # An attempt may begin twice, and the staging table of the first time may still have to be dropped.
    return f"{STAGING_PREFIX}{key}_{target.run}_{target.attempt}_{secrets.token_hex(2)}"

"""What all commands against a server share: where it is, JSON or text, and how they fail."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from jobber.cli.remote.terminal import json_text
from jobber.client import DEFAULT_SERVER, Client, GroupStatus, JobStatus
from jobber.errors import JobberError, Unavailable

F = TypeVar("F", bound=Callable[..., Any])


class Failed(click.ClickException):
    """Raised to end a command with exit status 1 and one line on standard error, or one JSON document there.

    Parameters:
        error: what stands under ``error`` in the document; None for people.
    """

    exit_code = 1

    def __init__(self, message: str, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self._error = error

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        if self._error is None:
            click.echo(f"jobber: {' '.join(self.message.split())}", err=True)
        else:  # the envelope of the HTTP API
            document = {"status": "error", "message": self.message, "data": None, "error": self._error}
            click.echo(json_text(document), err=True)


def facts(error: JobberError) -> dict[str, Any]:
    """Return what an answer of the HTTP API holds under ``error``."""
    said = {name: getattr(error, name, None) for name in ("job", "group")}
    known = {name: it.raw for name, it in said.items() if isinstance(it, JobStatus | GroupStatus)}
    after = {"retry_after": error.retry_after} if isinstance(error, Unavailable) else {}
    return {"code": error.code, **error.details, **known, **after}


def remote(command: F) -> F:
    """Give a command ``--server`` and ``--json``, a client, and errors of one line or one document."""

    @click.option(
        "--server",
        envvar="JOBBER_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="Address of the server.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One exact JSON document for machines; of errors too.")
    @functools.wraps(command)
    def run(*args: Any, server: str, as_json: bool, **kwargs: Any) -> None:
        try:
            client = Client(server)
        except JobberError as error:
            raise click.BadParameter(error.message, param_hint="--server") from None
        with client:
            try:
                command(client, *args, as_json=as_json, **kwargs)
            except JobberError as error:
                raise Failed(error.message, facts(error) if as_json else None) from None
            except TimeoutError as error:
                raise Failed(str(error), {"code": "wait_timeout"} if as_json else None) from None

    return run  # type: ignore[return-value]


def named(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the values of an option as NAME=VALUE."""
    pairs = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param=param)
        pairs[name] = text
    return pairs

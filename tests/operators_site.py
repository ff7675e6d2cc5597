"""A server over a real instance on SQLite, for tests of the client and the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.api.http import serving
from tests.api.site import Site


@contextmanager
def real_server(folder: Path) -> Iterator[tuple[Site, str]]:
    """Serve a new instance; gives it and the server's URL."""
    (folder / "site").mkdir()
    site = Site(f"sqlite:///{folder}/state.db", folder / "site")
    try:
        with serving(site.http.app) as url:
            yield site, url
    finally:
        site.instance.close()

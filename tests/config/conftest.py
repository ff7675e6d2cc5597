"""A settings file of a test's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from jobber.config import Settings, load
from jobber.errors import ConfigError

DB = '[db.my_db]\nurl = "postgresql://user:secret@host:5432/shop"\n'


class Loading:
    """Writes a file, then loads it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.toml"

    def __call__(self, text: str, environ: Mapping[str, str] | None = None) -> Settings:
        self.file.write_text(text)
        return load(self.file, environ or {})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self(text, environ)
        assert str(self.file) in caught.value.message
        found: list[str] = caught.value.details["problems"]
        assert all(problem in caught.value.message for problem in found)
        return found


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)

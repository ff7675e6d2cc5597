"""Folders of config and task files as users of sql-jobber and dungbeetle have them, one per form that they had."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
#: The first versions kept results where jobber cannot.
REFUSED = "sql-jobber-first"
FOLDERS = sorted(path.parent.name for path in HERE.glob("*/config.toml") if path.parent.name != REFUSED)

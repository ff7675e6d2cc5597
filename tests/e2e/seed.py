"""The commands that the README of sql-jobber, the ancestor, shows: as they stand there, with a slip."""

from __future__ import annotations

import shlex
from pathlib import Path

_TEXT = (Path(__file__).parent / "seed_commands.txt").read_text()
#: By the words above each in the file.
COMMANDS = {
    words.removeprefix("# "): command
    for words, _, command in (block.partition("\n") for block in _TEXT.strip().split("\n\n"))
}


def server_flags(words: str) -> list[str]:
    """Return the flags of a server that the README starts, but for those that name its config and its task folder."""
    program, config, _, folder, _, *flags = shlex.split(COMMANDS[words].replace("\\\n", ""))
    assert (program, config, folder) == ("sql-jobber", "--config", "--sql-directory")
    return flags

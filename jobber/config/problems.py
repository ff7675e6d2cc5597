"""All that is wrong with a configuration, said at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from jobber.errors import ConfigError

#: Where a key stands: ``("db", "my_db", "url")``.
KeyPath = tuple[str, ...]


class Problems:
    """Collects problems, each under its key, and raises them as one error.

    Parameters:
        file: the config file, None where there is none.
        origins: the environment variable of each key that came from one.
    """

    def __init__(self, file: Path | None, origins: Mapping[KeyPath, str]) -> None:
        self._place = str(file) if file else "configuration"
        self._origins = origins
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: KeyPath, message: str) -> None:
        """Note what is wrong with the key at ``path``."""
        key = ".".join(path)
        variable = self._origins.get(path)
        self.say(f"{variable} ({key}): {message}" if variable else f"{key}: {message}")

    def say(self, message: str) -> None:
        """Note a problem that has no one key."""
        self._found.append(message)

    def raise_if_any(self) -> None:
        """Raise ConfigError with every problem found so far; ``details["problems"]`` lists them."""
        if not self._found:
            return
        if len(self._found) == 1:
            message = f"{self._place}: {self._found[0]}"
        else:
            message = f"{self._place}: {len(self._found)} problems\n" + "\n".join(f"  {text}" for text in self._found)
        raise ConfigError(message, problems=list(self._found))


class Ignored:
    """Collects keys that are accepted but mean nothing here."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[str]]] = {}  # reason, section, keys

    def add(self, path: KeyPath, why: str) -> None:
        """Note the key at ``path``."""
        *section, key = path
        self._found.setdefault(why, {}).setdefault(".".join(section), []).append(key)

    def lines(self) -> list[str]:
        """Return a sentence for each reason and set of keys, however many sections have them."""
        said: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for why, sections in self._found.items():
            for section, keys in sections.items():
                said.setdefault((why, tuple(keys)), []).append(section)
        return [f"{', '.join(keys)} of {', '.join(where)}: ignored; {why}" for (why, keys), where in said.items()]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the known word nearest to ``word``, or nothing if none is near."""
    by_fold = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.6)
    return f"; did you mean {by_fold[close[0]]}?" if close else ""

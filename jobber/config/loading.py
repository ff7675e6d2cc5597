"""From a TOML file and the environment to ``Settings``, or to one error that tells everything that is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from jobber.config import legacy
from jobber.config.building import Builder
from jobber.config.environment import overlay
from jobber.config.problems import Ignored, KeyPath, Problems, nearest
from jobber.config.rules import validate
from jobber.config.schemas import QUEUE_NAME, SECTIONS, Section, legacy_keys, why_ignored
from jobber.config.settings import Settings
from jobber.errors import ConfigError

#: Values of these keys may be ``file:/path``.
SECRETS = ("url", "dsn", "password", "secret")

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
#: A tenant is known by the text of a tag.
_ANY_NAME = re.compile(r"[^\0]{1,150}", re.DOTALL)
_ALPHABETS = {
    _NAME: "A-Z a-z 0-9 _ . -",
    QUEUE_NAME: "1 to 100 of A-Z a-z 0-9 _ : -",
    _ANY_NAME: "1 to 150 characters",
}


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check a configuration.

    Parameters:
        path: the TOML file; None for the environment and the defaults alone.
        environ: variables such as ``JOBBER_DB__MY_DB__URL`` stand over the file.

    Raises:
        ConfigError: with every problem found, each naming its key or its variable. No message repeats a value that
            may be secret.
    """
    return _load(parse(read(path), path) if path else {}, path, environ)


def loads(text: str, place: Path, environ: Mapping[str, str]) -> Settings:
    """Check the text of a configuration as ``load`` does.

    Parameters:
        text: TOML.
        place: the file that messages name.
        environ: as for ``load``.

    Raises:
        ConfigError: as ``load``.
    """
    return _load(parse(text, place), place, environ)


def _load(tables: dict[str, Any], place: Path | None, environ: Mapping[str, str]) -> Settings:
    origins, said = overlay(tables, environ)
    problems = Problems(place, origins)
    ignored = Ignored()
    legacy.settle(tables, origins, problems, ignored)
    loader = _Loader(tables, problems, said, ignored)
    if unread := legacy.unread_variables(environ):
        loader.warnings.append(f"{', '.join(unread)}: not read; the variables of jobber begin with JOBBER_")
    return loader.load()


def embedded(data_dir: Path, databases: Mapping[str, str]) -> Settings:
    """Return the settings of an instance that keeps broker, state and results in one folder.

    Parameters:
        data_dir: the folder; it need not exist.
        databases: URL of each source database by name.

    Raises:
        ConfigError: a URL or a name is wrong.
    """
    tables: dict[str, Any] = {
        "app": {"data_dir": str(data_dir)},
        "db": {name: {"url": url} for name, url in databases.items()},
    }
    return _Loader(tables, Problems(None, {}), [], Ignored()).load()


def read(path: Path) -> str:
    """Return the text of a config file. Raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None


def parse(text: str, place: Path) -> dict[str, Any]:
    """Return the tables of a TOML text. Raises ConfigError, which names ``place`` and the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # tomllib's own messages hold a line, a column and what it expected, but nothing of the text.
        raise ConfigError(f"{place}: is not valid TOML: {_first_words(str(error))}") from None


def _first_words(message: str) -> str:
    """Return tomllib's message without the key or value that some of them quote, and in words where it has none."""
    for theirs, ours in _IN_WORDS:
        message = re.sub(theirs, ours, message, flags=re.DOTALL)
    return re.sub(r"['\"].*['\"]", "…", message, flags=re.DOTALL)


#: What people get wrong most, by how tomllib says it.
_IN_WORDS = (
    (r"^Illegal character '\\n'|^Expected \"'\"|^Unterminated string", "a quoted text does not end"),
    (r"^Invalid value", "this is no value (text stands in quotes)"),
    (r"^Cannot declare .* twice", "this section stands above already"),
    (r"^Cannot overwrite a value", "this key stands above already"),
)


_TOP_LEVEL = ("app", "job_queue", "results", "db", "queue", "tenant", "webhooks", "events")
_JOB_QUEUE = ("broker", "state")


class _Loader:
    """One pass over the tables of a configuration.

    Parameters:
        tables: in today's sections.
        problems: where problems go.
        said: problems of the environment.
        ignored: keys that are accepted but mean nothing here.
    """

    def __init__(self, tables: dict[str, Any], problems: Problems, said: list[str], ignored: Ignored) -> None:
        self.tables = tables
        self.ignored = ignored
        self.problems = problems
        for message in said:
            problems.say(message)
        self.warnings: list[str] = []
        self.broken: set[KeyPath] = set()  # sections in which a key is wrong

    def load(self) -> Settings:
        queue = self._table(("job_queue",), self.tables.get("job_queue", {}))
        self._sections_exist((), self.tables, _TOP_LEVEL)
        self._sections_exist(("job_queue",), queue, _JOB_QUEUE)
        app_table = self._section(("app",), self.tables.get("app", {}), "app")
        broker_table = self._section(("job_queue", "broker"), queue.get("broker", {}), "job_queue.broker")
        state_table = self._section(("job_queue", "state"), queue.get("state", {}), "job_queue.state")
        databases, results_tables = self._named("db"), self._named("results")
        queues, tenants = self._named("queue", QUEUE_NAME), self._named("tenant", _ANY_NAME)
        webhooks = self._section(("webhooks",), self.tables.get("webhooks", {}), "webhooks")
        events = self._section(("events",), self.tables.get("events", {}), "events")

        self.warnings += self.ignored.lines()
        build = Builder(self.problems, self.warnings, frozenset(self.broken))
        app = build.app(app_table)
        results = build.all_results(results_tables) if "results" in self.tables else build.embedded_results(app)
        settings = Settings(
            app=app,
            broker=build.broker(broker_table),
            state=build.state(state_table, app, results),
            databases=build.databases(databases),
            results=results,
            queues=build.limits(queues),
            tenants=build.limits(tenants),
            webhooks=build.webhooks(webhooks),
            events=build.events(events),
            warnings=tuple(self.warnings),
        )
        declared = {section for section in ("db", "results") if self.tables.get(section)}
        for path, message in validate(settings, declared=declared):
            self.problems.add(path, message)
        self.problems.raise_if_any()
        return settings

    def _sections_exist(self, path: KeyPath, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for section in table:
            if not path and section in legacy.FLAGS and not isinstance(table[section], dict):
                self.problems.add((section,), f"is an option of the command line: --{section}")
            elif section not in known:
                self.problems.add((*path, section), f"there is no such section{nearest(section, known)}")

    def _table(self, path: KeyPath, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self.problems.add(path, f"must be a section: write [{'.'.join(path)}]")
        return {}

    def _named(self, section: str, form: re.Pattern[str] = _NAME) -> dict[str, dict[str, Any]]:
        """Return the checked tables of ``[db.NAME]`` and the like, by name."""
        checked = {}
        for name, value in self._table((section,), self.tables.get(section, {})).items():
            path = (section, name)
            if not isinstance(value, dict):
                self.problems.add(path, f"must stand in a section with a name: write [{section}.NAME] above it")
            elif not form.fullmatch(name):
                self.problems.add(path, f"a name may hold {_ALPHABETS[form]} only")
            else:
                checked[name] = self._section(path, value, f"{section}.NAME")
        return checked

    def _section(self, path: KeyPath, value: Any, kind: str) -> dict[str, Any]:
        """Return the valid values of a section; what is not valid is noted."""
        table = dict(self._table(path, value))
        for key in SECRETS:
            if isinstance(table.get(key), str) and table[key].startswith("file:"):
                contents = self._secret((*path, key), table.pop(key))
                if contents is None:
                    self.broken.add(path)
                else:
                    table[key] = contents
        schema = SECTIONS[kind]
        valid: dict[str, Any]
        try:
            valid = dict(schema().load(table))
        except ValidationError as error:
            self.broken.add(path)
            valid = dict(error.valid_data) if isinstance(error.valid_data, dict) else {}
            for key, messages in error.normalized_messages().items():  # type: ignore[no-untyped-call]
                self._invalid(path, key, messages, schema)
        for key, fate in legacy_keys(schema).items():
            if fate == "ignored" and key in valid:
                del valid[key]
                self.ignored.add((*path, key), why_ignored(schema, key))
        return valid

    def _invalid(self, path: KeyPath, key: str, messages: Any, schema: type[Section]) -> None:
        if key not in schema().fields:
            hint = nearest(key, _current_keys(schema)) or nearest(key, schema().fields)
            self.problems.add((*path, key), f"there is no such key{hint}")
            return
        for message in messages:
            self.problems.add((*path, key), message)

    def _secret(self, path: KeyPath, reference: str) -> str | None:
        """Return the contents of ``file:/path``; None, and a problem noted, if there are none."""
        file = Path(re.sub(r"^//(?=/)", "", reference.removeprefix("file:"))).expanduser()
        try:
            contents = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            self.problems.add(path, f"the file {file} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.problems.add(path, f"the file {file} is not UTF-8 text")
        else:
            if contents:
                return contents
            self.problems.add(path, f"the file {file} is empty")
        return None


def _current_keys(schema: type[Section]) -> list[str]:
    return [key for key in schema().fields if key not in legacy_keys(schema)]

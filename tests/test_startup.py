"""What a process imports before it does anything: every start of every process pays for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from jobber.store import Store, migrations


def imported(script: str, *among: str) -> set[str]:
    """Return which of some packages a new process has imported after a script."""
    script += f"\nimport sys\nprint(*({set(among)} & sys.modules.keys()))\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--version"], ["status", "--help"]])
def test_a_command_that_serves_nothing_imports_neither_databases_nor_brokers(words: list[str]) -> None:
    script = f"from jobber.cli import cli\ncli({words}, standalone_mode=False)"
    assert not imported(
        script, "sqlalchemy", "psycopg", "pymysql", "celery", "kombu", "marshmallow", "flask", "granian"
    )


def test_a_worker_imports_no_migrations_no_http_and_no_terminal() -> None:
    script = "import jobber.cli.child, jobber.consumer, jobber.instance, jobber.worker"
    unused = {"alembic", "flask", "granian", "rich", "redis", "urllib3", "sqlglot", "jobber.results.mysql"}
    assert imported(script, "celery", *unused) == {"celery"}


def test_tables_that_are_up_to_date_need_no_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store = Store(url)
    store.migrate()
    store.close()
    assert not imported(f"from jobber.store import Store\nStore({url!r}).migrate()", "alembic")


def test_the_versions_that_are_known_are_the_ones_that_alembic_applies() -> None:
    config = Config()
    config.set_main_option("script_location", "jobber.store:migrations")
    config.set_main_option("path_separator", "os")
    applied = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions("base", "heads")]
    assert migrations.known() == tuple(reversed(applied))

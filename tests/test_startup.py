"""What a process imports before it does anything: every start of every process pays for it."""

from __future__ import annotations

import os
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


def test_a_process_that_is_asked_answers_or_says_why_it_does_not() -> None:
    script = """if True:
        import os, signal, sys
        from jobber.cli.processes import ask
        from jobber.errors import ConfigError, JobberError

        def fail():
            raise ConfigError("it is wrong")

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def hold():
            print("by the way")
            return ["a", "b\\n"]

        for question in (hold, fail, die, lambda: 1 / 0):
            asked = ask("test", question, then=lambda: print("later"))
            said = None
            try:
                while said is None:
                    said = asked.answer(10)
            except JobberError as error:
                said = error.message
            print(said, asked.wait(10))
            asked.kill()
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "['a', 'b\\n'] True",
        "it is wrong True",
        "the test process was killed (SIGKILL) True",
        "internal error (ZeroDivisionError); the log has the details True",
    ]


@pytest.mark.parametrize("how", ["/dev/full", "closed"])
def test_processes_are_forked_and_end_though_nobody_takes_what_they_print(how: str) -> None:
    script = f"""if True:
        import os, sys
        from jobber.cli.processes import Child

        told = os.dup(1)
        if {how!r} == "closed":
            sys.stdout = None
        else:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
            sys.stdout.write("unheard")
        try:
            child = Child("test", lambda: 1 / 0)
            assert child.wait(10)
            status = child.status
        finally:
            os.write(told, b"parent\\n")  # once: a child never comes here
        os.write(told, b"%d\\n" % status)
        os._exit(0)
    """
    kept = {**os.environ, "PYTHONUNBUFFERED": ""}  # what is printed waits to be flushed
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout == "parent\n1\n"


def test_what_is_imported_before_processes_are_forked_starts_no_thread() -> None:
    script = """if True:
        import os
        from jobber.cli import child
        child.prepare(api=True, redis=True)
        print(len(os.listdir("/proc/self/task")) if os.path.exists("/proc") else 1)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    needed = {"celery.worker.consumer", "sqlalchemy", "psycopg", "flask", "granian", "jobber.worker", "jobber.api"}
    assert imported(script, "redis", *needed) == {"redis", *needed}

"""An older file in jobber's own form: the same settings, the user's comments, and reasons for what is gone."""

from __future__ import annotations

import stat
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from jobber.cli import cli
from jobber.config import Settings, load, migrate, tomltext
from jobber.config.loading import loads
from jobber.config.schemas import SECTIONS, legacy_keys
from jobber.errors import ConfigError
from tests.legacy import FOLDERS, HERE, REFUSED

PLACE = Path("config.toml")
ROOT = Path(__file__).parent.parent.parent


def without_warnings(settings: Settings) -> Settings:
    return replace(settings, warnings=())


def is_todays(text: str) -> bool:
    """Whether a file has no key of older ones in it."""
    tables = tomllib.loads(text)
    sections = [("app", tables.get("app", {}))]
    sections += [(f"job_queue.{name}", table) for name, table in tables.get("job_queue", {}).items()]
    sections += [(f"{kind}.NAME", table) for kind in ("db", "results") for table in tables.get(kind, {}).values()]
    return not any({*legacy_keys(SECTIONS[kind]), "type", "dsn"} & table.keys() for kind, table in sections)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_new_file_has_todays_keys_and_loads_to_the_same_settings_without_warnings(folder: str) -> None:
    file = HERE / folder / "config.toml"
    text = migrate(file.read_text(), file, {})
    assert text is not None
    new = loads(text, PLACE, {})
    assert new.warnings == ()
    assert new == without_warnings(load(file, {}))
    assert is_todays(text)
    assert migrate(text, PLACE, {}) is None
    assert all(len(line) <= 160 for line in text.splitlines() if not line.startswith("url"))


def test_every_key_that_is_gone_is_named_with_the_reason_and_comments_stay_where_they_belong() -> None:
    file = HERE / "dungbeetle-2-postgresql" / "config.toml"
    text = migrate(file.read_text(), file, {}) or ""
    assert text.count("# The reports of the shop") == text.count("# Add the replica when it is there") == 1
    assert '# Redis wakes the workers\n[job_queue.broker]\nurl = "redis://localhost:6379/2"\n' in text
    assert "# The job's ID is put in here\nresults_table" in text
    assert '# As little as possible\nlog_level = "ERROR"\n' in text
    assert "# jobber: default_job_ttl left out; dungbeetle never applied it" in text
    assert "# jobber: batch_insert, batch_size left out; rows are always loaded in bulk" in text
    for key in ("max_active", "max_idle", "dial_timeout", "addresses", "expiry", "meta_expiry"):
        assert any(line.startswith("# jobber: ") and key in line for line in text.splitlines())
    assert text.index("# Add the replica") > text.index("[db.shop]")
    koanf = HERE / "sql-jobber-koanf" / "config.toml"
    assert '/1"  # before the @ stands a password\n' in (migrate(koanf.read_text(), koanf, {}) or "")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_comment_is_lost(folder: str) -> None:
    file = HERE / folder / "config.toml"
    text = migrate(file.read_text(), file, {}) or ""
    for comments in tomltext.comments(file.read_text()).values():
        assert all(line in text for line in comments.lines())


def test_tables_may_be_written_in_any_way() -> None:
    old = """
    job_queue.broker = {addresses = ["h:6379"], db = 3}  # in one line
    results.r.type = "postgres"
    results.r.dsn = "host=h dbname=r"
    db = {"a.b" = {type = "mysql", dsn = "u:p@tcp(h)/d", max_active = 5}}
    [job_queue.state]
    addresses = [
        "h:6379",  # only one
    ]
    """
    text = migrate(old, PLACE, {}) or ""
    assert without_warnings(loads(text, PLACE, {})) == without_warnings(loads(old, PLACE, {}))
    assert is_todays(text)
    assert "# in one line" in text


def test_comments_at_the_end_of_sections_at_sections_that_are_gone_and_in_lists_are_kept() -> None:
    old = """
    [machinery]  # of machinery
    broker_address = "redis://h/1"
    [job_queue.state]
    addresses = [
        "h:6379",  # the only one
    ]
    [db]  # of all
    [db.a]
    dsn = "host=h dbname=d"
    # type = "postgres"

    # of b
    [db.b]
    dsn = "host=h dbname=d"
    [results.r]
    dsn = "host=h dbname=d"
    """
    text = migrate(old, PLACE, {}) or ""
    assert all(comment in text for comment in ("# of machinery", "# of all", "# the only one"))
    assert '# type = "postgres"\n\n# of b\n[db.b]\n' in text


def test_a_file_in_jobbers_own_form_needs_nothing() -> None:
    assert migrate((ROOT / "config.sample.toml").read_text(), PLACE, {}) is None


def test_addresses_and_passwords_in_files_stay_there(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("u:p@tcp(h)/d")
    (tmp_path / "password").write_text("secret")
    old = f"""
    [job_queue.broker]
    addresses = ["h:6379"]
    password = "file:{tmp_path}/password"
    [job_queue.state]
    type = "redis"
    password = "file:{tmp_path}/password"
    [results.r]
    type = "mysql"
    dsn = "file:{tmp_path}/dsn"
    max_idle = 1
    [db.a]
    type = "mysql"
    dsn = "file:{tmp_path}/dsn"
    """
    text = migrate(old, PLACE, {}) or ""
    tables = tomllib.loads(text)
    assert tables["job_queue"]["broker"] == {"url": "redis://h:6379/0", "password": f"file:{tmp_path}/password"}
    assert tables["job_queue"]["state"] == {"type": "redis"}
    assert "# jobber: state goes to results.r as before, whose address is not in this file" in text
    assert tables["db"]["a"] == {"type": "mysql", "dsn": f"file:{tmp_path}/dsn"}
    assert "secret" not in text
    assert without_warnings(loads(text, PLACE, {})) == without_warnings(loads(old, PLACE, {}))
    assert migrate(text, PLACE, {}) is None


def test_a_password_beside_the_address_goes_with_it_to_the_state(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    old = f"""
    [job_queue.broker]
    addresses = ["h:6379"]
    [job_queue.state]
    type = "redis"
    [results.r]
    url = "postgresql://u@h/r"
    password = "file:{tmp_path}/password"
    [db.a]
    url = "sqlite:////tmp/a.db"
    """
    state = tomllib.loads(migrate(old, PLACE, {}) or "")["job_queue"]["state"]
    assert state == {"url": "postgresql://u@h/r", "password": f"file:{tmp_path}/password"}


def test_state_that_follows_a_database_of_the_environment_goes_on_following_it() -> None:
    old = (HERE / "dungbeetle-2-mysql" / "config.toml").read_text()
    environ = {"JOBBER_RESULTS__CACHE__URL": "postgresql://h/elsewhere"}
    text = migrate(old, PLACE, environ) or ""
    assert tomllib.loads(text)["job_queue"]["state"] == {"type": "redis"}
    assert loads(text, PLACE, environ).state.url.endswith("//h/elsewhere")


def test_an_older_key_in_the_environment_that_would_lose_its_meaning_is_refused() -> None:
    old = (HERE / "dungbeetle-2-mysql" / "config.toml").read_text()
    with pytest.raises(ConfigError, match=r"would not mean the same \(broker\); unset those that set older keys"):
        migrate(old, PLACE, {"JOBBER_JOB_QUEUE__BROKER__ADDRESSES": "other:6379"})


# -- any file ---------------------------------------------------------------------------------------------------------

_TEXT = st.text("ab@:/?#%&= '\"\\é", min_size=1, max_size=6).filter(str.strip)
_SECRET = _TEXT.filter(lambda text: not text.startswith("file:"))
_KEYS = st.fixed_dictionaries(
    {},
    optional={
        "max_idle": st.integers(-1, 20),
        "max_active": st.integers(-1, 3000),
        "pool_size": st.integers(1, 50),
        "connect_timeout": st.sampled_from([0, 10, "10s", "1m30s"]),
    },
)


@st.composite
def _database(draw: st.DrawFn) -> dict[str, Any]:
    user, password = draw(st.sampled_from(["u", "r"])), draw(_SECRET)
    options = draw(
        st.lists(
            st.sampled_from(["max_execution_time=5000", "parseTime=true", "tls=skip-verify", "timeout=3s"]), unique=True
        )
    )
    mysql = f"{user}:{password}@tcp(h:3307)/d" + ("?" + "&".join(options) if options else "")
    quoted = "'" + password.replace("\\", "\\\\").replace("'", "\\'") + "'"
    postgresql = f"host=h user={user} password={quoted} dbname=d sslmode=disable" + draw(
        st.sampled_from(["", " search_path='a b'", " statement_timeout=1500 binary_parameters=yes", " port=5433"])
    )
    kind, dsn = draw(st.sampled_from([("mysql", mysql), ("postgres", postgresql)]))
    return {"type": kind, "dsn": dsn, **draw(_KEYS)}


_REDIS = st.fixed_dictionaries(
    {"type": st.just("redis"), "addresses": st.sampled_from([["h:6379"], [":6380"]])},
    optional={"password": st.just("") | _SECRET, "db": st.integers(0, 9), "dial_timeout": st.just("1s")},
)


@examples(max_examples=25, deadline=None)  # other tests run beside these
@given(
    broker=_REDIS,
    state=_REDIS,
    results=st.dictionaries(st.sampled_from(["r", "s.t"]), _database(), min_size=1),
    databases=st.dictionaries(st.sampled_from(["a", "b-c"]), _database(), min_size=1),
    level=st.sampled_from(["DEBUG", "INFO", "ERROR"]),
)
def test_any_older_file_keeps_its_meaning(
    broker: dict[str, Any], state: dict[str, Any], results: dict[str, Any], databases: dict[str, Any], level: str
) -> None:
    sections = {("app",): {"log_level": level}, ("job_queue", "broker"): broker, ("job_queue", "state"): state}
    sections |= {("results", name): table for name, table in results.items()}
    sections |= {("db", name): table for name, table in databases.items()}
    old = "\n".join(
        "\n".join([tomltext.heading(path), *(f"{key} = {tomltext.value(found)}" for key, found in table.items())])
        for path, table in sections.items()
    )
    text = migrate(old, PLACE, {})
    assert text is not None
    assert without_warnings(loads(text, PLACE, {})) == without_warnings(loads(old, PLACE, {}))
    assert is_todays(text)


# -- the command ------------------------------------------------------------------------------------------------------


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["migrate-config", *map(str, words)])


def test_the_new_file_is_printed_or_written_for_its_owner_only_and_never_over_another(tmp_path: Path) -> None:
    old, new = HERE / "dungbeetle-1" / "config.toml", tmp_path / "new.toml"
    printed = run(old)
    assert printed.exit_code == 0
    done = run(old, "--output", new)
    assert (done.exit_code, done.stdout) == (
        0,
        f"wrote {new}; check it: jobber --config {new} --sql-directory DIR check\n",
    )
    assert new.read_text() == printed.stdout == run(old, "--output", "-").stdout
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    again = run(old, "--output", new)
    assert again.exit_code == 1
    assert f"{new} is there already" in again.stderr
    assert "cannot be written: No such file or directory" in run(old, "--output", tmp_path / "no" / "new.toml").stderr


def test_a_new_file_is_said_to_be_one_and_nothing_is_written(tmp_path: Path) -> None:
    done = run(ROOT / "config.sample.toml", "--output", tmp_path / "new.toml")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "is in jobber's own form already; use it as it is" in done.stderr
    assert not (tmp_path / "new.toml").exists()


def test_a_full_disk_is_one_message() -> None:
    with Path("/dev/full").open("w") as full:
        words = ("-m", "jobber", "migrate-config", HERE / "dungbeetle-1" / "config.toml")
        done = subprocess.run([sys.executable, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


def test_a_wrong_file_is_refused_as_it_is_when_serving(tmp_path: Path) -> None:
    refused = run(HERE / REFUSED / "config.toml")
    assert refused.exit_code == 1
    assert "result_backend.type: results are tables" in refused.stderr
    (tmp_path / "broken.toml").write_text("[db\n")
    assert "is not valid TOML" in run(tmp_path / "broken.toml").stderr
    assert "cannot be read: No such file" in run(tmp_path / "missing.toml").stderr

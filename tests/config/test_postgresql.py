"""DSNs of Go's drivers for PostgreSQL as libpq takes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from jobber.config.postgresql import time_limit, without_go
from tests.config.conftest import Loading


@pytest.mark.parametrize(
    ("dsn", "meant"),
    [
        ("postgres://u:p@h/d", "postgres://u:p@h/d"),
        ("postgres://u:p?x@h/d?sslmode=disable", "postgres://u:p?x@h/d?sslmode=disable"),
        ("postgres://h/d?binary_parameters=yes", "postgres://h/d"),
        ("postgres://h/d?sslmode=disable&pool_max_conns=4", "postgres://h/d?sslmode=disable"),
        ("postgres://h/d?search_path=a,b", "postgres://h/d?options=-c%20search_path%3Da,b"),
        (
            "postgresql://h/d?options=-c%20a.b%3D1&TimeZone=Asia/Kolkata&work_mem=4+MB",
            "postgresql://h/d?options=-c%20a.b%3D1%20-c%20TimeZone%3DAsia/Kolkata%20-c%20work_mem%3D4%5C%20MB",
        ),
        ("host=h dbname=d", "host=h dbname=d"),
        ("host=h binary_parameters=yes", "host='h'"),
        ("host=h search_path='a b' dbname=d", r"host='h' dbname='d' options='-c search_path=a\\ b'"),
        ("u:p@tcp(h)/d?x=y", "u:p@tcp(h)/d?x=y"),
        ("host = h oops", "host = h oops"),
        ("", ""),
    ],
)
def test_what_libpq_does_not_know_is_left_out_or_a_setting_of_the_session(dsn: str, meant: str) -> None:
    assert without_go(dsn) == meant


@examples(deadline=None)  # other tests run beside these
@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_any_password_and_any_setting_arrive(text: str) -> None:
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    found = conninfo_to_dict(without_go(f"host=h password={quoted} binary_parameters=yes search_path=x"))
    assert (found["password"], found["options"]) == (text, "-c search_path=x")


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ("-c statement_timeout=1500", 2),
        ("-cstatement_timeout=2min", 120),
        ("-c statement_timeout=5s -c statement_timeout=7s", 7),
        ("-c statement_timeout=0", None),
        ("-c statement_timeout=1.5s", None),
        ("-c x.statement_timeout=5s", None),
        ("-c lock_timeout=5s", None),
    ],
)
def test_the_limit_of_an_address_is_found(options: str, limit: int | None) -> None:
    assert time_limit(make_url("postgresql://h/d").update_query_dict({"options": options})) == limit


def test_the_section_s_own_timeout_stands_over_that_of_the_address(loading: Loading) -> None:
    text = "[db.a]\nurl = 'postgresql://h/d?options=-c%20statement_timeout%3D5s'\n"
    assert loading(text).databases["a"].timeout == 5
    assert loading(text + "timeout = 0\n").databases["a"].timeout == 0
    assert (
        loading("[db.a]\nurl = 'mysql://h/d?init_command=SET max_statement_time = 1.5'\n").databases["a"].timeout == 2
    )

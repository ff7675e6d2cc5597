"""COPY text: what goes in must come out of a real PostgreSQL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobber.columns import Column, Kind, Row
from jobber.config import ResultsSettings
from jobber.errors import ValueNotRepresentable
from jobber.results import naming
from jobber.results.base import Target
from jobber.results.copytext import CopyText
from tests.servers import Postgres

COLUMNS = (
    Column("i", Kind.INTEGER),
    Column("f", Kind.FLOAT),
    Column("b", Kind.BOOLEAN),
    Column("t", Kind.TEXT),
    Column("u", Kind.TEXT),
)
#: Text in which all that COPY knows as special is frequent.
texts = st.text(max_size=20).filter(lambda text: "\0" not in text) | st.text("\\\t\n\r\b\f\vN.tn \x1f\x1e", max_size=8)
rows = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(),
    st.none() | st.booleans(),
    st.none() | texts,
    st.none() | texts,
)


@pytest.fixture(scope="module")
def table(postgres: Postgres) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        connection.execute("CREATE TEMP TABLE c (i bigint, f numeric, b boolean, t text, u text)")
        yield connection
        connection.rollback()


@given(batch=st.lists(rows, min_size=1, max_size=100))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_survive_the_way_through_postgresql(
    table: psycopg.Connection[tuple[object, ...]], batch: Sequence[Row]
) -> None:
    data = CopyText(COLUMNS).encode(batch)
    assert data.count(b"\n") == len(batch)
    table.execute("TRUNCATE c")
    with table.cursor().copy("COPY c FROM STDIN") as copy:
        copy.write(data)
    stored = table.execute("SELECT * FROM c ORDER BY ctid").fetchall()
    assert [(i, b, t, u) for i, _, b, t, u in stored] == [(i, b, t, u) for i, _, b, t, u in batch]
    for (_, got, *_), (_, sent, *_) in zip(stored, batch, strict=True):
        assert (got is None) == (sent is None)
        if sent is not None:
            assert isinstance(got, Decimal)
            assert float(got) == sent or (math.isnan(float(got)) and math.isnan(float(sent)))


@given(batch=st.lists(st.tuples(st.none() | texts), max_size=20))
def test_a_single_column_has_one_line_a_row(batch: Sequence[Row]) -> None:
    data = CopyText((Column("t", Kind.TEXT),)).encode(batch)
    assert data.count(b"\n") == len(batch)
    assert data.endswith(b"\n") or not batch
    assert b"\n\\.\n" not in b"\n" + data  # that would end the data


def test_no_rows_are_no_bytes() -> None:
    assert CopyText(COLUMNS).encode([]) == b""


@pytest.mark.parametrize(
    ("value", "fits"),
    [("1.25", True), ("1.2500", True), ("1.251", False), ("-0.001", False), ("NaN", True), ("7", True)],
)
def test_digits_are_never_rounded_away(value: str, fits: bool) -> None:
    encoder = CopyText((Column("n", Kind.NUMERIC, 10, 2),))
    if fits:
        assert encoder.encode([(None,), (value,)]) == f"\\N\n{value}\n".encode()
    else:
        with pytest.raises(ValueNotRepresentable, match=rf'"n" cannot hold "{value}"'):
            encoder.encode([(None,), (value,)])


# -- names of tables --------------------------------------------------------------------------------------------------

job_ids = st.from_regex(r"[A-Za-z0-9_:-]{1,100}", fullmatch=True)


@given(st.lists(job_ids, unique=True, min_size=2, max_size=10), st.booleans())
def test_table_names_are_short_and_different_for_different_jobs(ids: list[str], folds_case: bool) -> None:
    made = [naming.table_name("results_%s", job_id, folds_case=folds_case) for job_id in ids]
    assert len({name.lower() if folds_case else name for name in made}) == len(ids)
    assert all(len(name.encode()) <= 63 for name in made)


@given(st.text("ab", min_size=1, max_size=20), st.booleans())
def test_a_short_name_is_the_template_with_the_id(job_id: str, folds_case: bool) -> None:
    assert naming.table_name("results_%s", job_id, folds_case=folds_case) == f"results_{job_id}"


@given(st.integers(0, 2**63 - 1), st.integers(1, 2**31 - 1))
def test_staging_names_are_safe_identifiers_and_never_repeat(run: int, attempt: int) -> None:
    where = Target("any \" table'", "job", run, attempt, 0)
    name = naming.staging_name(where)
    assert name.startswith("jobber_staging_")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert len(name) <= 59
    assert name != naming.staging_name(where) or name != naming.staging_name(where)


def test_a_good_template_is_accepted() -> None:
    naming.check_template(ResultsSettings(name="x", url="", engine="sqlite", results_table="r_%s_x"))

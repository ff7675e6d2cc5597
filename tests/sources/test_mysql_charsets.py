"""Text of any single-byte character set arrives as its characters; what stands for none fails the query."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobber.errors import ValueNotRepresentable
from jobber.sources.base import Shape, Source
from tests.servers import MariaDB
from tests.sources.engines import MysqlEngine, opened
from tests.sources.reading import read

#: A byte of each character set that stands for no character.
UNDEFINED = {
    "ascii": 0xE9,
    "cp1250": 0x81,
    "cp1251": 0x98,
    "cp1256": 0x8A,
    "cp1257": 0x81,
    "dec8": 0xA4,
    "geostd8": 0x81,
    "greek": 0xA4,
    "hebrew": 0xA1,
    "hp8": 0xFF,
    "swe7": 0x80,
    "tis620": 0xA0,
}


@pytest.fixture(scope="module")
def engine(mariadb: MariaDB) -> Iterator[MysqlEngine]:
    name = mariadb.new_database()
    yield MysqlEngine(mariadb, name)
    mariadb.drop_database(name)


@pytest.fixture(scope="module")
def source(engine: MysqlEngine) -> Iterator[Source]:
    source = opened(engine)
    yield source
    source.close()


@pytest.fixture(scope="module")
def charsets(engine: MysqlEngine) -> list[str]:
    """A table ``bytes_CHARSET`` per single-byte character set, every byte a row of it."""
    names = [name for (name,) in engine.watch("SELECT character_set_name FROM information_schema.character_sets "
                                              "WHERE maxlen = 1 AND character_set_name <> 'binary'")]  # fmt: skip
    for name in names:
        last = 128 if name == "ascii" and engine.server.is_mysql else 256
        values = ", ".join(f"({byte}, _{name} x'{byte:02x}')" for byte in range(last))
        engine.watch(f"CREATE TABLE bytes_{name} (b INT PRIMARY KEY, v VARCHAR(9) CHARACTER SET {name})")
        engine.watch(f"INSERT INTO bytes_{name} VALUES {values}")
    return names


def test_every_byte_is_the_servers_character_or_fails(
    engine: MysqlEngine, source: Source, charsets: list[str], accepts: frozenset[Shape]
) -> None:
    for name in charsets:
        known = "v = _utf8mb4'?' OR CONVERT(v USING utf8mb4) NOT IN ('?', _utf8mb4 x'efbfbd')"
        expected = engine.watch(f"SELECT b, HEX(CONVERT(v USING utf8mb4)) FROM bytes_{name} WHERE {known} ORDER BY b")
        rows = read(source, f"SELECT b, v FROM bytes_{name} WHERE {known} ORDER BY b", accepts=accepts).rows
        assert [(byte, str(text).encode().hex().upper()) for byte, text in rows] == expected, name
        if name in UNDEFINED and len(rows) < 256 and not (name == "ascii" and engine.server.is_mysql):
            with pytest.raises(ValueNotRepresentable, match=rf'column "v" cannot hold .* character set, {name}'):
                read(source, f"SELECT b, v FROM bytes_{name}", accepts=accepts)


@pytest.mark.usefixtures("charsets")
def test_columns_of_several_character_sets_arrive_side_by_side(source: Source, accepts: frozenset[Shape]) -> None:
    sql = (
        "SELECT a.v AS a, b.v AS b, _utf8mb4'\\\\ é🐎' AS c, CAST('x' AS BINARY) AS d, PI() > 3 AS e, NULL AS f, "
        "? AS g, CAST(_cp1251 x'5c09c8' AS CHAR CHARACTER SET cp1251) AS h FROM bytes_cp1251 a, bytes_latin1 b "
        "WHERE a.b = 200 AND b.b = 128"
    )
    row = ("И", "€", "\\ é🐎", "\\x78", 1, None, "é", "\\\tИ")
    assert read(source, sql, ["é"], accepts=accepts).rows == [row]
    with_binary_protocol = read(source, sql.replace("PI() > 3", "PI()"), ["é"], accepts=accepts).rows
    assert [value for i, value in enumerate(with_binary_protocol[0]) if i != 4] == [*row[:4], *row[5:]]

"""Connections to MySQL and MariaDB: what they are told, what they refuse, and how they end."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from pymysql import err
from pymysql.constants import CLIENT, COMMAND, FIELD_TYPE
from sqlalchemy import make_url

from jobber.cancellation import Cancellation
from jobber.errors import Cancelled
from jobber.mysql import ColumnPacket, Connection, Killer, Meaning, connect, meaning, words
from tests.servers import MariaDB, free_port


@pytest.fixture
def connection(mariadb_url: str) -> Iterator[Connection]:
    with connect(mariadb_url, connect_timeout=10) as connection:
        yield connection


def test_the_server_is_known(mariadb: MariaDB, connection: Connection) -> None:
    assert connection.is_mariadb is not mariadb.is_mysql
    [(version,)] = connection.rows("SELECT VERSION()")
    assert version.startswith(".".join(map(str, connection.version)))
    assert connection.rows("SELECT CONNECTION_ID()") == [(connection.id,)]


def test_statements_commit_though_the_server_says_otherwise_for_all(mariadb: MariaDB, mariadb_url: str) -> None:
    mariadb.execute("SET GLOBAL autocommit = 0")
    try:
        with connect(mariadb_url, connect_timeout=10) as connection:
            assert connection.rows("SELECT @@SESSION.autocommit") == [(1,)]
    finally:
        mariadb.execute("SET GLOBAL autocommit = 1")


@pytest.mark.parametrize(
    ("told", "mariadb", "version"),
    [
        ("5.5.5-10.11.6-MariaDB-0+deb12u1", True, (10, 11, 6)),
        ("11.4.2-MariaDB", True, (11, 4, 2)),
        ("8.4.3", False, (8, 4, 3)),
        ("5.7.44-log", False, (5, 7, 44)),
        ("8.0.11-TiDB-v7.5.1", False, (8, 0, 11)),
        ("who knows", False, ()),
    ],
)
def test_a_version_is_read_in_all_its_forms(told: str, mariadb: bool, version: tuple[int, ...]) -> None:
    connection = Connection(defer_connect=True)
    connection.server_version = told
    assert (connection.is_mariadb, connection.version) == (mariadb, version)


def described(connection: Connection, sql: str) -> list[ColumnPacket]:
    connection.send(COMMAND.COM_STMT_PREPARE, sql.encode())
    columns, placeholders = struct.unpack_from("<xxxxxHH", connection.packet().get_all_data())
    connection.definitions(placeholders)
    return connection.definitions(columns)


def test_columns_are_described_with_what_only_mariadb_tells(connection: Connection) -> None:
    connection.run("CREATE TABLE t (j JSON, n INT UNSIGNED, b VARBINARY(9), s VARCHAR(9))")
    json, number, binary, text = described(connection, "SELECT * FROM t WHERE n = ?")
    assert (json.type_code, json.format_name) in {(FIELD_TYPE.JSON, ""), (FIELD_TYPE.BLOB, "json")}
    assert (number.name, number.type_code, number.flags & 32) == ("n", FIELD_TYPE.LONG, 32)
    assert (binary.charsetnr, text.charsetnr != 63) == (63, True)
    assert connection.rows("SELECT 1") == [(1,)]


def test_a_statement_is_one_statement_whatever_the_url_says(mariadb_url: str) -> None:
    multi = 1 << 16
    with (
        connect(f"{mariadb_url}?client_flag={multi}", connect_timeout=10) as connection,
        pytest.raises(err.ProgrammingError, match="syntax"),
    ):
        connection.run("SELECT 1; SELECT 2")


def test_an_error_carries_its_state(connection: Connection) -> None:
    with pytest.raises(err.ProgrammingError) as failed:
        connection.rows("SELECT * FROM nowhere")
    assert failed.value.sqlstate == "42S02"
    assert (meaning(failed.value), words(failed.value).endswith("doesn't exist (error 1146)")) == (
        Meaning.REFUSED,
        True,
    )


def test_no_file_is_sent_whatever_the_server_asks_for(connection: Connection) -> None:
    connection.run("CREATE TABLE stolen (line TEXT)")
    with pytest.raises(err.Error):
        connection.run("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE stolen")
    assert connection.rows("SELECT * FROM stolen") == []


def test_rows_are_loaded_only_under_the_name_that_was_offered(mariadb_url: str) -> None:
    with connect(mariadb_url, connect_timeout=10, local_infile=True) as connection:
        connection.run("CREATE TABLE loaded (line TEXT)")
        connection.start_load("LOAD DATA LOCAL INFILE 'rows' INTO TABLE loaded", "rows")
        connection.write_packet(b"a\nb\n")
        connection.write_packet(b"")
        connection.packet()
        assert connection.rows("SELECT * FROM loaded") == [("a",), ("b",)]
        with pytest.raises(err.OperationalError, match="something else"):
            connection.start_load("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE loaded", "rows")
        assert not connection.open


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(err.OperationalError) as failed:
            connect(f"mysql+pymysql://u@127.0.0.1:{server.getsockname()[1]}/d", connect_timeout=1)
    assert time.monotonic() - began < 10
    assert meaning(failed.value) is Meaning.UNAVAILABLE


def test_a_limit_to_silence_holds_from_when_it_is_set(connection: Connection) -> None:
    assert connection.rows("SELECT SLEEP(0.1)") == [(0,)]
    connection.wait_at_most(0.2)
    with pytest.raises(err.OperationalError) as failed:
        connection.rows("SELECT SLEEP(60)")
    assert meaning(failed.value) is Meaning.LOST


def test_a_connection_that_is_broken_off_ends_whoever_waits(connection: Connection) -> None:
    threading.Timer(0.2, connection.abort).start()
    with pytest.raises(err.OperationalError) as failed:
        connection.rows("SELECT SLEEP(60)")
    assert meaning(failed.value) is Meaning.LOST
    connection.abort()  # once more does no harm


def test_what_is_received_after_the_end_is_an_error(connection: Connection) -> None:
    connection.send(COMMAND.COM_QUERY, b"SELECT 1")
    assert connection.receive(1000)
    connection.abort()
    for _ in range(2):
        with pytest.raises(err.OperationalError, match="ended the connection"):
            connection.receive(1000)


def test_the_killer_ends_what_runs_and_leaves_alone_what_does_not(mariadb_url: str, connection: Connection) -> None:
    killer = Killer(connection, lambda: connect(mariadb_url, connect_timeout=10))
    cancellation = Cancellation()
    with killer.armed(cancellation):
        assert connection.rows("SELECT 1") == [(1,)]
    assert not killer.used
    threading.Timer(0.2, lambda: cancellation.pull(Cancelled("stop"))).start()
    began = time.monotonic()
    with pytest.raises(Cancelled), killer.armed(cancellation):
        connection.rows("SELECT SLEEP(60)")
    assert killer.used
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (err.OperationalError(1213, "Deadlock found"), Meaning.CONFLICT),
        (err.OperationalError(1205, "Lock wait timeout"), Meaning.CONFLICT),
        (err.OperationalError(2013, "Lost connection to root@db"), Meaning.LOST),
        (err.InterfaceError(0, ""), Meaning.LOST),
        (err.OperationalError(1045, "Access denied for user 'root'@'db'"), Meaning.UNAVAILABLE),
        (err.OperationalError(1040, "Too many connections"), Meaning.UNAVAILABLE),
        (err.OperationalError(1969, "max_statement_time"), Meaning.TIMED_OUT),
        (err.OperationalError(3024, "max_execution_time"), Meaning.TIMED_OUT),
        (err.OperationalError(1317, "interrupted"), Meaning.INTERRUPTED),
        (err.InternalError(1105, "Unknown error"), Meaning.FAILED),
    ],
)
def test_an_error_has_a_meaning(error: Exception, expected: Meaning) -> None:
    assert meaning(error) is expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (err.OperationalError(1045, "Access denied for user 'root'@'db'"), "access denied (error 1045)"),
        (err.OperationalError(2013, "Lost connection to root@db"), "the connection broke (error 2013)"),
        (err.InterfaceError(0, ""), "the connection broke"),
        (err.OperationalError(1037, "for root@db"), "the server has too little memory (error 1037)"),
        (err.OperationalError(1184, "for root@db"), "the connection broke (error 1184)"),
        (
            err.OperationalError(1130, "Host 'db' is not allowed"),
            "the server does not let this machine in (error 1130)",
        ),
        (err.OperationalError(1213, "Deadlock found"), "Deadlock found (error 1213)"),
    ],
)
def test_the_words_for_an_error_name_no_host_and_no_account(error: Exception, text: str) -> None:
    assert words(error) == text


def test_that_nobody_listens_is_told_without_the_address() -> None:
    with pytest.raises(err.OperationalError) as failed:
        connect(f"mysql+pymysql://someone:sesame@127.0.0.1:{free_port()}/d", connect_timeout=2)
    assert words(failed.value) == "Connection refused (error 2003)"


def test_a_password_is_sent_in_utf_8(mariadb: MariaDB) -> None:
    mariadb.connect(charset="utf8mb4").cursor().execute("CREATE USER secretive IDENTIFIED BY 'pä✓@/%'")
    try:
        url = f"mysql+pymysql://secretive:{quote('pä✓@/%', safe='')}@127.0.0.1:{mariadb.port}"
        with connect(url, connect_timeout=10) as connection:
            assert connection.rows("SELECT 1") == [(1,)]
    finally:
        mariadb.execute("DROP USER secretive")


@pytest.mark.parametrize(
    "greeting", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 99]
)
def test_what_is_no_mysql_server_is_said_to_be_none(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            client.sendall(greeting)
            time.sleep(2)
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(err.OperationalError) as failed:
            connect(f"mysql+pymysql://root@127.0.0.1:{listener.getsockname()[1]}/x", connect_timeout=1)
    assert meaning(failed.value) is Meaning.UNAVAILABLE
    assert words(failed.value) == "it does not answer as a MySQL server does (error 2003)"


def test_a_file_of_tls_that_went_away_is_an_error_of_the_connection(mariadb_url: str) -> None:
    with pytest.raises(err.OperationalError) as failed:
        connect(f"{mariadb_url}?ssl_ca=/nowhere/ca.pem", connect_timeout=5)
    assert words(failed.value) == "TLS failed (error 2026)"


# -- several statements at once ---------------------------------------------------------------------------------------


@pytest.fixture
def several(mariadb_url: str) -> Iterator[Connection]:
    """A connection on which statements may be several."""
    _, options = make_url(mariadb_url).get_dialect()().create_connect_args(make_url(mariadb_url))
    flags = options.pop("client_flag", 0) | CLIENT.MULTI_STATEMENTS
    with Connection(**options, client_flag=flags, charset="utf8mb4", autocommit=True) as connection:
        yield connection


def test_each_of_several_statements_has_its_rows(several: Connection) -> None:
    asked = "SELECT 1, NULL, 'é'; CREATE TABLE t (a INT); INSERT INTO t VALUES (1); SELECT a FROM t WHERE a > 1"
    assert several.answers(asked) == [[(b"1", None, "é".encode())], [], [], []]
    assert several.answers("SELECT 2 UNION ALL SELECT 3 ORDER BY 1") == [[(b"2",), (b"3",)]]
    assert several.rows("SELECT COUNT(*) FROM t") == [(1,)]


@pytest.mark.parametrize("size", [0, 250, 251, 65_535, 65_536, 2**24 - 6])
def test_values_of_every_length_arrive_whole(several: Connection, size: int) -> None:
    """The length of a value takes one to nine bytes, and more than 16 MB take several packets."""
    ((text, more),), ((after,),) = several.answers(f"SELECT REPEAT('x', {size}), REPEAT('y', 200); SELECT 8")
    assert text == b"x" * size
    assert (more, after) == (b"y" * 200, b"8")


def test_after_the_first_error_none_of_several_statements_is_run(several: Connection) -> None:
    several.run("CREATE TABLE t (a INT PRIMARY KEY)")
    with pytest.raises(err.IntegrityError):
        several.answers("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
    assert several.answers("SELECT a FROM t") == [[(b"1",)]]


def test_an_error_among_the_rows_is_told(several: Connection) -> None:
    with pytest.raises(err.OperationalError, match="more than 1 row"):
        several.answers("SELECT (SELECT n FROM (SELECT 1 AS n UNION SELECT 2) AS two); SELECT 1")
    assert several.answers("SELECT 1") == [[(b"1",)]]


def test_a_connection_that_is_cut_off_while_it_answers_is_lost(several: Connection) -> None:
    threading.Timer(0.3, several.abort).start()
    with pytest.raises(err.OperationalError) as caught:
        several.answers("SELECT 1; SELECT SLEEP(20)")
    assert meaning(caught.value) is Meaning.LOST
    assert not several.open

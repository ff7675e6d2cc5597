"""One connection to MySQL or MariaDB while a job holds it: the steps of a query, each of them cancellable.

What waits, waits in the socket. Another thread ends it (``jobber.mysql.Killer``): with ``KILL QUERY`` over a second
connection, and where that is of no use, by breaking this one off. A session that this happened to is closed.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pymysql import err
from pymysql.constants import COMMAND

from jobber.cancellation import Cancellation
from jobber.errors import QueryFailed
from jobber.jobs import Scalar
from jobber.mysql import ColumnPacket, Connection, Killer
from jobber.sources.mysql.failures import translate
from jobber.sources.mysql.packets import CutRow, Fields, RowFields, RowPackets, Rows, torn
from jobber.sources.mysql.rowforms import binary_row, text_row
from jobber.sources.notices import Notices

#: Seconds that the server has to end what is left of a query, or to clean a session up.
_PATIENCE = 1.5
#: Seconds that the server's own time limit has to show before the query is ended from here.
_GRACE = 0.5
#: Bytes of an answer that is read only to get rid of it.
_DREGS = 1024 * 1024

_RESET_CONNECTION = 0x1F
#: "This command is not supported in the prepared statement protocol yet."
_NOT_PREPARABLE = 1295
#: "Query execution was interrupted."
_INTERRUPTED = 1317
#: Warnings of values that a limit has cut off, or made NULL of, and of rows that it left out; and the limit.
_CUT = {1260: "group_concat_max_len", 1301: "max_allowed_packet", 1931: "max_recursive_iterations"}
#: What MariaDB says of rows that the query itself told it to leave out.
_ASKED_FOR = "LIMIT ROWS EXAMINED"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared statement.

    Parameters:
        id: by which the server knows it; None if it does not prepare such statements.
        columns: what it will return, as far as the server knows before it runs.
        placeholders: how many it has.
    """

    id: int | None
    columns: Sequence[ColumnPacket] = ()
    placeholders: int = 0


class Session:
    """A connection with a transaction on it. One thread uses it; only what ends a query comes from others.

    Parameters:
        connection: nothing is under way on it.
        source: name of the database, for messages.
        another: opens a second connection to the same server.
    """

    def __init__(self, connection: Connection, source: str, another: Callable[[], Connection]) -> None:
        self.connection = connection
        #: What the administrator, or the URL, chose; every query begins with it.
        self.sql_mode: str = connection.rows("SELECT @@sql_mode")[0][0]
        self._source = source
        self._notices = Notices(source)
        self._killer = Killer(connection, another)
        self._rows: RowPackets | None = None
        self._cut: CutRow = text_row(0)
        #: Whether the rows come in the text protocol.
        self.as_text = True
        self._timeout = 0.0
        self._deadline = math.inf
        self._watchdog: threading.Timer | None = None
        self._over = threading.Event()
        self.idle_since = 0.0

    # -- one query ------------------------------------------------------------------------------------------------

    @contextmanager
    def guard(self, cancellation: Cancellation) -> Iterator[None]:
        """While the body waits for the server, a pulled ``cancellation`` ends it; errors become jobber's."""
        try:
            with self._killer.armed(cancellation):
                yield
        except err.Error as error:
            raise translate(error, self._source, timeout=self._timeout, expired=self._late()) from error

    def limit(self, seconds: float) -> None:
        """Begin to count the time of a query; 0 is no limit.

        The server has been told the same limit (``statements.begin``). This one is for what the server leaves out, and
        says whose the error is that then comes.
        """
        self._timeout = seconds
        self._deadline = time.monotonic() + seconds if seconds else math.inf
        self._over = threading.Event()
        if seconds:
            self._watchdog = threading.Timer(seconds + _GRACE, self._killer.strike, [self._over])
            self._watchdog.daemon = True
            self._watchdog.start()

    def _late(self) -> bool:
        return time.monotonic() >= self._deadline

    def begin(self, script: Iterable[str], patience: float) -> None:
        """Run statements of jobber's own that take the server no time.

        Parameters:
            script: the statements.
            patience: seconds that the server may be silent.
        """
        self.connection.wait_at_most(patience)
        for sql in script:
            self.connection.run(sql)
        self.connection.wait_at_most(None)

    def literals(self, values: Sequence[Scalar | float]) -> list[str]:
        """Return arguments as constants, quoted by the driver as this session reads them."""
        return [self.connection.escape(value) for value in values]

    def prepare(self, text: str) -> Prepared:
        """Prepare one statement; it is not run, and a second one behind it is refused by the server."""
        self.connection.send(COMMAND.COM_STMT_PREPARE, text.encode())
        try:
            answer = self.connection.packet().get_all_data()
        except err.Error as error:
            if error.args[0] == _NOT_PREPARABLE:
                return Prepared(None)
            raise
        number, columns, placeholders = struct.unpack_from("<xIHH", answer)
        self.connection.definitions(placeholders)
        return Prepared(number, self.connection.definitions(columns), placeholders)

    def forget(self, prepared: Prepared) -> None:
        """Close a prepared statement; the server does not answer."""
        if prepared.id is not None:
            self.connection.send(COMMAND.COM_STMT_CLOSE, struct.pack("<I", prepared.id))

    def query(self, text: str) -> Sequence[ColumnPacket]:
        """Run a statement and return the columns of its answer; ``read`` gives the rows."""
        self.connection.send(COMMAND.COM_QUERY, text.encode())
        columns = self._answered()
        self._rows, self._cut = RowPackets(self.connection) if columns else None, text_row(len(columns))
        self.as_text = True
        return columns

    def execute(self, prepared: Prepared) -> Sequence[ColumnPacket]:
        """Run a prepared statement without placeholders: its rows come with every digit of their numbers."""
        # No cursor, and once.
        self.connection.send(COMMAND.COM_STMT_EXECUTE, struct.pack("<IBI", prepared.id, 0, 1))
        columns = self._answered()
        self._rows, self._cut = RowPackets(self.connection) if columns else None, binary_row(columns)
        self.as_text = False
        return columns

    def _answered(self) -> Sequence[ColumnPacket]:
        packet = self.connection.packet()
        if packet.is_ok_packet():
            return ()
        if packet.is_load_local_packet():
            self.connection.abort()
            raise torn()
        return self.connection.definitions(packet.read_length_encoded_integer() or 0)

    def read(self, most: int) -> Fields | None:
        """Return the next rows, about ``most`` bytes of them; None after the last."""
        rows = RowFields(self._cut)
        return rows.fields if self.gather(rows, most) else None

    def gather(self, rows: Rows, most: int) -> bool:
        """Give the next rows to ``rows``, about ``most`` bytes of them; False after the last."""
        if self._rows is None:
            return False
        found = self._rows.read(rows, most)
        if not found and self._late():
            # What the limit ended may have ended as if nothing had happened: SLEEP() on MySQL, for one.
            raise err.OperationalError(_INTERRUPTED, "the time limit has passed")
        if not found and self._rows.warnings:
            self._check_warnings()
        return found

    def _check_warnings(self) -> None:
        """Fail over what the server has cut off, of which it only warns; log the rest."""
        for severity, code, text in self.connection.rows("SHOW WARNINGS"):
            self._notices.say(severity, f"{text} ({code})")
            if code in _CUT and _ASKED_FOR not in text:
                raise QueryFailed(
                    f"{self._source}: {text} (warning {code}); {_CUT[code]} is too small for this query: change it on "
                    "the server, or for jobber alone with init_command in the database's url",
                    retryable=False,
                    errno=code,
                )

    # -- the end --------------------------------------------------------------------------------------------------

    def rest(self) -> bool:
        """Make the session as new; False if the connection cannot serve another job and must be closed."""
        self._stop_counting()
        if self._killer.used or self._under_way() or not self.connection.open:
            return False
        self.connection.wait_at_most(_PATIENCE)
        try:
            # Ends the transaction, and with it locks, temporary tables, variables and prepared statements.
            self.connection.send(_RESET_CONNECTION, b"")
            self.connection.packet()
        except err.Error:  # some proxies do not know it
            return False
        self.connection.wait_at_most(None)
        self._rows = None
        self.idle_since = time.monotonic()
        return True

    def end(self) -> None:
        """Make sure that no query of this session runs on, and close it."""
        self._stop_counting()
        if self._rows is not None and self._under_way():
            over = threading.Event()
            self._killer.strike(over)
            # What is left must be read: a server that waits to send does not look at a KILL.
            self.connection.wait_at_most(_PATIENCE)
            give_up_at = time.monotonic() + _PATIENCE
            with suppress(err.Error):
                while self._under_way() and time.monotonic() < give_up_at:
                    self._rows.read(RowFields(self._cut), _DREGS)
            over.set()
        with suppress(err.Error):
            self.connection.close()

    def _under_way(self) -> bool:
        return self._rows is not None and not self._rows.ended and self.connection.open

    def _stop_counting(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog.join()
            self._watchdog = None
        self._over.set()
        self._timeout, self._deadline = 0.0, math.inf

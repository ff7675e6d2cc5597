"""What sources, results and state on MySQL and MariaDB share: connections, the wire, errors, and ending what runs."""

from jobber.mysql.connection import Connection, Texts, connect
from jobber.mysql.errors import Meaning, meaning, number, plain, words
from jobber.mysql.killing import Killer
from jobber.mysql.protocol import ColumnPacket

__all__ = ["ColumnPacket", "Connection", "Killer", "Meaning", "Texts", "connect", "meaning", "number", "plain", "words"]

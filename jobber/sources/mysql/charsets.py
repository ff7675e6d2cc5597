"""Text in character sets that have bytes without a meaning, which the server would send as question marks.

Who asks for UTF-8 gets ``?`` for every byte of a cp1251, greek or ascii column that stands for no character, and no
warning (https://dev.mysql.com/doc/refman/8.4/en/charset-conversion.html). Such a query therefore runs without any
conversion, and its text is converted here, by the server's own tables.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence

from jobber.mysql import ColumnPacket, Connection
from jobber.mysql.protocol import BINARY_CHARSET

#: Single-byte character sets that leave some bytes without a character; measured on MySQL 9 and MariaDB 10.11.
_INCOMPLETE = frozenset(
    {"ascii", "cp1250", "cp1251", "cp1256", "cp1257", "dec8", "geostd8", "greek", "hebrew", "hp8", "swe7", "tis620"}
)
#: What UTF-8 can be read from as it is.
_UNICODE = frozenset({"utf8", "utf8mb3", "utf8mb4"})
_NO_CHARACTER = "\ufffe"  # what codecs.charmap_decode takes for one


class Charsets:
    """The character sets of one server, asked for as they are met."""

    def __init__(self) -> None:
        self._names: Mapping[int, tuple[str, bool]] = {}
        self._forms: dict[str, Callable[[bytes], bytes]] = {}

    def forms(self, connection: Connection, definitions: Sequence[ColumnPacket]) -> dict[int, Callable[[bytes], bytes]]:
        """Return what turns the text of columns into UTF-8, by their position, if the server's own way is not safe.

        Nothing is returned where it is, and where a column has a character set of several bytes that only the server
        can convert.

        Parameters:
            definitions: the columns as they are without conversion.

        Raises:
            err.Error: the server could not be asked.
        """
        numbers = {definition.charsetnr for definition in definitions} - {BINARY_CHARSET}
        if not self._names and numbers:
            found = connection.rows(
                "SELECT a.id, s.character_set_name, s.maxlen = 1 FROM information_schema.character_sets s "
                "JOIN information_schema.collations a USING (character_set_name) WHERE a.id IS NOT NULL"
            )
            self._names = {number: (name, bool(single)) for number, name, single in found}
        charsets = {number: self._names.get(number, ("utf8mb4", False)) for number in numbers}
        if not any(name in _INCOMPLETE for name, _ in charsets.values()):
            return {}
        if not all(single or name in _UNICODE for name, single in charsets.values()):
            return {}
        return {
            position: self._form(connection, name)
            for position, definition in enumerate(definitions)
            if (name := charsets.get(definition.charsetnr, ("utf8mb4",))[0]) not in _UNICODE
        }

    def _form(self, connection: Connection, charset: str) -> Callable[[bytes], bytes]:
        if charset not in self._forms:
            asked = ", ".join(f"HEX(CONVERT(_{charset} x'{byte:02x}' USING utf8mb4))" for byte in range(256))
            [row] = connection.rows(f"SELECT {asked}")
            self._forms[charset] = _converter([bytes.fromhex(code).decode() for code in row], charset)
        return self._forms[charset]


def _converter(characters: Sequence[str], charset: str) -> Callable[[bytes], bytes]:
    """Return what converts text; it raises ValueError over a byte without a character.

    Parameters:
        characters: what the server makes of each byte.
    """
    table = "".join(
        _NO_CHARACTER if character == "\ufffd" or (character == "?" and byte != ord("?")) else character
        for byte, character in enumerate(characters)
    )
    plain = table[:128] == bytes(range(128)).decode()

    def convert(value: bytes) -> bytes:
        if plain and value.isascii():
            return value
        try:
            return codecs.charmap_decode(value, "strict", table)[0].encode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"byte {value[error.start]:#04x} is no character of its character set, {charset}"
            ) from None

    return convert

"""What a server says beside its answers: PostgreSQL's notices, MySQL's warnings. They go to the log.

There they are kept for the history of the job whose query it was (``jobber.joblog``).
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

#: Lines of one connection that are logged in a minute: a query may raise one for each of a million rows.
_MOST, _MINUTE = 100, 60.0


class Notices:
    """Logs what the server of one connection says.

    Parameters:
        source: name of the database.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._since = float("-inf")
        self._said = 0

    def say(self, severity: str, text: str) -> None:
        """Log a line.

        Parameters:
            severity: in the server's words.
        """
        now = time.monotonic()
        if now - self._since >= _MINUTE:
            self._since, self._said = now, 0
        self._said += 1
        if self._said <= _MOST:
            level = logging.WARNING if severity.upper() in ("WARNING", "ERROR") else logging.INFO
            log.log(level, "database %s: %s: %s", self._source, severity, text)

"""Readers who keep a result open that is to be replaced or dropped, on servers where that takes a lock on its table.

Whoever waits for such a lock makes new readers queue behind it. So it is asked for again and again: each time the wait
is short, and in between readers run free. Not to wait at all would never find a gap between readers that overlap.
"""

from __future__ import annotations

import time

from jobber.errors import ResultsFailed

#: Seconds that a statement waits for readers of its table, and new readers behind it.
WAIT = 0.1
#: Seconds that they run free before it is tried again.
PAUSE = 0.2


class Patience:
    """How long one operation waits for readers, from the first time on that it meets one.

    Parameters:
        seconds: at most.
        what: is held open by them: ``"results_a" in results database "main"``.
        so: what they keep from being done.
    """

    def __init__(self, seconds: float, what: str, so: str) -> None:
        self._seconds = seconds
        self._what = what
        self._so = so
        self._until: float | None = None

    def pause(self, cause: Exception) -> None:
        """Let readers run free for a moment.

        Parameters:
            cause: what the server said when the lock was not granted.

        Raises:
            ResultsFailed: the time is over.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        if now >= self._until:
            raise ResultsFailed(
                f"{self._what} is held open by a reader for more than {self._seconds:g} s, so {self._so}"
            ) from cause
        time.sleep(PAUSE)

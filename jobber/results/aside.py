"""Ending an attempt beside the thread that asked for it, which goes on soon once the attempt is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from jobber.cancellation import Cancellation
from jobber.errors import AttemptError

#: Seconds that the end of an attempt waits for the server once somebody asked the attempt to stop.
PATIENCE = 1.0
#: Seconds that it waits at most otherwise.
_LONGEST = 60.0


def aside(cancellation: Cancellation, work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own and wait for it, but not for long once the token is pulled.

    It goes on unattended then, until the server answers or the connection breaks.

    Parameters:
        work: raises nothing.
    """
    done = threading.Event()

    def run() -> None:
        try:
            work()
        finally:
            done.set()

    thread = threading.Thread(target=run, name="jobber-results-end", daemon=True)
    thread.start()
    with suppress(AttemptError), cancellation.interruptible(done.set):
        done.wait(_LONGEST)
    if cancellation.reason is not None:
        thread.join(PATIENCE)

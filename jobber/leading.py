"""Roles that one process of all plays at a time, by a lease in the state database."""

from __future__ import annotations

import time

from jobber.errors import StateUnavailable
from jobber.store import Store


class Role:
    """A role as one process sees it. Used by one thread.

    Two may take themselves for the holder for a moment, when a term ends unnoticed: what a role does is harmless twice.

    Parameters:
        holder: a name of this process that no other has.
        lease: seconds that a term lasts; it is renewed, and the role is sought, three times as often.
    """

    def __init__(self, store: Store, name: str, holder: str, *, lease: float) -> None:
        self._store = store
        self._name = name
        self._holder = holder
        self._lease = lease
        self._held = False
        self._asked = float("-inf")

    def held(self) -> bool:
        """Return whether this process plays the role now. Raises StateUnavailable, and then it does not."""
        if time.monotonic() - self._asked >= self._lease / 3:
            self._held, self._asked = False, time.monotonic()
            self._held = self._store.lead(self._name, self._holder, lease=self._lease)
        return self._held

    def resign(self) -> None:
        """Leave the role to the next who asks: the process stops."""
        if self._held:
            self._held = False
            try:
                self._store.lead(self._name, self._holder, lease=0)
            except StateUnavailable:
                return  # the term ends by itself

"""IDs for what comes without one: random UUIDs (version 4), from the system's randomness."""

from __future__ import annotations

import os
import threading

#: Bytes that are asked of the system at a time, and that one ID takes. To ask lets go of the interpreter's lock, and
#: where many threads want that, it takes long to have it back.
_STOCK, _EACH = 4096, 16
_VARIANTS = "89ab"

_lock = threading.Lock()
_stock = b""
_used = 0


def fresh() -> str:
    """Return an ID that nobody has had."""
    global _stock, _used  # noqa: PLW0603  # one stock for the process
    with _lock:
        if _used + _EACH > len(_stock):
            _stock, _used = os.urandom(_STOCK), 0
        digits = _stock[_used : _used + _EACH].hex()
        _used += _EACH
    variant = _VARIANTS[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _forget() -> None:
    """Forget the stock: a process that is forked off would give out the same IDs as its parent."""
    global _stock, _used, _lock
    _stock, _used, _lock = b"", 0, threading.Lock()


os.register_at_fork(after_in_child=_forget)

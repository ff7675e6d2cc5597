"""IDs that jobber makes up: random UUIDs, never the same twice, nor in two processes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from jobber.identities import fresh


def test_they_are_random_uuids() -> None:
    for made in (fresh() for _ in range(600)):
        as_uuid = UUID(made)
        assert (str(as_uuid), as_uuid.version, as_uuid.variant) == (made, 4, RFC_4122)


def test_threads_get_different_ones() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: fresh(), range(20_000)))
    assert len(set(made)) == len(made)


def test_a_forked_process_makes_others() -> None:
    fresh()
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, fresh().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode() not in {fresh() for _ in range(300)}
    os.close(reader)
    os.close(writer)

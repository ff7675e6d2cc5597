"""The embedded broker with several processes on one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection

from jobber import filequeue

CONSUMER = """
import sys
from queue import Empty
from tests.test_filequeue import connect
taken = []
with connect(sys.argv[1]) as connection:
    queue = connection.SimpleQueue("work")
    while "stop" not in taken[-1:]:
        try:
            message = queue.get(timeout=20)
        except Empty:
            break
        taken.append(message.payload)
        message.ack()
print(*[item for item in taken if item != "stop"])
"""


def connect(folder: str | Path) -> Connection:
    """Connect to the broker in a folder as jobber does."""
    parts = {name: Path(folder) / name for name in ("messages", "control", "taken")}
    for part in parts.values():
        part.mkdir(exist_ok=True)
    return Connection(
        f"{filequeue.SCHEME}://localhost//",
        transport_options={
            "data_folder_in": str(parts["messages"]),
            "data_folder_out": str(parts["messages"]),
            "control_folder": str(parts["control"]),
            "processed_folder": str(parts["taken"]),
            "polling_interval": 0.005,
        },
    )


def test_each_message_reaches_one_process_whole_however_many_put_and_take(tmp_path: Path) -> None:
    """kombu's own transport lets a reader take a file that is still empty."""
    connect(tmp_path).close()
    consumers = [
        subprocess.Popen([sys.executable, "-c", CONSUMER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    with connect(tmp_path) as connection:
        queue = connection.SimpleQueue("work")
        for number in range(1000):
            queue.put(number)
        for _ in consumers:
            queue.put("stop")

    taken = [int(word) for consumer in consumers for word in consumer.communicate(timeout=60)[0].split()]

    assert [consumer.returncode for consumer in consumers] == [0, 0, 0]
    assert sorted(taken) == list(range(1000))
    assert not list((tmp_path / "messages").iterdir())
    assert not list((tmp_path / "taken").iterdir())


def test_an_exchange_table_that_is_being_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(tmp_path) as connection:
        channel = connection.default_channel
        table = tmp_path / "control" / "things.exchange"
        table.write_text("")

        def finish(_seconds: float) -> None:
            table.write_text(json.dumps([["key", "", "work"]]))

        monkeypatch.setattr(filequeue.time, "sleep", finish)

        assert [binding.queue for binding in channel.get_table("things")] == ["work"]


@pytest.mark.parametrize("name", ["reports:eu", "aux", "CON", "..", "a/../../b"])
def test_a_queue_may_have_a_name_that_windows_gives_to_no_file(tmp_path: Path, name: str) -> None:
    with connect(tmp_path) as connection:
        queue = connection.SimpleQueue(name)

        queue.put("wake up")

        assert queue.get(timeout=5).payload == "wake up"
    assert len(list((tmp_path / "control").iterdir())) == 1


def test_a_folder_is_listed_when_it_was_changed_and_no_message_is_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are put while others look, within one tick of the clock by which the folder was changed."""
    listed: list[str] = []
    with connect(tmp_path) as connection:
        channel, other = connection.channel(), connection.channel()

        def taken(queue: str) -> Any:
            try:
                return channel._get(queue)
            except Empty:
                return None

        for number in range(300):
            other._put("work", {"number": number})
            assert taken("rest") is None
            assert taken("work") == {"number": number}
            assert taken("work") is None
        os.utime(tmp_path / "messages", (1, 1))
        listdir = os.listdir
        monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
        assert [taken(queue) for queue in ("work", "rest") * 10] == [None] * 20
        assert len(listed) == 2
        other._put("rest", {"number": 1})
        assert taken("work") is None
        assert taken("rest") == {"number": 1}

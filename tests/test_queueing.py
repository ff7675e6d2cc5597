"""Wake-ups on a real broker: coalesced, bounded, and outliving the broker's moods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError

from jobber import config, queueing
from jobber.config import BrokerSettings
from jobber.errors import BrokerUnavailable
from jobber.queueing import Queueing
from jobber.redisqueue import Channel
from tests.servers import Redis, free_port, wait_until


@pytest.fixture
def client(redis_server: Redis, redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest.fixture
def wakes(tmp_path: Path, redis_url: str) -> Iterator[Queueing]:
    settings = config.embedded(tmp_path / "data", {"src": f"sqlite:///{tmp_path}/source.db"})
    made = Queueing(queueing.build(replace(settings, broker=BrokerSettings(url=redis_url))))
    yield made
    made.close()


def waiting(client: redis.Redis, queue: str = "default") -> int:
    """Return how many wake-ups wait in a queue."""
    return int(client.llen(f"jobber:{queue}"))  # type: ignore[arg-type]  # the client is not asynchronous


def test_a_wake_up_reaches_its_queue_under_jobbers_own_prefix(wakes: Queueing, client: redis.Redis) -> None:
    wakes.wake("reports")

    wait_until(lambda: waiting(client, "reports") == 1)
    assert all(key.startswith(b"jobber:") for key in client.keys("*"))


def test_however_many_wake_ups_nobody_takes_few_wait(wakes: Queueing, client: redis.Redis) -> None:
    for _ in range(500):
        wakes.wake("default")
    wait_until(lambda: waiting(client))
    for _ in range(500):
        wakes.wake("default", 2)
    wakes.close()

    assert 1 <= waiting(client) <= 16


def test_an_error_of_redis_costs_a_wake_up_and_not_the_next_ones(wakes: Queueing, client: redis.Redis) -> None:
    """OutOfMemoryError is of redis's own tree, neither an OSError nor kombu's."""
    client.config_set("maxmemory", 1)
    wakes.wake("default")
    wait_until(lambda: not wakes._wakes)
    client.config_set("maxmemory", 0)

    wait_until(lambda: wakes.wake("default") or waiting(client) > 0)


def test_pinging_a_broker_that_is_not_there_says_so(tmp_path: Path) -> None:
    settings = config.embedded(tmp_path / "data", {"src": f"sqlite:///{tmp_path}/source.db"})
    away = replace(settings, broker=BrokerSettings(url=f"redis://:s3cr3t@127.0.0.1:{free_port()}/0"))

    with pytest.raises(BrokerUnavailable) as caught:
        queueing.ping(queueing.build(away))

    assert "s3cr3t" not in caught.value.message


def test_acknowledging_on_a_closed_channel_is_no_error(wakes: Queueing) -> None:
    """kombu's own channel fails there, and the error ends the worker."""
    with wakes.app.connection_for_write() as connection:
        channel = connection.channel()
        assert isinstance(channel, Channel)
        channel.close()
        try:
            channel.basic_ack("tag")
        except (AttributeError, OperationalError) as error:
            pytest.fail(repr(error))

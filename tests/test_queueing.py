"""Wake-ups on real brokers: coalesced, bounded, and outliving the broker's moods."""

from __future__ import annotations

import itertools
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
import redis
from amqp.exceptions import NotFound
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.simple import SimpleQueue

from jobber import config, queueing, rabbitqueue, redisqueue
from jobber.config import BrokerSettings
from jobber.consumer import node_name
from jobber.errors import BrokerUnavailable
from jobber.queueing import CANCEL, Queueing
from tests.certificates import self_signed
from tests.servers import RabbitMQ, Redis, free_port, wait_until


@dataclass
class Broker:
    """A broker with nothing in it.

    Parameters:
        waiting: how many wake-ups wait in a queue.
        names: of everything that it holds.
    """

    url: str
    waiting: Callable[[str], int]
    names: Callable[[], set[str]]


@pytest.fixture
def client(redis_server: Redis, redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


def _vhosts(rabbitmq: RabbitMQ) -> Iterator[str]:
    """Make virtual hosts, several at a time: one takes RabbitMQ a while."""
    for batch in itertools.count():
        names = [f"v{batch}_{n}" for n in range(6)]
        making = (
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
            for name in names
        )
        rabbitmq.eval(", ".join(making))
        yield from names


@pytest.fixture(scope="module")
def vhosts(rabbitmq: RabbitMQ) -> Iterator[str]:
    return _vhosts(rabbitmq)


@pytest.fixture
def vhost(vhosts: Iterator[str]) -> str:
    """Name of an empty virtual host."""
    return next(vhosts)


def amqp_url(rabbitmq: RabbitMQ, vhost: str) -> str:
    return f"{rabbitmq.url.removesuffix('//')}/{vhost}"


@pytest.fixture
def channel(rabbitmq: RabbitMQ, vhost: str) -> Iterator[amqp.Channel]:
    """A channel that knows nothing of jobber."""
    with amqp.Connection(f"127.0.0.1:{rabbitmq.port}", virtual_host=vhost) as connection:
        yield connection.channel()


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "redis":
        client: redis.Redis = request.getfixturevalue("client")
        return Broker(
            request.getfixturevalue("redis_url"),
            lambda queue: int(client.llen(f"jobber:{queue}")),  # type: ignore[arg-type]  # it is not asynchronous
            lambda: {key.decode() for key in client.keys("*")},  # type: ignore[union-attr]
        )
    rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
    vhost: str = request.getfixturevalue("vhost")
    return Broker(
        amqp_url(rabbitmq, vhost),
        lambda queue: ready(request.getfixturevalue("channel"), f"jobber:{queue}"),
        lambda: rabbitmq.names(vhost),
    )


def ready(channel: amqp.Channel, queue: str) -> int:
    """Return how many messages of a RabbitMQ queue nobody has taken, 0 if there is no such queue."""
    try:
        count: int = channel.queue_declare(queue, passive=True).message_count
    except NotFound:
        return 0
    return count


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Queueing]]:
    """Makes the queueing of a process for the URL of a broker."""
    made = []

    def make(url: str) -> Queueing:
        settings = config.embedded(tmp_path / "data", {"src": f"sqlite:///{tmp_path}/source.db"})
        made.append(Queueing(queueing.build(replace(settings, broker=BrokerSettings(url=url)))))
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.app.close()


@pytest.fixture
def wakes(make: Callable[[str], Queueing], broker: Broker) -> Queueing:
    return make(broker.url)


def test_a_wake_up_reaches_its_queue_under_jobbers_own_prefix(wakes: Queueing, broker: Broker) -> None:
    wakes.wake("reports")
    wakes.cancel(1, 2)

    wait_until(lambda: broker.waiting("reports") == 1)
    wait_until(lambda: not wakes._cancels)
    assert broker.names()
    assert all(name.startswith("jobber:") for name in broker.names())


def test_however_many_wake_ups_nobody_takes_few_wait(wakes: Queueing, broker: Broker) -> None:
    for _ in range(500):
        wakes.wake("default")
    wait_until(lambda: broker.waiting("default"))
    for _ in range(500):
        wakes.wake("default", 2)
    wakes.close()

    assert 1 <= broker.waiting("default") <= 16


def test_a_cancel_reaches_the_mailbox_of_every_worker_until_it_is_forgotten(wakes: Queueing, broker: Broker) -> None:
    heard: dict[str, Any] = {}
    with wakes.app.connection_for_read() as connection:
        for name in ("one", "two"):
            node = wakes.app.control.mailbox.Node(name, channel=connection.channel())
            node.handlers[CANCEL] = lambda _state, name=name, **what: heard.update({name: what})
            node.listen(callback=node.handle_message)

        def both() -> bool:
            wakes.cancel(7, 3)  # on Redis nobody hears it before the first drain
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
            return len(heard) == 2

        wait_until(both)
    assert heard == {"one": {"run": 7, "attempt": 3}, "two": {"run": 7, "attempt": 3}}
    for name in ("one", "two"):
        wakes.forget_node(name)
    assert not [name for name in broker.names() if name.endswith(("one.celery.pidbox", "two.celery.pidbox"))]


def test_pinging_a_broker_that_is_there_is_silent(wakes: Queueing) -> None:
    queueing.ping(wakes.app)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_pinging_a_broker_that_is_not_there_says_so(make: Callable[[str], Queueing], scheme: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"^the broker cannot be used: Connection refused$") as caught:
        queueing.ping(make(f"{scheme}://user:s3cr3t@127.0.0.1:{free_port()}/0").app)

    assert "s3cr3t" not in caught.value.message
    assert "127.0.0.1" not in caught.value.message


# -- Redis ------------------------------------------------------------------------------------------------------------


def test_an_error_of_redis_costs_a_wake_up_and_not_the_next_ones(
    make: Callable[[str], Queueing], client: redis.Redis, redis_url: str
) -> None:
    """OutOfMemoryError is of redis's own tree, neither an OSError nor kombu's."""
    wakes = make(redis_url)
    client.config_set("maxmemory", 1)
    wakes.wake("default")
    wait_until(lambda: not wakes._wakes)
    client.config_set("maxmemory", 0)

    wait_until(lambda: wakes.wake("default") or client.llen("jobber:default"))


def test_acknowledging_on_a_closed_channel_of_redis_is_no_error(
    make: Callable[[str], Queueing], redis_url: str
) -> None:
    """kombu's own channel fails there, and the error ends the worker."""
    with make(redis_url).app.connection_for_write() as connection:
        channel = connection.channel()
        assert isinstance(channel, redisqueue.Channel)
        channel.close()
        try:
            channel.basic_ack("tag")
        except (AttributeError, OperationalError) as error:
            pytest.fail(repr(error))


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------


def test_acknowledging_over_a_connection_to_rabbitmq_that_is_gone_is_no_error(
    make: Callable[[str], Queueing], rabbitmq: RabbitMQ
) -> None:
    with make(rabbitmq.url).app.connection_for_write() as connection:
        channel = connection.channel()
        assert isinstance(channel, rabbitqueue.Channel)
        connection.collect()

        channel.basic_ack("1")


def test_a_queue_that_has_other_arguments_is_used_as_it_is(
    make: Callable[[str], Queueing], rabbitmq: RabbitMQ, vhost: str, channel: amqp.Channel
) -> None:
    """RabbitMQ refuses to declare it and closes the channel; consumers on that must not notice."""
    channel.queue_declare("jobber:odd", durable=True, auto_delete=False, arguments={"x-max-length": 5})
    wakes = make(amqp_url(rabbitmq, vhost))
    woken = threading.Event()
    with wakes.app.connection_for_read() as connection:
        consumer = wakes.app.amqp.TaskConsumer(connection, on_message=lambda _message: woken.set(), no_ack=True)
        consumer.consume()
        consumer.add_queue(wakes.app.amqp.queues["odd"])
        consumer.consume()
        for queue in ("default", "odd"):
            wakes.wake(queue)
            while not woken.is_set():
                connection.drain_events(timeout=10)
            woken.clear()


def test_a_queue_is_declared_in_the_same_way_whoever_names_it(
    make: Callable[[str], Queueing], rabbitmq: RabbitMQ, vhost: str
) -> None:
    """A reload adds queues to a consumer through Celery, with an exchange of the queue's name."""
    wakes = make(amqp_url(rabbitmq, vhost))
    with wakes.app.connection_for_write() as connection:
        for queue in (
            wakes.app.amqp.queues["default"],
            wakes.app.amqp.queues["missing"],
            wakes.app.amqp.queues.select_add("added", exchange="added", exchange_type="direct"),
        ):
            queue(connection.default_channel).declare()

    listed = rabbitmq.control("list_queues", "-p", vhost, "--no-table-headers", "name", "durable", "type", "arguments")
    kinds = {line.split("\t", 1)[1] for line in listed.splitlines()}
    assert len(listed.splitlines()) == 3
    assert kinds == {'true\tclassic\t[{"x-queue-type","classic"},{"x-expires",3600000}]'}
    assert rabbitmq.names(vhost) == {line.split("\t", 1)[0] for line in listed.splitlines()}


def test_the_first_wake_up_after_rabbitmq_closed_an_idle_connection_arrives(
    make: Callable[[str], Queueing], rabbitmq: RabbitMQ, vhost: str, channel: amqp.Channel
) -> None:
    wakes = make(amqp_url(rabbitmq, vhost))
    wakes.wake("default")
    wait_until(lambda: ready(channel, "jobber:default") == 1)
    with wakes.app.producer_or_acquire() as producer:
        producer.connection.connection.sock.shutdown(2)

    wakes.wake("default")

    wait_until(lambda: ready(channel, "jobber:default") == 2)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({":guest@": ":s3cr3t@"}, "the user or the password is wrong"),
        ({"//guest:guest@": "//nobody:s3cr3t@"}, "the user or the password is wrong"),
        ({"VHOST": "s3cr3t"}, "there is no such virtual host, or the user may not use it"),
        ({"127.0.0.1": "s3cr3t.invalid"}, "not known"),
    ],
)
def test_why_rabbitmq_cannot_be_used_is_said_without_its_address(
    make: Callable[[str], Queueing], rabbitmq: RabbitMQ, wrong: dict[str, str], reason: str
) -> None:
    url = amqp_url(rabbitmq, "VHOST")
    for old, new in wrong.items():
        url = url.replace(old, new)

    with pytest.raises(BrokerUnavailable) as caught:
        queueing.ping(make(url).app)

    assert caught.value.message.startswith("the broker cannot be used: ")
    assert reason in caught.value.message
    assert "s3cr3t" not in repr(caught.value)


def test_a_user_who_may_not_use_jobbers_queues_is_told_so(
    make: Callable[[str], Queueing], rabbitmq: RabbitMQ, vhost: str
) -> None:
    rabbitmq.control("set_permissions", "-p", vhost, "guest", "^other", "^other", "^other")

    with pytest.raises(BrokerUnavailable, match="may not use queues that begin with jobber:"):
        queueing.ping(make(amqp_url(rabbitmq, vhost)).app)


def test_the_rights_that_the_manual_grants_are_enough(
    make: Callable[[str], Queueing], rabbitmq: RabbitMQ, vhost: str, channel: amqp.Channel
) -> None:
    manual = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    _, _, rights = next(line for line in manual.splitlines() if "set_permissions" in line).partition(" jobber ")
    rabbitmq.control("set_permissions", "-p", vhost, "guest", *shlex.split(rights))
    wakes = make(amqp_url(rabbitmq, vhost))
    queueing.ping(wakes.app)
    with wakes.app.connection_for_read() as connection:
        heard = threading.Event()
        node = wakes.app.control.mailbox.Node("one", channel=connection.channel())
        node.handlers[CANCEL] = lambda _state, **_what: heard.set()
        node.listen(callback=node.handle_message)
        wakes.wake("default")
        wakes.cancel(1, 1)
        while not heard.is_set():
            connection.drain_events(timeout=10)
    wakes.forget_node("one")
    wait_until(lambda: ready(channel, "jobber:default") == 1)


def test_the_mailbox_of_a_worker_with_a_long_name_fits_into_rabbitmq() -> None:
    name = node_name(SimpleNamespace(name="ü" * 200))  # type: ignore[arg-type]
    assert name.startswith("üü")
    assert len(f"{'x' * 50}{name}.celery.pidbox".encode()) < 256


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(rabbitmq: RabbitMQ) -> tuple[int, Path]:
    """A port of RabbitMQ's that speaks TLS, and the certificate, of 127.0.0.1, that it shows."""
    shown, secret = rabbitmq.folder / "cert.pem", rabbitmq.folder / "key.pem"
    for file, content in zip((shown, secret), self_signed(), strict=True):
        file.write_bytes(content)
    port = free_port()
    options = f'[{{certfile, "{shown}"}}, {{keyfile, "{secret}"}}]'
    rabbitmq.eval(f'rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, {options}, 1)')
    return port, shown


def test_over_tls_the_certificate_and_the_name_of_rabbitmq_are_checked(
    make: Callable[[str], Queueing], tls: tuple[int, Path]
) -> None:
    port, certificate = tls
    address = f"amqps://guest:guest@127.0.0.1:{port}//"

    queueing.ping(make(f"{address}?ssl_ca_certs={certificate}").app)
    queueing.ping(make(f"{address}?ssl_cert_reqs=none").app)
    for untrusted in (address, f"{address}?ssl_ca_certs={certificate}".replace("127.0.0.1", "localhost.localdomain")):
        with pytest.raises(BrokerUnavailable):
            queueing.ping(make(untrusted).app)
    with pytest.raises(BrokerUnavailable, match="certificate"):
        queueing.ping(make(address).app)


def test_a_worker_that_waits_for_redis_closes_its_connection_at_once(redis_url: str) -> None:
    with Connection(redis_url, transport_options={"polling_interval": 30}) as connection:
        with SimpleQueue(connection, "work") as queue, suppress(Empty):
            queue.get(timeout=0.1)
        assert connection.default_channel._in_poll
        began = time.monotonic()
    assert time.monotonic() - began < 1

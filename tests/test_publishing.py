"""State changes told to a broker: RabbitMQ and Redis, real ones that go away and come back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import kombu
import pytest

from jobber import notifications
from jobber import publishing as publishing_module
from jobber.config import AppSettings, BrokerSettings, EventSettings, Settings
from jobber.errors import BrokerUnavailable
from jobber.jobs import Job
from jobber.publishing import Publisher, ask
from jobber.store import Store, outbox
from jobber.store.outbox import Told
from tests.api.fake import settings as plain_settings
from tests.listening import Consumer
from tests.servers import RabbitMQ, Redis, free_port, wait_until
from tests.store.conftest import QUEUES, Bench, end, new_group


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Bench]:
    """A store that tells of its changes, with a worker."""
    store = Store(f"sqlite:///{tmp_path}/state.db", events=True)
    store.migrate()
    yield Bench(store, store.register("w1", QUEUES, 10, lease=600))
    store.close()


def settings(url: str, /, **events: str) -> Settings:
    return replace(
        plain_settings(AppSettings(lease=3)),
        broker=BrokerSettings(url=url),
        events=EventSettings(enabled=True, **events),
    )


@contextmanager
def publishing(told: Bench, of: Settings, holder: str = "one") -> Iterator[Publisher]:
    publisher = Publisher(settings=of, store=told.store, holder=holder)
    thread = threading.Thread(target=publisher.run)
    thread.start()
    try:
        yield publisher
    finally:
        publisher.stop()
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def consuming(server: Redis | RabbitMQ, name: str, keys: str = "#") -> Iterator[Consumer]:
    consumer = Consumer(server.url, name, keys)
    try:
        yield consumer
    finally:
        consumer.close()
        with kombu.Connection(server.url) as connection:
            connection.default_channel.queue_delete(name)


def run_some(told: Bench, prefix: str, count: int = 20) -> dict[str, list[str]]:
    """Run jobs of which every third fails; return the states of each."""
    for number in range(count):
        end(told, "fail" if number % 3 == 0 else "succeed", told.started(f"{prefix}{number}", args=["é"]))
    return {
        f"{prefix}{number}": ["PENDING", "STARTED", "FAILURE" if number % 3 == 0 else "SUCCESS"]
        for number in range(count)
    }


def test_who_binds_a_queue_gets_every_change_in_order_with_the_job_as_it_was(
    told: Bench, broker: Redis | RabbitMQ
) -> None:
    with consuming(broker, "all") as everything, consuming(broker, "failures", "job.FAILURE") as failures:
        with publishing(told, settings(broker.url)):
            expected = run_some(told, "j")
            told.store.submit_group(new_group("g", "m1", callback=None))
            end(told, "succeed", told.claim().jobs[0])
            wait_until(lambda: told.store.outbox.size()[0] == 0, 60)
            wait_until(lambda: len(everything.messages()) == 64, 60)
            wait_until(lambda: len(failures.messages()) == 7, 60)

        states = everything.states()
        assert {job_id: states[job_id] for job_id in expected} == expected
        assert {message.key for message in failures.messages()} == {"job.FAILURE"}
        first, second, third = (
            message for message in everything.messages() if message.body.get("job", {}).get("job_id") == "j1"
        )
        assert [message.key for message in (first, second, third)] == ["job.PENDING", "job.STARTED", "job.SUCCESS"]
        assert [message.body["event"] for message in (first, second, third)] == [
            "job.submitted",
            "job.started",
            "job.success",
        ]
        assert int(first.id) < int(second.id) < int(third.id)
        assert first.body["job"]["started_at"] is None
        assert second.body["job"]["finished_at"] is None
        assert third.body["at"] == third.body["job"]["finished_at"]
        assert third.body["job"]["count"] == 7
        assert third.body["job"]["args"] == ["é"]
        group = everything.messages()[-1]
        assert (group.key, group.body["event"]) == ("group.SUCCESS", "group.success")
        assert group.body["group"]["counts"]["SUCCESS"] == 1


def test_while_the_broker_is_away_changes_wait_and_none_is_lost(told: Bench, broker: Redis | RabbitMQ) -> None:
    with consuming(broker, "patient") as consumer, publishing(told, settings(broker.url)):
        expected = run_some(told, "before", 3)
        wait_until(lambda: len(consumer.messages()) == 9, 60)
        wait_until(lambda: told.store.outbox.size()[0] == 0, 60)  # the broker's receipts come after the messages
        if isinstance(broker, Redis):
            broker.save()  # or it would forget who is bound
        else:
            # It takes what is sent, says nothing, and dies over it.
            os.kill(int((broker.folder / "pid").read_text()), signal.SIGSTOP)
            expected |= run_some(told, "unheard", 1)
            time.sleep(1)
        waiting = told.store.outbox.size()[0]
        assert waiting == (0 if isinstance(broker, Redis) else 3)
        broker.stop(kill=True)
        expected |= run_some(told, "meanwhile", 6)
        assert told.store.outbox.size()[0] == 18 + waiting

        broker.start()
        expected |= run_some(told, "after", 3)

        wait_until(lambda: consumer.states() == expected, 120)
        wait_until(lambda: told.store.outbox.size()[0] == 0, 60)


def test_what_is_too_large_or_cannot_be_built_holds_up_nothing(
    told: Bench, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ closes the channel over a message above its limit, with all that was to be published behind it."""

    def of_job(of: Settings, event: str, at: int, job: Job) -> dict[str, object]:
        if job.job_id == "broken":
            raise ValueError(job.job_id)
        return plainly(of, event, at, job)

    plainly = notifications.of_job
    monkeypatch.setattr(notifications, "of_job", of_job)
    limit = rabbitmq.eval("{ok, Limit} = application:get_env(rabbit, max_message_size), Limit")
    jobs = ["before", "args", "broken", "tags", "after"]
    with consuming(rabbitmq, "all") as consumer:
        rabbitmq.eval("application:set_env(rabbit, max_message_size, 10000)")
        try:
            for job_id in jobs:
                large = "x" * 20_000 if job_id == "args" else "é"
                end(
                    told,
                    "succeed",
                    told.started(job_id, args=[large], tags={"t": "x" * 20_000} if job_id == "tags" else {}),
                )
            with publishing(told, settings(rabbitmq.url)):
                wait_until(lambda: told.store.outbox.size()[0] == 0, 60)
                wait_until(lambda: len(consumer.messages()) == 9, 60)
        finally:
            rabbitmq.eval(f"application:set_env(rabbit, max_message_size, {limit})")

    assert consumer.states() == {job_id: ["PENDING", "STARTED", "SUCCESS"] for job_id in ("before", "args", "after")}
    args = {message.job_id: message.body["job"]["args"] for message in consumer.messages()}
    assert args == {"before": ["é"], "args": None, "after": ["é"]}
    marked = {message.job_id for message in consumer.messages() if message.body["job"].get("args_left_out")}
    assert marked == {"args"}
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    for job_id, why in (("broken", "it cannot be built (ValueError)"), ("tags", "PRECONDITION_FAILED")):
        assert len([text for text in errors if f"of job {job_id}," in text and why in text]) == 3


def test_a_batch_that_is_too_much_at_once_goes_one_by_one(
    told: Bench, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.flush()
    plainly = publishing_module._Broker._publish

    def slowly(broker: publishing_module._Broker, told: Sequence[Told], *, args: bool) -> None:
        if len(told) > 1:
            raise TimeoutError
        plainly(broker, told, args=args)

    monkeypatch.setattr(publishing_module._Broker, "_publish", slowly)
    with consuming(redis_server, "all") as consumer:
        expected = run_some(told, "a", 4)
        with publishing(told, settings(redis_server.url)):
            wait_until(lambda: consumer.states() == expected, 60)


@pytest.mark.parametrize("text", ["é", "half of a pair: \ud83d", "\u2028"])
def test_a_message_is_json_in_utf_8(text: str) -> None:
    body = notifications.encoded({"args": [text]})

    assert json.loads(body.decode()) == {"args": [text]}
    assert (text != "é") or len(body) == len('{"args":["x"]}') + 1


def test_the_callback_of_a_group_goes_without_arguments_too(told: Bench) -> None:
    told.store.submit_group(new_group("g", "m1"))
    end(told, "succeed", told.claim().jobs[0])
    group = [change.group for change in told.store.outbox.waiting() if change.group is not None]
    for change in group:
        message = notifications.without_args(notifications.of_group(settings("redis://"), "success", 0, change))
        callback = message["group"]["callback"]
        assert (callback["job_id"], callback["args"], callback["args_left_out"]) == ("g-done", None, True)
    assert group


def test_what_no_queue_is_bound_for_is_gone(told: Bench, broker: Redis | RabbitMQ) -> None:
    with publishing(told, settings(broker.url)):
        run_some(told, "j", 2)
        wait_until(lambda: told.store.outbox.size()[0] == 0, 60)

        with consuming(broker, "late") as consumer:
            run_some(told, "k", 1)
            wait_until(lambda: len(consumer.messages()) == 3, 60)
            assert consumer.states().keys() == {"k0"}


def test_one_of_several_publishes_and_another_goes_on_when_it_stops(told: Bench, redis_server: Redis) -> None:
    redis_server.flush()
    of = settings("filesystem://", url=redis_server.url)
    with consuming(redis_server, "all") as consumer, publishing(told, of, "one") as first, publishing(told, of, "two"):
        expected = run_some(told, "a", 10)
        wait_until(lambda: len(consumer.messages()) == 30, 60)
        first.stop()
        expected |= run_some(told, "b", 10)

        wait_until(lambda: consumer.states() == expected, 60)

        assert len(consumer._messages) == 60


def test_a_change_is_told_again_when_its_publisher_died_before_it_could_forget_it(
    told: Bench, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.flush()
    of = settings(redis_server.url)
    with consuming(redis_server, "all") as consumer:
        expected = run_some(told, "a", 4)
        with monkeypatch.context() as patched:
            patched.setattr(told.store.outbox, "remove", lambda _ids: told_again.set())
            told_again = threading.Event()
            with publishing(told, of):
                assert told_again.wait(30)
        with publishing(told, of, "two"):
            wait_until(lambda: told.store.outbox.size()[0] == 0, 60)
            wait_until(lambda: len(consumer._messages) >= 24, 60)

        assert consumer.states() == expected


def test_a_broker_that_cannot_be_used_and_changes_that_wait_for_long_are_said(
    told: Bench, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(settings(redis_server.url), told.store)
    ask(settings("filesystem://", url=redis_server.url), told.store)
    with pytest.raises(BrokerUnavailable, match="the broker of events cannot be used"):
        ask(settings("filesystem://", url=f"amqp://guest:secret@127.0.0.1:{free_port()}"), told.store)
    told.submit("a")
    ask(settings(redis_server.url), told.store)
    told.store._database.write(lambda c: c.exec_driver_sql("UPDATE jobber_outbox SET at = at - 90000000"))

    with pytest.raises(BrokerUnavailable, match="1 changes of state wait for the broker of events, the oldest for 9"):
        ask(settings(redis_server.url), told.store)
    monkeypatch.setattr(outbox, "MANY", 1)
    with pytest.raises(BrokerUnavailable, match="1 or more changes of state wait"):
        ask(settings(redis_server.url), told.store)


def test_before_the_first_start_the_broker_of_events_is_asked_without_the_tables(
    tmp_path: Path, redis_server: Redis
) -> None:
    store = Store(f"sqlite:///{tmp_path}/new.db", events=True)
    ask(settings(redis_server.url), store)
    with pytest.raises(BrokerUnavailable):
        ask(settings("filesystem://", url=f"amqp://guest:secret@127.0.0.1:{free_port()}"), store)
    store.close()


def test_a_publisher_that_is_not_wanted_does_nothing(told: Bench) -> None:
    Publisher(settings=plain_settings(), store=told.store, holder="one").run()

    assert told.store.lead("events", "another", lease=1)

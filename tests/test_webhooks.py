"""Webhooks, made by the real caller to a real HTTP server that fails, hangs, redirects and refuses."""

from __future__ import annotations

import base64
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from jobber import webhooks
from jobber.config import Settings, WebhookSettings
from jobber.store import Store
from jobber.store.events import Level
from jobber.webhooks import KEYLESS, PAUSES, Caller, post
from tests.api.fake import settings as plain_settings
from tests.listening import Receiver, in_turn, status
from tests.servers import free_port, wait_until
from tests.store.conftest import QUEUES, Bench, end, new_group

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
#: In the place of a day.
SOON = (0.05, 0.1, 0.1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('state')}/state.db")
    store.migrate()
    yield Bench(store, store.register("w1", QUEUES, 10, lease=6000))
    store.close()


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    """A store that owes no call."""
    yield shared
    shared.store._database.write(lambda c: c.exec_driver_sql("DELETE FROM jobber_webhooks"))


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def settings(secret: str = SECRET, allow: Sequence[str] = ()) -> Settings:
    return replace(plain_settings(), webhooks=WebhookSettings(secret=secret, allow=tuple(allow)))


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_TICK", 0.05)
    monkeypatch.setattr(webhooks, "_KEYLESS_TICK", 0.05)


@contextmanager
def calling(bench: Bench, of: Settings, pauses: Sequence[float] = SOON, keyless: float = KEYLESS) -> Iterator[None]:
    caller = Caller(settings=of, store=bench.store, pauses=pauses, keyless=keyless)
    thread = threading.Thread(target=caller.run)
    thread.start()
    try:
        yield
    finally:
        caller.stop()
        thread.join(30)
        assert not thread.is_alive()


def owed(bench: Bench) -> int:
    count = "SELECT count(*) FROM jobber_webhooks"
    return bench.store._database.read(lambda c: int(c.exec_driver_sql(count).scalar_one()))


def ended(bench: Bench, job_id: str, url: str, how: str = "succeed") -> None:
    end(bench, how, bench.started(job_id, callback_url=url, args=[1.5, "ü"]))


@pytest.mark.parametrize("secret", [SECRET, "any text that is long enough"])
def test_a_call_says_how_the_job_ended_and_is_signed_as_the_standard_says(
    bench: Bench, receiver: Receiver, secret: str
) -> None:
    path = f"/signed-{len(secret)}"
    ended(bench, "a", receiver.url + path + "?x=1", "fail")
    with calling(bench, settings(secret)):
        wait_until(lambda: owed(bench) == 0, 30)

    (call,) = receiver.to(path + "?x=1")
    verifier = Webhook(secret if secret == SECRET else secret.encode())
    told = verifier.verify(call.body, call.headers)
    assert told["event"] == "job.failure"
    assert told["at"] == told["job"]["finished_at"]
    assert (told["job"]["job_id"], told["job"]["state"], told["job"]["error"]) == ("a", "FAILURE", "no")
    assert call.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        verifier.verify(call.body.replace(b"FAILURE", b"SUCCESS"), call.headers)


def test_a_group_is_told_of_without_its_jobs(bench: Bench, receiver: Receiver) -> None:
    bench.store.submit_group(new_group("g", "m1", "m2", callback=None, callback_url=receiver.url + "/group"))
    for job in bench.claim(2).jobs:
        end(bench, "succeed", job)
    with calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 30)

    (call,) = receiver.to("/group")
    told = Webhook(SECRET).verify(call.body, call.headers)
    assert told["event"] == "group.success"
    assert (told["group"]["group_id"], told["group"]["counts"]["SUCCESS"], told["group"]["jobs"]) == ("g", 2, [])


@pytest.mark.parametrize("failing", [status(500), status(404), status(302, location="/elsewhere"), status(429)])
def test_what_is_not_2xx_is_tried_again_with_the_same_id_and_another_time_until_it_is(
    bench: Bench, receiver: Receiver, failing: object, request: pytest.FixtureRequest
) -> None:
    path = f"/again/{request.node.callspec.id}"
    receiver.answers[path] = in_turn(failing, failing, status(200))  # type: ignore[arg-type]
    ended(bench, "a", receiver.url + path)
    with calling(bench, settings(), pauses=(0.05, 1.1 if path.endswith("0") else 0.05)):
        wait_until(lambda: owed(bench) == 0, 60)

    calls = receiver.to(path)
    assert len(calls) == 3
    assert len({call.headers["webhook-id"] for call in calls}) == 1
    assert len({call.headers["webhook-timestamp"] for call in calls}) > 1 or not path.endswith("0")
    assert len({call.body for call in calls}) == 1
    for call in calls:
        Webhook(SECRET).verify(call.body, call.headers)
    assert not receiver.to("/elsewhere")
    assert [event.event for event in bench.store.events.of(bench.store.get("a"))] == ["submitted", "started", "success"]


@pytest.mark.parametrize(("answer", "tries"), [(status(500), 4), (status(410), 1)])
def test_what_is_given_up_stands_in_the_history_of_the_job(
    bench: Bench,
    receiver: Receiver,
    answer: object,
    tries: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After all tries, or at once where the receiver says 410 Gone."""
    path = f"/never/{tries}"
    receiver.answers[path] = answer  # type: ignore[assignment]
    ended(bench, "a", receiver.url + path + "?token=abc")
    receiver.answers[path + "?token=abc"] = answer  # type: ignore[assignment]
    with caplog.at_level(logging.DEBUG, "jobber"), calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 60)

    assert len(receiver.to(path + "?token=abc")) == tries
    last = bench.store.events.of(bench.store.get("a"))[-1]
    assert (last.event, last.level) == ("webhook", Level.ERROR)
    assert f"try {tries}" in last.message
    assert "127.0.0.1" in last.message
    signatures = [call.headers["webhook-signature"] for call in receiver.to(path + "?token=abc")]
    for hidden in ("token=abc", SECRET, *signatures):
        assert hidden not in caplog.text + last.message


def drip(over: threading.Event, request: BaseHTTPRequestHandler) -> None:
    """Answer, a byte now and then, and never to the end."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
    while not over.wait(0.1):
        with suppress(OSError):
            request.wfile.write(b"x")


def test_a_receiver_that_hangs_or_sends_a_byte_now_and_then_is_cut_off(receiver: Receiver) -> None:
    over = threading.Event()

    receiver.answers["/hangs"] = lambda _request: over.wait(30)  # type: ignore[assignment,return-value]
    receiver.answers["/drips"] = partial(drip, over)
    for path in ("/hangs", "/drips"):
        began = time.monotonic()
        reply = post(receiver.url + path, b"{}", {}, timeout=0.7)
        assert reply.problem == "no answer within 0.7 s"
        assert time.monotonic() - began < 10
    over.set()


@contextmanager
def silent() -> Iterator[int]:
    """A port at which nobody answers: its queue is full, so that connecting to it hangs."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def found(*ports: int) -> list[tuple[object, ...]]:
    """Return what the name server says of a host that has these ports in the place of addresses."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]


def test_the_limit_of_a_call_is_one_for_the_lookup_all_addresses_and_the_answer(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    receiver.answers["/late-drips"] = partial(drip, over)
    port = int(receiver.url.rpartition(":")[2])
    with silent() as nobody:
        lookups = {
            "a lookup that is slower than the limit": lambda *_, **__: time.sleep(1.5) or found(port),
            "silent addresses before it": lambda *_, **__: found(nobody, nobody, nobody, nobody, port),
        }
        for name, lookup in lookups.items():
            with monkeypatch.context() as patched:
                patched.setattr(socket, "getaddrinfo", lookup)
                began = time.monotonic()
                reply = post("http://receiver.example/late-drips", b"{}", {}, timeout=1.0)
                took = time.monotonic() - began
            assert (reply.problem, took < 1.4) == ("no answer within 1 s", True), (name, took)
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", lambda *_, **__: found(nobody, port))
            assert post("http://receiver.example/second-address", b"{}", {}, timeout=2.0).problem == ""
    over.set()


def test_the_limit_of_a_call_holds_in_the_middle_of_tls() -> None:
    """The peer sends the head of a long TLS record, and then a byte now and then."""
    over = threading.Event()

    def drips(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock, suppress(OSError):
            sock.sendall(b"\x16\x03\x03\x40\x00")
            while not over.wait(0.1):
                sock.sendall(b"\x02")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drips, args=[listener], daemon=True).start()
        began = time.monotonic()
        reply = post(f"https://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {}, timeout=0.7)
        assert (reply.problem, time.monotonic() - began < 1.4) == ("no answer within 0.7 s", True)
    over.set()


def test_a_host_that_hangs_does_not_hold_up_the_others(bench: Bench, receiver: Receiver) -> None:
    over = threading.Event()
    receiver.answers["/stuck"] = lambda _request: over.wait(60)  # type: ignore[assignment,return-value]
    for number in range(12):
        ended(bench, f"stuck{number}", receiver.url.replace("127.0.0.1", "localhost") + "/stuck")
    for number in range(5):
        ended(bench, f"quick{number}", receiver.url + "/quick")

    with calling(bench, settings()):
        try:
            wait_until(lambda: len(receiver.to("/quick")) == 5, 14)
            assert len(receiver.to("/stuck")) < 12
        finally:
            over.set()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "https://127.0.0.1:{port}/",
        "http://no-such-host.invalid/",
        "http://no..such.host/",
        f"http://{'x' * 64}.example.com/",
    ],
)
def test_a_receiver_that_is_not_there_is_tried_again_and_then_given_up(bench: Bench, url: str) -> None:
    ended(bench, "a", url.format(port=free_port()))
    with calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 30)

    assert "try 4" in bench.store.events.of(bench.store.get("a"))[-1].message


def test_a_call_that_jobber_itself_stumbles_over_counts_as_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "post", lambda *_: 1 / 0)
    ended(bench, "a", "http://127.0.0.1:1/")
    with calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 30)

    assert "jobber could not make the call" in bench.store.events.of(bench.store.get("a"))[-1].message


def test_an_ipv6_address_without_a_port_is_called_at_the_port_of_its_scheme() -> None:
    assert post("http://[::1]/", b"{}", {}).problem == post("http://[::1]:80/", b"{}", {}).problem


def test_the_certificate_of_a_receiver_is_checked(receiver: Receiver) -> None:
    """Here by the first step: what answers is no TLS at all."""
    assert post(receiver.url.replace("http:", "https:") + "/tls", b"{}", {}, timeout=5).problem
    assert not receiver.to("/tls")


def test_a_host_that_is_not_allowed_any_more_is_not_called(bench: Bench, receiver: Receiver) -> None:
    ended(bench, "a", receiver.url + "/forbidden")
    with calling(bench, settings(allow=["*.example.com"])):
        wait_until(lambda: owed(bench) == 0, 30)

    assert not receiver.to("/forbidden")
    assert "webhooks.allow does not name 127.0.0.1" in bench.store.events.of(bench.store.get("a"))[-1].message


def test_two_callers_make_each_call_once(bench: Bench, receiver: Receiver) -> None:
    for number in range(20):
        bench.submit(f"j{number}", callback_url=receiver.url + "/once")
        bench.store.cancel(f"j{number}")
    with calling(bench, settings()), calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 60)

    assert len(receiver.to("/once")) == 20


def test_a_caller_that_died_over_a_call_has_it_made_by_another(bench: Bench, receiver: Receiver) -> None:
    ended(bench, "a", receiver.url + "/repeated")
    bench.store.calls.take(1, lease=1)  # and is never heard of again

    with calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 30)

    assert len(receiver.to("/repeated")) == 1


def test_without_a_secret_calls_wait_for_one_and_the_log_says_so(
    bench: Bench, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_LATE", 0.0)
    ended(bench, "a", receiver.url + "/unsigned")
    with calling(bench, settings(secret="")):
        wait_until(lambda: "webhooks that wait for a [webhooks] secret to sign them with: 1" in caplog.text, 30)

    assert (owed(bench), receiver.to("/unsigned")) == (1, [])
    with calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 30)
    assert len(receiver.to("/unsigned")) == 1


def test_a_call_that_could_not_be_signed_for_long_is_given_up_and_stands_in_the_history(
    bench: Bench, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):  # more than are taken at a time
        ended(bench, f"j{number}", receiver.url + "/unsigned-for-long")
    with calling(bench, settings(secret=""), keyless=0.0):
        wait_until(lambda: owed(bench) == 0, 30)

    assert not receiver.to("/unsigned-for-long")
    last = bench.store.events.of(bench.store.get("j7"))[-1]
    assert (last.event, last.level) == ("webhook", Level.ERROR)
    assert "the call to 127.0.0.1 was given up (try 1): there is no [webhooks] secret" in last.message
    assert last.message in caplog.text


@pytest.mark.parametrize("what", ["job", "group"])
def test_of_what_was_purged_nobody_is_told_and_the_log_says_so(
    bench: Bench, receiver: Receiver, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    url = f"{receiver.url}/purged-{what}"
    if what == "job":
        ended(bench, "a", url)
        run = bench.store.get("a").run
        bench.store.purge("a")
    else:
        group = bench.store.submit_group(new_group("g", "m1", callback=None, callback_url=url))
        run = group.run
        end(bench, "succeed", bench.claim(1).jobs[0])
        bench.store.purge_group("g")
    with calling(bench, settings()):
        wait_until(lambda: owed(bench) == 0, 30)

    assert not receiver.to(f"/purged-{what}")
    assert f"webhook of run {run}: the call to 127.0.0.1 was given up (try 1): what it would tell of was purged" in (
        caplog.text
    )


def test_eight_tries_take_28_to_35_hours_with_growing_pauses() -> None:
    assert list(PAUSES) == sorted(PAUSES)
    assert (len(PAUSES) + 1, round(sum(PAUSES) / 3600), round(sum(PAUSES) * 1.25 / 3600 + 0.5)) == (8, 28, 35)
    assert PAUSES[0] < 10


def test_a_receiver_may_ask_for_a_longer_pause(receiver: Receiver) -> None:
    receiver.answers["/busy"] = status(429, retry_after="120")
    receiver.answers["/rude"] = status(503, retry_after="99999999")

    assert post(receiver.url + "/busy", b"{}", {}).pause == 120
    assert post(receiver.url + "/rude", b"{}", {}).pause == PAUSES[-1]


def test_a_pause_may_be_asked_for_until_a_time(receiver: Receiver) -> None:
    now = time.time()
    for said, pause in (
        (formatdate(now + 7200, usegmt=True), 7200),
        (time.asctime(time.gmtime(now + 7200)), 7200),
        (formatdate(now + 99_999_999, usegmt=True), PAUSES[-1]),
        (formatdate(now - 60, usegmt=True), 0),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999999999", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
    ):
        receiver.answers["/until"] = status(503, retry_after=said)
        assert post(receiver.url + "/until", b"{}", {}).pause == pytest.approx(pause, abs=60), said


@pytest.mark.parametrize(
    ("allow", "host", "may"),
    [
        ([], "anything", True),
        (["example.com"], "example.com", True),
        (["Example.com."], "example.com", True),
        (["example.com"], "a.example.com", False),
        (["*.example.com"], "a.b.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "badexample.com", False),
        (["a", "b"], "b", True),
    ],
)
def test_which_hosts_may_be_called(allow: list[str], host: str, may: bool) -> None:
    assert bool(settings(allow=allow).webhooks.refusal(host)) is not may

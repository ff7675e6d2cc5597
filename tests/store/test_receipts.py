"""Receipts: a request that carries a key is done once, and answered as often as it comes."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text

from jobber.errors import BacklogFull, IdempotencyConflict, JobIsLive, UnknownJob
from jobber.jobs import Job
from jobber.store import Answered, Gate, GateKind, Limits, Receipt, Store
from tests.forking import start
from tests.store.conftest import Bench, new_group, new_job
from tests.store.crowd import die_keeping


def receipt(key: str = "key", digest: str = "d1") -> Receipt:
    return Receipt(key, digest, lambda jobs: f"{jobs[0].job_id} {jobs[0].run}")


def submit(store: Store, job_id: str, of: Receipt) -> Job:
    (job,) = store.submit([new_job(job_id)], receipt=of)
    return job


def test_a_repeated_request_gets_the_first_answer_and_adds_nothing(bench: Bench) -> None:
    job = submit(bench.store, "a", receipt())
    for job_id in ("a", "b"):  # its ID may have been made up anew
        with pytest.raises(Answered) as again:
            submit(bench.store, job_id, receipt())
        assert again.value.answer == f"a {job.run}"
    with pytest.raises(Answered):
        bench.store.receipts.look(receipt())
    bench.store.receipts.look(receipt("another"))
    assert [job.job_id for job in bench.store.pending("q")] == ["a"]
    bench.store.succeed(bench.claim().jobs[0], rows=1, columns=[])
    with pytest.raises(Answered) as again:
        submit(bench.store, "a", receipt())
    assert again.value.answer == f"a {job.run}"


def test_the_key_of_another_request_is_refused_and_keys_differ_in_every_character(bench: Bench) -> None:
    submit(bench.store, "a", receipt("key"))
    with pytest.raises(IdempotencyConflict):
        submit(bench.store, "b", receipt("key", "d2"))
    with pytest.raises(IdempotencyConflict):
        bench.store.receipts.look(receipt("key", "d2"))
    for number, key in enumerate(("Key", "key ", " key", "k" * 150)):
        submit(bench.store, f"c{number}", receipt(key))


def test_an_error_is_not_remembered(bench: Bench) -> None:
    (live,) = bench.submit("a")
    with pytest.raises(JobIsLive):
        submit(bench.store, "a", receipt())
    bench.store.announce({Gate(GateKind.QUEUE, "q"): Limits(pending=1)}, {})
    with pytest.raises(BacklogFull):
        submit(bench.store, "b", receipt())
    bench.store.cancel("a")
    again = submit(bench.store, "a", receipt())
    assert again.run > live.run
    with pytest.raises(Answered):  # before it is looked whether there is room
        submit(bench.store, "a", receipt())


def test_a_group_has_one_too(bench: Bench) -> None:
    of = replace(receipt(), render=lambda group: f"{group.group_id} {len(group.jobs)} {group.callback.job_id}")
    bench.store.submit_group(new_group("g", "a", "b"), receipt=of)
    with pytest.raises(Answered) as again:
        bench.store.submit_group(new_group("g", "a", "b"), receipt=of)
    assert again.value.answer == "g 2 g-done"


def test_of_eight_that_come_at_once_one_is_done_and_all_get_its_answer(bench: Bench) -> None:
    barrier = threading.Barrier(8)

    def ask(n: int) -> str:
        barrier.wait(30)
        try:
            job = submit(bench.store, f"j{n}", receipt())
        except Answered as before:
            return before.answer
        return f"{job.job_id} {job.run}"

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(8)))
    (job,) = bench.store.pending("q")
    assert answers == {f"{job.job_id} {job.run}"}


def test_answers_of_any_length_come_back_as_they_were(bench: Bench) -> None:
    long = "".join(f'{{"job":"é\\u0000{n}"}}' for n in range(200_000))
    submit(bench.store, "a", replace(receipt(), render=lambda _: long))
    with pytest.raises(Answered) as again:
        bench.store.receipts.look(receipt())
    assert again.value.answer == long


def test_after_a_day_a_key_is_free_again_and_its_answer_forgotten(bench: Bench) -> None:
    submit(bench.store, "a", receipt())
    submit(bench.store, "b", receipt("younger"))
    old = text("UPDATE jobber_requests SET created_at = created_at - 86400000001 WHERE idempotency_key = 'key'")
    bench.store._database.write(lambda connection: connection.execute(old))
    bench.store.receipts.look(receipt("key", "d2"))
    submit(bench.store, "c", receipt("key", "d2"))
    with pytest.raises(Answered):
        submit(bench.store, "d", receipt("key", "d2"))
    bench.store._database.write(lambda connection: connection.execute(old))
    bench.store.prune(3600)
    keys = text("SELECT idempotency_key FROM jobber_requests")
    assert bench.store._database.read(lambda connection: list(connection.execute(keys).scalars())) == ["younger"]


@pytest.mark.parametrize("state_url", ["postgresql", "mariadb"], indirect=True)
def test_a_process_that_dies_at_any_statement_leaves_the_job_with_its_answer_or_neither(
    bench: Bench, state_url: str
) -> None:
    """The last one is the commit: what is there then is answered."""
    statement, left = 0, []
    while True:
        statement += 1
        dying = start(die_keeping, state_url, statement)
        dying.join(60)
        if dying.exitcode == 0:
            break
        assert dying.exitcode == -signal.SIGKILL
        with pytest.raises(UnknownJob):
            bench.store.get("a")
        bench.store.receipts.look(receipt())
        left.append(statement)
    assert len(left) >= 5
    with pytest.raises(Answered) as again:
        submit(bench.store, "b", receipt())
    assert again.value.answer == f"a {bench.store.get('a').run}"

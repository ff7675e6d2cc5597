"""Random histories of jobs against the model of ``claim_model``; and with any rule taken out, they end in a difference.

``CLAIM_WALKS=1000`` takes so many walks on each engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobber.store import GateKind, Store, claim, gates, parents, pausing, schema, surveying, turns
from jobber.store.schema import ORD_STEP
from jobber.store.upkeep import Upkeep
from tests.servers import MariaDB, Postgres
from tests.store.claim_walk import Walk, open_with_clock

WALKS = int(os.environ.get("CLAIM_WALKS", "0"))
STEPS = 60
#: Walks within which the lack of a rule must show.
ENOUGH = 60


def walk(store: Store, chance: Random) -> None:
    """Take one walk; of a few lanes at a time, or of all at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveying, "FIRST", chance.choice([1, 2, surveying.FIRST]))
        Walk(store, chance).go(STEPS)


def walk_often(store: Store, walks: int) -> None:
    """Take many walks; of one that fails, find the shortest that fails alike."""

    @settings(max_examples=WALKS or walks, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.randoms(use_true_random=False))
    def each(chance: Random) -> None:
        walk(store, chance)

    each()


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_with_clock(f"sqlite:///{tmp_path_factory.mktemp('walks')}/state.db")
    yield store
    store.close()


def test_every_claim_on_sqlite_is_what_the_model_says(on_sqlite: Store) -> None:
    walk_often(on_sqlite, 12)


def test_every_claim_on_postgresql_is_what_the_model_says(postgres: Postgres) -> None:
    store = open_with_clock(postgres.url(postgres.new_database()))
    walk_often(store, 4)
    store.close()


def test_every_claim_on_mariadb_is_what_the_model_says(mariadb: MariaDB) -> None:
    store = open_with_clock(mariadb.url(mariadb.new_database()))
    walk_often(store, 4)
    store.close()


# -- with a rule taken out -------------------------------------------------------------------------------------------

#: Takes a rule out.
Mutation = Callable[[pytest.MonkeyPatch], None]


def _place(**other: Any) -> Mutation:
    """Leave something out of what says who is next."""
    place = turns.Turns.place
    return lambda patch: patch.setattr(turns.Turns, "place", lambda *of: place(*of)._replace(**other))


def _order(of: Callable[[int, int], int]) -> Mutation:
    """Give jobs another order in their lanes."""

    order = schema.order

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("jobber.store") and getattr(module, "order", None) is order:
                patch.setattr(module, "order", of)

    return mutate


def _no_limit(kind: GateKind) -> Mutation:
    limit = gates.Gates.limit

    def mutate(patch: pytest.MonkeyPatch) -> None:
        if kind is GateKind.GROUP:
            patch.setattr(surveying.Lane, "group_limit", property(lambda _: 0, lambda *_: None))
        patch.setattr(gates.Gates, "limit", lambda self, gate: 0 if gate.kind is kind else limit(self, gate))

    return mutate


def _no_pause(kind: GateKind) -> Mutation:
    paused = gates.Gates.paused
    return lambda patch: patch.setattr(gates.Gates, "paused", lambda self, of: [] if of is kind else paused(self, of))


def _no_delay(patch: pytest.MonkeyPatch) -> None:
    submit = Store.submit

    def at_once(self: Store, jobs: Any, **more: Any) -> Any:
        # Made ready without a look at the clock.
        patch.setattr(self._database.engine.__class__, "clock", "SELECT at + 60000000 FROM test_clock")
        try:
            return submit(self, jobs, **more)
        finally:
            patch.setattr(self._database.engine.__class__, "clock", "SELECT at FROM test_clock")

    patch.setattr(Store, "submit", at_once)


def _no_turns_of_queues(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claim.Claimer, "_in_turn", lambda _self, _worker, queues: list(queues))


def _no_suspicion(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claim._Choice, "_open", lambda self, lane: self.found.usage.free(lane))


RULES: dict[str, Mutation] = {
    "priority": _order(lambda _, run: 5 * ORD_STEP + run),
    "priority before turns": _place(rank=0),
    "turns: who has the fewest running": _place(running=0),
    "turns: who was served longest ago": _place(served=0),
    "age": _order(lambda priority, run: (11 - priority) * ORD_STEP - run),
    "queues take turns": _no_turns_of_queues,
    **{f"limit of a {kind}": _no_limit(kind) for kind in GateKind},
    "rate": lambda patch: patch.setattr(gates.Usage, "_is_short", lambda *_: False),
    **{f"pause of a {kind}": _no_pause(kind) for kind in (GateKind.QUEUE, GateKind.DATABASE, GateKind.TASK)},
    "pause of a job": lambda patch: patch.setattr(pausing, "_HELD", {}),
    "start time": _no_delay,
    "time is looked at": lambda patch: patch.setattr(Upkeep, "release_due", lambda *_: frozenset()),
    "parents": lambda patch: patch.setattr(parents.ParentBook, "attach", lambda *_: parents.Waits()),
    "suspects run alone": _no_suspicion,
    "unseen lanes": lambda patch: patch.setattr(surveying.Survey, "unseen", property(lambda _: {}, lambda *_: None)),
}


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_a_walk_ends_in_a_difference(
    on_sqlite: Store, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    RULES[rule](monkeypatch)
    for seed in range(ENOUGH):
        try:
            walk(on_sqlite, Random(seed))
        except AssertionError:
            return
    raise AssertionError(f"{ENOUGH} walks do not notice that this is missing: {rule}")

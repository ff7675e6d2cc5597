"""The short form of ``make chaos``: every kind of fault while jobs come, and nothing lost, wrong or left over."""

from __future__ import annotations

import os

import pytest

from tests.chaos.plan import FAULTS
from tests.chaos.run import Options, run
from tests.servers import ServerMissing

#: Other runs are ``make chaos``; this one is the same each time.
SEED = 20
#: So that each finds something to break: what takes all away comes late.
ORDER = (
    "SIGSTOP a worker past its lease",
    "FLUSHALL Redis",
    "restart Redis",
    "SIGSTOP a worker for a moment",
    "kill -9 a worker",
    "kill -9 Redis",
    "kill -9 the API",
    "restart MariaDB",
    "kill -9 PostgreSQL",
    "kill -9 the state database",
    "kill -9 MariaDB",
    "restart PostgreSQL",
    "kill -9 an instance",
    "SIGSTOP the state database",
    "stop an instance",
    "restart the state database",
    "kill -9 a supervisor",
)


def test_the_order_leaves_no_kind_of_fault_out() -> None:
    assert set(ORDER) == set(FAULTS)


@pytest.mark.timeout(300)  # 35 s on two idle cores; it counts nothing but progress
@pytest.mark.parametrize(("state", "shared"), [("postgresql", True), ("mariadb", False)])
def test_no_fault_loses_doubles_or_changes_a_job(state: str, shared: bool) -> None:
    options = Options(
        seed=SEED,
        state=state,
        shared=shared,
        jobs=110,
        seconds=11,
        gap=1,
        tidy=0,
        patience=45,
        instances=2,
        faults=ORDER,
        in_order=True,
    )
    try:
        report = run(options, lambda text, part: print(f"{part:4.0%} {text}"))
    except ServerMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed, and CI runs every test")
        pytest.skip(f"{missing} is not installed")

    assert not report.violations, f"logs: {report.folder}"
    assert set(report.faults) >= set(FAULTS)

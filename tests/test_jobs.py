"""The arguments of a job survive the store to the last digit."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from jobber.jobs import FINISHED, LIVE, TRANSITIONS, JobState, decode_args, encode_args

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**60), 10**60),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(st.lists(scalars) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), scalars))
def test_args_come_back_as_they_went(args: list[object] | dict[str, object]) -> None:
    back = decode_args(encode_args(args))  # type: ignore[arg-type]

    assert back == args
    values = zip(
        back.values() if isinstance(back, dict) else back,
        args.values() if isinstance(args, dict) else args,
        strict=True,
    )
    for value, original in values:
        assert isinstance(value, bool) == isinstance(original, bool)


def test_a_decimal_keeps_its_trailing_zeros() -> None:
    assert str(decode_args(encode_args([Decimal("1.500")]))[0]) == "1.500"  # type: ignore[index]


def test_a_name_that_looks_like_a_marker_is_only_a_name() -> None:
    assert decode_args(encode_args({"$decimal": "x"})) == {"$decimal": "x"}


def test_finished_states_are_final_and_live_ones_lead_on() -> None:
    assert {state for state, targets in TRANSITIONS.items() if not targets} == FINISHED
    assert {state for state, targets in TRANSITIONS.items() if targets} == LIVE
    assert {target for targets in TRANSITIONS.values() for target in targets} == set(JobState)

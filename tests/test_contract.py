"""Whatever an argument is, a public function answers or refuses it by name, in bounded length."""

from __future__ import annotations

import pytest

import contract

CALLS = contract.calls()
# These search a plan for every call: every fourth value is enough here, benchmarks/fuzz tries all.
SLOW = ("sensitivity", "choose_cohort", "choose_participants", "solve_schedule", "frontier", "solve_many")


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_right_is_answered(name: str) -> None:
    function, valid = CALLS[name]
    assert contract.outcome(lambda: function(**valid)) == "answered"


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_refused_as_documented(name: str) -> None:
    outcomes = []
    for place, (argument, value, run) in enumerate(contract.wrong_calls(name, CALLS[name])):
        if name not in SLOW or place % 4 == 0:
            outcomes.append(found := contract.outcome(run))
            assert found in ("answered", "refused"), f"{name}({argument}={value!r}): {found}"
    assert "refused" in outcomes

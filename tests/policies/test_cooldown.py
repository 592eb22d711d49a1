"""Rates that fall at the end of a plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt.plans.phase import Phase
from coopt.policies.cooldown import COOLDOWN, STAIRS, cooled

PHASES = st.lists(
    st.builds(
        lambda rounds, steps, batch, rate: Phase(rounds, steps, [batch, 2 * batch], rate),
        st.integers(1, 60),
        st.integers(1, 9),
        st.integers(1, 50),
        st.floats(0.01, 1.0),
    ),
    min_size=1,
    max_size=4,
)


def each_round(phases: tuple[Phase, ...] | list[Phase]) -> list[tuple[int, int, float]]:
    """Steps, first batch and rate of every round."""
    return [
        (phase.local_steps, int(phase.batch_sizes[0]), phase.learning_rate)
        for phase in phases
        for _ in range(phase.rounds)
    ]


@given(PHASES)
def test_only_the_rates_of_the_last_fifth_change(phases: list[Phase]) -> None:
    before, after = each_round(phases), each_round(cooled(phases))
    assert [one[:2] for one in after] == [one[:2] for one in before]
    falling = round(COOLDOWN * len(before))
    shares = np.array([b[2] / a[2] for a, b in zip(before, after, strict=True)])
    assert np.all(shares[: len(shares) - falling] == 1.0)
    assert np.all(np.diff(shares) <= 1e-12)
    if falling >= STAIRS:
        assert shares[-1] == pytest.approx(0.5 / STAIRS)
        assert np.mean(shares[-falling:]) == pytest.approx(0.5, abs=0.1)


def test_stairs_cross_the_phases_of_a_plan() -> None:
    found = cooled([Phase(96, 4, [2], 0.1), Phase(4, 1, [8], 0.05)])
    assert [phase.rounds for phase in found] == [80, 4, 4, 4, 4, 4]
    assert [phase.local_steps for phase in found] == [4, 4, 4, 4, 4, 1]
    np.testing.assert_allclose([p.learning_rate for p in found], [0.1, 0.09, 0.07, 0.05, 0.03, 0.005])

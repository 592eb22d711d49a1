"""Pieces of a box of plans: together they hold the whole box, and never promise too few units."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget
from coopt.solvers.exact.box_pieces import divide

sides = st.tuples(st.integers(1, 30), st.integers(0, 12)).map(lambda side: (side[0], side[0] + side[1]))


@settings(deadline=None)
@given(
    rounds=sides,
    local_steps=sides,
    cost=st.one_of(st.just(math.inf), st.floats(1.0, 3000.0)),
    round_cost=st.sampled_from([0.0, 0.3, 2.0]),
    step_cost=st.sampled_from([0.0, 0.5]),
    unit_cost=st.sampled_from([None, 0.1, 1.0, 7.0]),
    most=st.sampled_from([8, 96]),
)
def test_pieces_hold_every_plan_that_the_limit_on_cost_admits(
    rounds, local_steps, cost, round_cost, step_cost, unit_cost, most
):
    budget = Budget(cost=cost, round_cost=round_cost)
    pieces = divide(rounds, local_steps, budget, unit_cost, most, step_cost)
    for k in range(rounds[0], rounds[1] + 1):
        for tau in range(local_steps[0], local_steps[1] + 1):
            units = math.inf
            if unit_cost is not None and cost < math.inf:
                spare = (cost / k - round_cost) / tau - step_cost
                if spare < unit_cost:
                    # No step fits here.
                    continue
                units = math.floor(spare / unit_cost * (1.0 - 1e-9))
            holds = (pieces.first_product <= k * tau) & (k * tau <= pieces.last_product)
            holds &= (pieces.least_steps <= tau) & (tau <= pieces.most_steps)
            assert (pieces.units[holds] >= units).any()


@settings(deadline=None)
@given(rounds=sides, local_steps=sides, most=st.sampled_from([8, 96]))
def test_pieces_are_in_order_and_do_not_overlap(rounds, local_steps, most):
    pieces = divide(rounds, local_steps, Budget(cost=500.0), 1.0, most)
    assert (pieces.low <= pieces.high).all()
    assert np.array_equal(pieces.low[1:], pieces.high[:-1] + 1.0)
    assert (np.diff(pieces.units) <= 0.0).all()

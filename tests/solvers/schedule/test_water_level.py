"""Batches within a budget, asked for again and again: the same as from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt.solvers.schedule.water_level import WaterLevel
from coopt.solvers.whole_units.batches import relax


@given(
    seed=st.integers(0, 2**32 - 1), devices=st.integers(1, 40), spare=st.sampled_from([0.0, 0.3, 3.0, 1e4])
)
def test_each_answer_is_that_of_the_solver_which_starts_anew(seed: int, devices: int, spare: float) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=devices) * 10.0 ** rng.uniform(-6, 6)
    costs = np.exp(rng.normal(size=devices))
    weights[rng.random(devices) < 0.1] = 0.0
    costs[rng.random(devices) < 0.1] = 0.0
    least = rng.integers(1, 5, size=devices).astype(np.float64)
    spend = float(costs @ least) * (1.0 + spare)
    level = WaterLevel(weights, costs, spend, least)
    for _ in range(3):
        most = least + rng.uniform(0.0, 100.0, size=devices)
        batches, multiplier = level.under(most)
        best = relax(weights, costs, spend, least, most)
        assert np.all((least <= batches) & (batches <= most))
        assert costs @ batches <= spend * (1.0 + 1e-8)
        assert np.sum(weights / batches) == pytest.approx(np.sum(weights / best.batch_sizes), rel=1e-8)
        if spare > 0.0:
            assert multiplier == pytest.approx(best.multiplier, rel=1e-6)

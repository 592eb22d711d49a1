"""Forecasts are recomputed step by step, without what the objective derives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Forecast
from coopt.objectives.forecast.phases import Phases, Setting
from coopt.plans.forecast_certificate import recomputed
from quadratics import problem_of, random_model


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([None, (1, False), (2, True), (3, False)]),
    st.sampled_from([0.01, 0.7, 1.9]),
)
@settings(max_examples=60, deadline=None)
def test_a_recomputed_forecast_agrees(seed, rounds, local_steps, drawn, rate) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 5))
    model = random_model(seed, n, 4, unlike=float(rng.choice([0.0, 0.3, 1.0])))
    budget = Budget() if drawn is None else Budget(participants=drawn[0], distinct_participants=drawn[1])
    weights = np.full(n, 1.0 / n) if drawn and drawn[1] else None
    problem = problem_of(model, budget, rate, replacement=bool(rng.random() < 0.5), weights=weights)
    if seed % 2:
        fleet = replace(problem.fleet, step_noise=rng.choice([0.0, 1.0, 10.0], n))
        problem = replace(problem, fleet=fleet)
    batches = rng.integers(1, 10, n)
    value = Forecast(model).value(problem, rounds, local_steps, batches)
    whole = [(Setting(rounds, local_steps, rate), batches)]
    assert recomputed(Forecast(model), problem, whole) == pytest.approx(value, rel=1e-9)
    if drawn is None:
        # With steps of each device's own.
        uneven = Forecast(model).with_device_steps(rng.integers(1, local_steps + 1, n))
        value = uneven.value(problem, rounds, local_steps, batches)
        if value < 1e3 * uneven.initial_gap:  # and not where it overshoots
            assert recomputed(uneven, problem, whole) == pytest.approx(value, rel=1e-8)
    # In phases, the last of which is another.
    parts = [
        *((Setting(k, local_steps, rate), batches) for k in (rounds, 2)),
        (Setting(3, 2, rate / 2), batches + 1),
    ]
    found = Phases(Forecast(model), problem).value(
        [setting for setting, _ in parts], np.array([own for _, own in parts], dtype=float)
    )
    assert recomputed(Forecast(model), problem, parts) == pytest.approx(found, rel=1e-9)

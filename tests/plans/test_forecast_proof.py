"""The best plan for a forecast is proved again by trying every K and tau, and what is wrong is refuted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, CertificateError, Forecast, Problem, solve_allocation
from coopt.objectives.forecast.optimiser import ClientSGD, Optimiser, ServerSGD
from coopt.plans.forecast_proof import Enumerated, prove_forecast
from quadratics import problem_of, random_model


def limited(seed: int, kind: str) -> tuple[Forecast, Problem]:
    """A small forecast, and a problem with limits of one kind."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 5))
    model = random_model(seed, n, 3, unlike=float(rng.choice([0.0, 0.5])))
    problem = problem_of(model, Budget(), 0.7, replacement=bool(rng.random() < 0.5))
    budget = Budget(cost=float(rng.integers(40, 160) * n), round_cost=2.0 * n, max_local_steps=6)
    fleet = problem.fleet
    if kind != "equal":
        fleet = replace(fleet, sample_cost=rng.uniform(0.5, 2.0, n))
    if kind == "energy":
        fleet = replace(fleet, sample_energy=rng.uniform(0.5, 2.0, n))
        budget = replace(budget, energy=0.8 * budget.cost)
    if kind == "time":
        fleet = replace(fleet, throughput=rng.uniform(2.0, 9.0, n), round_time=0.3)
        budget = replace(budget, time=60.0)
    if kind == "noise":
        fleet = replace(fleet, step_noise=rng.choice([0.0, 1.0, 10.0], n))
    return Forecast(model), replace(problem, fleet=fleet, budget=budget)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["equal", "unequal", "energy", "time", "noise"]))
def test_what_the_solver_proves_is_proved_again(seed: int, kind: str) -> None:
    forecast, problem = limited(seed, kind)
    plan = solve_allocation(problem, bound=forecast, gap_tolerance=1e-9)
    proof = plan.certify(deep=True).proof
    assert isinstance(proof, Enumerated)
    assert proof.target == plan.lower_bound
    # Nothing better than the plan is claimed of it, and more than that is refuted.
    above = plan.predicted_error + 1e-3 * abs(plan.predicted_error) + 1e-9 * forecast.initial_gap
    with pytest.raises(CertificateError, match="may have a forecast of"):
        prove_forecast(problem, forecast, above)


@pytest.mark.parametrize(
    "optimiser",
    [
        Optimiser(ClientSGD(momentum=0.5)),
        Optimiser(server=ServerSGD(learning_rate=0.7, momentum=0.4)),
        Optimiser(ClientSGD(momentum=0.3), ServerSGD(momentum=0.5, nesterov=True)),
    ],
)
def test_momentum_is_part_of_the_maps(optimiser: Optimiser) -> None:
    forecast, problem = limited(3, "noise")
    moving = replace(forecast, optimiser=optimiser)
    problem = replace(problem, budget=replace(problem.budget, max_rounds=30))
    plan = solve_allocation(problem, bound=moving, gap_tolerance=1e-9)
    assert plan.certify(deep=True).proof is not None


@pytest.mark.parametrize("objective", ["cost", "time"])
def test_the_cheapest_and_the_fastest_plan_are_proved_again(objective: str) -> None:
    forecast, problem = limited(5, "time")
    reached = solve_allocation(problem, bound=forecast).predicted_error
    target = reached + 0.1 * (forecast.initial_gap - reached)
    plan = solve_allocation(problem, bound=forecast, objective=objective, target_error=target)
    plan.certify(deep=True)


def test_what_was_fixed_and_what_cannot_be_tried_are_said() -> None:
    forecast, problem = limited(1, "equal")
    fixed = solve_allocation(problem, bound=forecast, rounds=5)
    proof = fixed.certify(deep=True).proof
    assert isinstance(proof, Enumerated)
    assert proof.pairs <= 6
    endless = replace(problem, budget=Budget(cost=1e9, round_cost=0.0))
    with pytest.raises(CertificateError, match="more than 20,000 pairs"):
        prove_forecast(endless, forecast, 0.0)
    drawn = replace(problem, budget=replace(problem.budget, participants=1))
    with pytest.raises(CertificateError, match="drawn for each round"):
        prove_forecast(drawn, forecast, 0.0)

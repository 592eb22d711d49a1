"""Noise that no batch removes: exact in forecasts, and refused where it has no place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Constants,
    Fleet,
    Forecast,
    InvalidProblemError,
    LocalModel,
    Optimiser,
    Problem,
    ServerSGD,
    solve_allocation,
    solve_schedule,
)
from coopt_bounds import federated_quadratic
from coopt_bounds.federated_quadratic import Federation, Phase
from quadratics import problem_of, random_model, simulated

NOISE = np.array([0.0, 2.0, 5.0, 20.0])


@pytest.mark.parametrize(
    "budget",
    [Budget(), Budget(participants=2), Budget(participants=2, distinct_participants=True)],
    ids=["all", "two", "two distinct"],
)
def test_it_is_the_mean_of_many_runs(budget: Budget) -> None:
    model = random_model(3, 4, 3, unlike=0.5, noise=1.0)
    weights = np.full(4, 0.25) if budget.distinct_participants else None
    problem = problem_of(model, budget, weights=weights, step_noise=NOISE)
    forecast, batches = Forecast(model), np.array([1, 2, 5, 20])
    for k, tau in ((1, 1), (3, 6), (12, 2)):
        mean, error = simulated(forecast, problem, (k, tau, batches), 10_000, seed=17)
        assert forecast.value(problem, k, tau, batches) == pytest.approx(mean, abs=4.5 * error)


def test_it_is_that_of_the_theorem_for_batches_of_one_with_its_covariance() -> None:
    model = random_model(5, 4, 3)
    how = Optimiser(ClientSGD(0.5), ServerSGD(0.7, 0.8, nesterov=True))
    for optimiser in (Optimiser(), how):
        forecast = Forecast(model, optimiser=optimiser)
        quiet, loud = (problem_of(model, Budget(), 0.4, step_noise=v) for v in (0.0, NOISE))
        isotropic = NOISE[:, None, None] / model.parameters * np.eye(3)
        federation = Federation(quiet.fleet.weights, model.gradients, model.curvatures, isotropic)
        server = optimiser.server
        exact = federated_quadratic.coefficients(
            federation,
            [
                Phase(
                    6,
                    4,
                    0.4,
                    momentum=optimiser.client.momentum,
                    server_rate=server.learning_rate,
                    server_momentum=server.momentum,
                    nesterov=server.nesterov,
                )
            ],
        )
        offset, weights = forecast.coefficients(loud, 6, 4)
        before, same = forecast.coefficients(quiet, 6, 4)
        np.testing.assert_array_equal(weights, same)
        assert offset - before == pytest.approx(float(sum(exact.weights[0])), rel=1e-9)


def test_what_ignoring_it_promises_is_not_what_comes() -> None:
    """Quantised gradients: a plan that ignores them promises .0006 and reaches .0010, by simulation too."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    curvature = axes @ np.diag([1.0, 0.5, 0.3, 0.2]) @ axes.T
    model = LocalModel(
        np.full(5, 0.2),
        0.3 * rng.normal(size=4) + 0.05 * rng.normal(size=(5, 4)),
        [scale * curvature for scale in (0.6, 0.8, 1.0, 1.2, 1.4)],
        [1.4 * np.eye(4)] * 5,
        [400] * 5,
        parameters=4,
    )
    silent = Problem(Fleet([400] * 5, 1.0, 0.1), Constants(0.1, 1.0, 0.5), Budget(cost=40_000, round_cost=50))
    loud = replace(silent, fleet=replace(silent.fleet, step_noise=0.085))
    forecast = Forecast(model)
    blind = solve_allocation(silent, bound=forecast)
    plan = blind.rounds, blind.local_steps, blind.batch_sizes
    truth = forecast.value(loud, *plan)
    assert round(blind.predicted_error, 4) == 0.0006 and round(truth, 4) == 0.0010
    mean, error = simulated(forecast, loud, plan, 400, seed=3)
    assert truth == pytest.approx(mean, abs=4.5 * error)
    seeing = solve_allocation(loud, bound=forecast)
    assert seeing.predicted_error <= truth
    seeing.certify(forecast)
    # Where the rate is free it is smaller, and so is what is left of the noise.
    short = replace(loud, budget=Budget(cost=4000, round_cost=50))
    free = solve_allocation(short, bound=forecast, learning_rate="auto")
    assert free.learning_rate < 0.1
    assert free.predicted_error < solve_allocation(short, bound=forecast).predicted_error
    two = solve_schedule(loud, forecast, phases=2)
    assert two.predicted_error <= seeing.predicted_error * (1 + 1e-9)
    two.certify(forecast)


def test_what_has_no_place_is_refused() -> None:
    model = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[0.1]]], [100])
    fleet = Fleet([100], 0.1, 0.0, step_noise=0.2, names=["Ada"])
    problem = Problem(fleet, Constants(0.1, 1.0, 0.5), Budget(cost=1000))
    with pytest.raises(InvalidProblemError, match=r"step_noise\[0\] \(Ada\) = 0.2: .*measure again"):
        solve_allocation(problem, bound=Forecast(model))
    known = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[0.1]]], [100], parameters=3)
    with pytest.raises(InvalidProblemError, match="Adam measures each parameter in a unit of its own"):
        Forecast(known, optimiser=Optimiser(ClientAdam())).value(problem, 1, 1, 1)
    with pytest.raises(InvalidProblemError, match="parameters = 1: must be an integer >= 2"):
        LocalModel([1.0], [[1.0, 0.0]], [np.eye(2)], [np.eye(2)], [100], parameters=1)

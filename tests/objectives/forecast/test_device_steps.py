"""Devices with local steps of their own: exact in the forecast, and averaged as the adapters average them."""

from __future__ import annotations

import numpy as np
import pytest

from coopt import Budget, ClientSGD, Forecast, InvalidProblemError, LocalModel, Optimiser, ServerSGD
from coopt.adapters.aggregate import step_factors
from coopt.objectives.forecast.optimiser import effective_steps
from coopt_bounds.federated_quadratic import Federation, Phase, coefficients
from quadratics import problem_of, random_model, variances


def simulated(forecast: Forecast, problem, rounds, steps, batches, runs, seed) -> tuple[float, float]:
    """Mean of F - F* over many runs, averaged by the adapters' own factors, and its standard error."""
    model, how = forecast.model, forecast.optimiser
    rng, rate, shares = (
        np.random.default_rng(seed),
        problem.constants.learning_rate,
        problem.fleet.weights,
    )
    n, m = model.gradients.shape
    momentum = how.client.momentum
    counts = shares * step_factors(shares, effective_steps(steps, momentum))
    roots = np.linalg.cholesky(model.covariances + 1e-12 * np.eye(m))
    roots = roots * np.sqrt(variances(problem.fleet, batches))[:, None, None]
    lasting = np.sqrt(problem.fleet.step_noise / model.parameters)
    z, memory = np.zeros((runs, m)), np.zeros((runs, m))
    for _ in range(rounds):
        change = np.zeros_like(z)
        for i in range(n):
            local, u = z.copy(), np.zeros_like(z)
            for _ in range(steps[i]):
                noise = rng.normal(size=local.shape) @ roots[i].T + lasting[i] * rng.normal(size=local.shape)
                u = momentum * u + local @ model.curvatures[i] + model.gradients[i] + noise
                local = local - rate * u
            change += counts[i] * (local - z)
        memory = how.server.momentum * memory + change
        z = z + how.server.learning_rate * memory
    gaps = model.loss.at(z - model.loss.best)
    return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(runs))


@pytest.mark.parametrize(
    "how",
    [Optimiser(), Optimiser(ClientSGD(0.6)), Optimiser(server=ServerSGD(0.7, 0.5))],
    ids=["plain", "momentum", "server"],
)
@pytest.mark.parametrize("replacement", [True, False])
def test_it_is_the_mean_of_many_runs(how: Optimiser, replacement: bool) -> None:
    model = random_model(3, 4, 3, unlike=0.5, noise=4.0)
    problem = problem_of(model, Budget(), 0.3, replacement=replacement, step_noise=[0.0, 1.0, 5.0, 0.2])
    batches = np.array([1, 2, 5, 20])
    for rounds, steps in ((1, [1, 3, 3, 7]), (6, [2, 9, 1, 4])):
        forecast = Forecast(model, optimiser=how).with_device_steps(np.array(steps))
        mean, error = simulated(forecast, problem, rounds, steps, batches, 10_000, seed=1)
        value = forecast.value(problem, rounds, max(steps), batches)
        assert value == pytest.approx(mean, abs=4.5 * error)


def test_equal_steps_are_what_they_were() -> None:
    model = random_model(5, 3, 3)
    problem = problem_of(model, Budget())
    forecast = Forecast(model)
    same = forecast.with_device_steps(np.array([7, 7, 7]))
    assert same.value(problem, 5, 7, 3) == pytest.approx(forecast.value(problem, 5, 7, 3), rel=1e-12)
    # They are the most that a device takes.
    assert same.value(problem, 5, 4, 3) == pytest.approx(forecast.value(problem, 5, 4, 3), rel=1e-12)


def test_a_device_of_few_steps_is_one_with_a_stretched_change() -> None:
    """With one step everywhere but on one device its map is that of the theorem, stretched by hand."""
    model = random_model(7, 2, 2)
    problem, rate = problem_of(model, Budget(), 0.2), 0.2
    p = problem.fleet.weights
    steps = np.array([3, 1])
    offset, weights = Forecast(model).with_device_steps(steps).coefficients(problem, 1, 3)
    effective = float(p @ steps)
    scale = (model.samples - 1) / model.samples
    mean, added = np.zeros(2), []
    for i in (0, 1):
        alone = Federation(
            [1.0], model.gradients[i : i + 1], model.curvatures[i : i + 1], model.covariances[i : i + 1]
        )
        step, moved = np.eye(2) - rate * model.curvatures[i], np.zeros(2)
        for _ in range(steps[i]):
            moved = step @ moved - rate * model.gradients[i]
        stretch = p[i] * effective / steps[i]
        mean += stretch * moved
        # The noise that one device alone leaves in its own loss, for the covariance that it leaves.
        covariance = sum(
            np.linalg.matrix_power(step, j) @ model.covariances[i] @ np.linalg.matrix_power(step, j)
            for j in range(steps[i])
        )
        own = float(coefficients(alone, [Phase(1, int(steps[i]), rate)]).weights[0][0])
        assert own == pytest.approx(0.5 * rate**2 * np.sum(model.curvatures[i] * covariance), rel=1e-9)
        added.append(0.5 * (stretch * rate) ** 2 * scale[i] * np.sum(model.loss.curvature * covariance))
    assert offset == pytest.approx(float(model.loss.at((mean - model.loss.best)[None])[0]), rel=1e-9)
    np.testing.assert_allclose(weights, added, rtol=1e-9)


def test_the_objective_is_kept_where_plain_averaging_moves_it() -> None:
    """Two quadratics with their minima at -1 and 1: after many small rounds the model is near 0."""
    model = LocalModel([0.5, 0.5], [[1.0], [-1.0]], [[[1.0]], [[1.0]]], [[[1e-12]]] * 2, [50, 50])
    uneven = Forecast(model).with_device_steps(np.array([1, 10]))
    value = uneven.value(problem_of(model, Budget(), 0.001), 3000, 10, 50)
    assert value < 1e-4
    # As when the second device counted ten times: 0.73 away, and so .27 of loss, without the factors.
    weights = [0.5, 5.0]
    away = np.dot(weights, [-1.0, 1.0]) / sum(weights)
    assert 0.5 * away**2 > 1000 * value


def test_changes_that_are_stretched_may_overshoot() -> None:
    """One step that counts as twenty is a step of twenty times the rate: unstable, and said so by inf."""
    model = LocalModel([0.5, 0.5], [[1.0], [1.0]], [[[1.0]], [[1.0]]], [[[0.1]]] * 2, [50, 50])
    problem = problem_of(model, Budget(), 0.9)
    value = Forecast(model).with_device_steps(np.array([1, 40])).value(problem, 400, 40, 5)
    assert value > 1e6


def test_what_it_refuses() -> None:
    model = random_model(2, 3, 3)
    forecast = Forecast(model).with_device_steps(np.array([1, 4, 4]))
    with pytest.raises(InvalidProblemError, match="device_steps with participants = 2"):
        forecast.value(problem_of(model, Budget(participants=2)), 3, 4, 5)
    with pytest.raises(InvalidProblemError, match="device_steps"):
        Forecast(model, device_steps=(1, 2))
    with pytest.raises(InvalidProblemError, match=r"device_steps\[0\] = 0"):
        Forecast(model, device_steps=(0, 2, 2))
    assert forecast.restricted([2, 0]).device_steps == (4, 1)

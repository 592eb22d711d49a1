"""What a forecast expects beyond the directions that were measured."""

from __future__ import annotations

import numpy as np
import pytest

import coopt
from coopt import Budget, Constants, Fleet, Forecast, LocalModel, Measurement, Problem
from coopt.measuring.continuation import COUPLING, ENOUGH, continued
from coopt.objectives.forecast.model import Floats


def quadratic(curvatures: Floats) -> tuple[list[Floats], object]:
    """Two devices without noise, of different curvatures with this mean, as `coopt.measure` takes them."""
    tilt = 0.5 * np.cos(np.arange(curvatures.size))

    def gradient(model: Floats, rows: Floats) -> tuple[float, Floats]:
        own = curvatures * (1.0 + tilt * rows[0, 0])
        return 0.5 * float(model @ (own * model)), own * model

    return [np.full((20, 1), 1.0), np.full((20, 1), -1.0)], gradient


def measured(curvatures: Floats, directions: int) -> Measurement:
    clients, gradient = quadratic(curvatures)
    return coopt.measure(gradient, np.ones(curvatures.size), clients, directions=directions, progress=False)


def fall(model: LocalModel, steps: int) -> float:
    """By how much the loss is expected to fall in so many steps."""
    forecast = Forecast(model, 1.0)
    problem = Problem(Fleet([20, 20], 0.0, 0.0), Constants(1.0, 1.0, 1.0), Budget())
    return forecast.initial_gap - forecast.value(problem, steps, 1, 20)


def truth(curvatures: Floats, steps: int) -> float:
    return 0.5 * float(np.sum(curvatures * (1.0 - (1.0 - curvatures) ** (2 * steps))))


def without(found: Measurement) -> LocalModel:
    return LocalModel(found.weights, found.gradients, found.curvatures, found.covariances, found.samples)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("directions", [4, 6])
def test_training_goes_on_when_it_is_done_along_what_was_measured(power: float, directions: int) -> None:
    curvatures = np.arange(1.0, 201.0) ** -power
    found = measured(curvatures, directions)
    assert found.directions == directions and found.cut_off
    longer = continued(found.model)
    assert longer.gradients.shape == (2, ENOUGH)
    # The first steps are exact with and without.
    for steps in range(1, directions):
        assert fall(longer, steps) == pytest.approx(truth(curvatures, steps), rel=1e-5)
        assert fall(without(found), steps) == pytest.approx(truth(curvatures, steps), rel=1e-5)
    for steps in (100, 300):
        exact = truth(curvatures, 2 * steps) - truth(curvatures, steps)
        still = [fall(model, 2 * steps) - fall(model, steps) for model in (without(found), longer)]
        assert still[0] < still[1]
        assert abs(still[1] - exact) < abs(still[0] - exact)


def test_nothing_is_added_where_all_has_converged_in_the_directions_measured() -> None:
    curvatures = np.linspace(0.5, 1.0, 200)
    found = measured(curvatures, 6)
    assert found.cut_off
    for steps in (1, 3, 10, 100):
        assert fall(continued(found.model), steps) == pytest.approx(truth(curvatures, steps), rel=1e-6)


def test_a_space_that_ends_is_not_continued() -> None:
    curvatures = np.repeat([1.0, 0.5, 0.1], 20)
    found = measured(curvatures, 8)
    assert found.cut_off is False
    whole = measured(np.array([1.0, 0.7, 0.4, 0.1]), 4)
    assert whole.cut_off is False


def test_no_device_curves_downwards_and_the_mean_is_what_was_measured() -> None:
    found = measured(np.arange(1.0, 201.0) ** -1.5, 5)
    model = continued(found.model)
    assert np.linalg.eigvalsh(model.curvatures).min() > -1e-9
    mean = np.tensordot(model.weights, model.curvatures, axes=1)
    assert mean[:5, :5] == pytest.approx(found.curvature, abs=1e-9)
    # Only the last direction that was measured is coupled to others, and no curvature falls to 0.
    assert np.abs(mean[:4, 5:]).max() < 1e-9 < mean[4, 5]
    assert 0.0 < np.linalg.eigvalsh(mean)[0] < found.spectrum[-1]
    assert not model.gradients[:, 5:].any() and not model.covariances[:, 5:].any()


def test_directions_are_enough_or_as_many_as_there_are() -> None:
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 8, 8))
    curvatures = roots @ roots.transpose(0, 2, 1)
    slopes = rng.normal(size=(3, 8))
    model = LocalModel([0.2, 0.3, 0.5], slopes, curvatures, curvatures, [9, 9, 9], parameters=11)
    assert continued(model).gradients.shape == (3, 11)
    assert 0.0 < COUPLING < 1.0
    many = LocalModel([1.0], np.ones((1, ENOUGH)), np.eye(ENOUGH)[None], np.eye(ENOUGH)[None], [9])
    assert continued(many) is many
    flat = LocalModel([1.0], np.ones((1, 2)), np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), [9])
    assert continued(flat) is flat

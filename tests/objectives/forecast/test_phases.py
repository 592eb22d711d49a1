"""Several phases: exact against the theorem and against simulation, and one phase is the forecast itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Forecast, InvalidProblemError, LocalModel, Problem
from coopt.objectives.forecast.phases import Phases, Setting
from coopt_bounds import federated_quadratic, sampled_quadratic
from coopt_bounds.federated_quadratic import Federation, Phase
from quadratics import problem_of, random_model, variances

SEVERAL = (Setting(4, 3, 1.2), Setting(1, 7, 0.4), Setting(6, 1, 0.1))
BATCHES = np.array([[1, 2, 1, 1], [3, 3, 5, 2], [9, 20, 12, 20]])
seeds = st.integers(0, 2**32 - 1)


def equal(model: LocalModel) -> LocalModel:
    """The same with devices of equal weight, as drawing distinct ones takes them."""
    parts = (model.gradients, model.curvatures, model.covariances)
    return LocalModel([0.25] * 4, *parts, samples=[50] * 4)


def simulated(phases: Phases, several, batches, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of F - F* after every round over many runs, and its standard errors."""
    model, fleet, budget = phases.forecast.model, phases.problem.fleet, phases.problem.budget
    rng = np.random.default_rng(seed)
    n, m = model.gradients.shape
    roots = np.linalg.cholesky(model.covariances + 1e-12 * np.eye(m))
    z, found = np.zeros((runs, m)), []
    for each, own in zip(several, batches, strict=True):
        spread = roots * np.sqrt(variances(fleet, own))[:, None, None]
        for _ in range(each.rounds):
            local = np.repeat(z[None], n, axis=0)
            for _ in range(each.local_steps):
                noise = rng.normal(size=local.shape) @ spread.transpose(0, 2, 1)
                slopes = local @ model.curvatures + model.gradients[:, None, :] + noise
                local = local - each.learning_rate * slopes
            counts = np.tile(fleet.weights, (runs, 1))
            if budget.participants is not None:
                counts = rng.multinomial(budget.participants, fleet.weights, size=runs) / budget.participants
            z = np.einsum("rn,nra->ra", counts, local)
            found.append(model.loss.at(z - model.loss.best))
    gaps = np.array(found)
    return gaps.mean(axis=1), gaps.std(axis=1, ddof=1) / np.sqrt(runs)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(
    "budget",
    [
        Budget(),
        Budget(participants=2, distinct_participants=True),
        Budget(participants=2, distinct_participants=False),
    ],
    ids=["all", "distinct", "draws"],
)
def test_coefficients_are_those_of_the_theorem(replacement: bool, budget: Budget) -> None:
    model = equal(random_model(11, 4, 3)) if budget.distinct_participants else random_model(11, 4, 3)
    problem = problem_of(model, budget, replacement=replacement)
    offset, found = Phases(Forecast(model), problem).coefficients(SEVERAL)
    samples = model.samples
    scale = (samples - 1) / samples if replacement else np.ones(4)
    covariances = model.covariances * scale[:, None, None]
    federation = Federation(problem.fleet.weights, model.gradients, model.curvatures, covariances)
    phases = [Phase(each.rounds, each.local_steps, each.learning_rate) for each in SEVERAL]
    if budget.participants is None:
        exact = federated_quadratic.coefficients(federation, phases)
    else:
        distinct = budget.distinct_participants
        exact = sampled_quadratic.coefficients(
            federation, phases, budget.participants, distinct=distinct, trains_once=True
        )
    wanted = np.array([[float(weight) for weight in row] for row in exact.weights])
    spared = 0.0 if replacement else float(np.sum(wanted / samples))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    initial = model.loss.initial_gap
    assert offset == pytest.approx(initial + float(exact.offset) - spared, rel=1e-9)
    inverse = [
        [
            Fraction(1, int(s)) - (0 if replacement else Fraction(1, int(d)))
            for s, d in zip(row, samples, strict=True)
        ]
        for row in BATCHES
    ]
    value = Phases(Forecast(model), problem).value(SEVERAL, BATCHES)
    assert value == pytest.approx(initial + float(exact.value(inverse)), rel=1e-9)


@pytest.mark.parametrize("participants", [None, 2])
def test_the_curve_is_the_mean_of_many_runs(participants: int | None) -> None:
    model = random_model(3, 4, 3, unlike=0.5, noise=4.0)
    problem = problem_of(model, Budget(participants=participants))
    phases = Phases(Forecast(model), problem)
    curve = phases.curve(SEVERAL, BATCHES)
    mean, error = simulated(phases, SEVERAL, BATCHES, 10_000, seed=5)
    assert curve.shape == (12,)
    assert curve[0] == Forecast(model).initial_gap
    assert (np.abs(curve[1:] - mean) <= 4.5 * error).all()


@given(seeds, st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=25, deadline=None)
def test_the_curve_passes_through_the_values(seed: int, replacement: bool, participants: int | None) -> None:
    model = random_model(seed, 4, 3)
    phases = Phases(
        Forecast(model), problem_of(model, Budget(participants=participants), replacement=replacement)
    )
    curve = phases.curve(SEVERAL, BATCHES)
    ends = np.cumsum([each.rounds for each in SEVERAL])
    for p, end in enumerate(ends.tolist()):
        value = phases.value(SEVERAL[: p + 1], BATCHES[: p + 1])
        assert curve[end] == pytest.approx(value, rel=1e-9)


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.sampled_from([None, 1]))
@settings(max_examples=25, deadline=None)
def test_one_phase_and_equal_phases_are_the_forecast_itself(seed, first, second, tau, participants) -> None:
    model = random_model(seed, 3, 4)
    problem: Problem = problem_of(model, Budget(participants=participants))
    forecast, rate = Forecast(model), problem.constants.learning_rate
    phases = Phases(forecast, problem)
    offset, weights = forecast.coefficients(problem, first + second, tau)
    alone, own = phases.coefficients([Setting(first + second, tau, rate)])
    parts, two = phases.coefficients([Setting(first, tau, rate), Setting(second, tau, rate)])
    assert alone == pytest.approx(offset, rel=1e-9)
    assert parts == pytest.approx(offset, rel=1e-9)
    np.testing.assert_allclose(own[0], weights, rtol=1e-9)
    np.testing.assert_allclose(two.sum(axis=0), weights, rtol=1e-9)
    assert (two >= 0.0).all()


def test_every_rate_has_to_be_stable() -> None:
    model = random_model(1, 2, 3)
    forecast = Forecast(model)
    phases = Phases(forecast, problem_of(model, Budget()))
    with pytest.raises(InvalidProblemError, match="training is unstable from"):
        phases.value([Setting(1, 1, 0.1), Setting(1, 1, forecast.largest_rate)], np.ones((2, 2)))

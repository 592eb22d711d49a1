"""The forecast's fast numbers are those of the theorem on quadratic losses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from coopt import Budget, Forecast, LocalModel
from coopt_bounds import federated_quadratic, sampled_quadratic
from coopt_bounds.federated_quadratic import Federation, Phase
from quadratics import problem_of, random_model


@pytest.mark.parametrize(("rounds", "local_steps"), [(1, 1), (1, 7), (4, 1), (9, 4), (30, 2)])
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
def test_coefficients_are_those_of_the_theorem(rounds, local_steps, replacement, budget):
    model = random_model(rounds + local_steps, devices=4, m=3)
    if budget.distinct_participants:  # which takes devices of equal weight
        parts = (model.gradients, model.curvatures, model.covariances)
        model = LocalModel([0.25] * 4, *parts, samples=[50] * 4)
    problem = problem_of(model, budget, replacement=replacement)
    forecast = Forecast(model)
    offset, found = forecast.coefficients(problem, rounds, local_steps)

    samples = model.samples
    scale = (samples - 1) / samples if replacement else np.ones(len(samples))
    covariances = model.covariances * scale[:, None, None]
    federation = Federation(problem.fleet.weights, model.gradients, model.curvatures, covariances)
    phases = [Phase(rounds, local_steps, problem.constants.learning_rate)]
    if budget.participants is None:
        exact = federated_quadratic.coefficients(federation, phases)
    else:
        exact = sampled_quadratic.coefficients(
            federation,
            phases,
            budget.participants,
            distinct=budget.distinct_participants,
            trains_once=True,
        )
    wanted = np.array([float(weight) for weight in exact.weights[0]])
    spared = 0.0 if replacement else wanted @ (1.0 / samples)
    assert np.allclose(found, wanted, rtol=1e-9)
    assert offset == pytest.approx(forecast.initial_gap + float(exact.offset) - spared, rel=1e-9)
    inverse = [Fraction(1, 5) - (0 if replacement else Fraction(1, int(d))) for d in samples]
    value = forecast.value(problem, rounds, local_steps, [5] * 4)
    assert value == pytest.approx(forecast.initial_gap + float(exact.value([inverse])), rel=1e-9)

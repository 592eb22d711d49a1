"""Who picks a plan from the grid, and what each knows: the forecast, bounds, rules of thumb, tuners."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.forecast.study import Measured, Pair, Study
from coopt import (
    AdaCoOpt,
    Bound,
    BoundWarning,
    Certified,
    Dynamite,
    Forecast,
    LocalModel,
    NonConvex,
    Problem,
    TradeOff,
)
from coopt.objectives.drift import drift_sums
from coopt.policies.horizon import calibrated_gap

Rounds = dict[Pair, int]
Values = dict[Pair, float]

# As Flower's examples have it.
FEDAVG_STEPS, FEDAVG_BATCH = 5, 32
WANG_CONTROL = 0.025


def _constant(study: Study, measured: Measured, cost: float) -> Problem:
    """The problem with everything that bounds need, as measured."""
    rate, measurement = study.federation.learning_rate, measured.measurement
    constants = measurement.constants(rate)
    largest = min(1.0 / constants.smoothness, rate)
    # Bounds need eta beta <= 1; a device whose few rows say otherwise has its smoothness cut.
    if largest < rate:
        smoothness = 1.0 / rate
        constants = replace(
            constants,
            smoothness=smoothness,
            mean_smoothness=min(constants.mean_smoothness or smoothness, smoothness),
            pl_constant=min(constants.pl_constant or smoothness, smoothness),
            curvature_floor=max(constants.curvature_floor or 0.0, -smoothness),
        )
    return Problem(measurement.fleet(), constants, study.budget(cost))


def by_forecast(study: Study, measured: Measured, rounds: Rounds) -> Values:
    """Each device's own curvature."""
    return _values(study, measured.measurement.forecast(), rounds)


def by_mean_curvature(study: Study, measured: Measured, rounds: Rounds) -> Values:
    """The same model with the averaged curvature on every device: no drift."""
    model = measured.measurement.model
    same = np.broadcast_to(measured.measurement.curvature, model.curvatures.shape)
    mean = LocalModel(model.weights, model.gradients, same, model.covariances, model.samples)
    return _values(study, Forecast(mean), rounds)


def _values(study: Study, objective: Bound, rounds: Rounds, problem: Problem | None = None) -> Values:
    known = study.problem(math.inf) if problem is None else problem
    devices = len(known.fleet)
    return {
        (tau, s): objective.value(known, many, tau, np.full(devices, s)) for (tau, s), many in rounds.items()
    }


def by_bound(bound: Bound, *, lipschitz: bool = False) -> Callable[[Study, Measured, Rounds], Values]:
    """A bound with measured constants; the rho of adacoopt is a Lipschitz constant, here ||g||."""

    def chooser(study: Study, measured: Measured, rounds: Rounds) -> Values:
        problem = _constant(study, measured, math.inf)
        if lipschitz:
            rho = measured.measurement.gradient_norm
            problem = replace(problem, constants=replace(problem.constants, lipschitz=rho))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundWarning)
            return _values(study, bound, rounds, problem)

    return chooser


def by_controller(study: Study, measured: Measured, rounds: Rounds) -> Values:
    """What the controller minimises, with the same measured constants."""
    problem = _constant(study, measured, math.inf)
    devices = len(problem.fleet)
    return {
        (tau, s): calibrated_gap(problem, tau, np.full(devices, s), 0.0, 0.0, rounds=many)
        for (tau, s), many in rounds.items()
    }


def by_steps(study: Study, measured: Measured, rounds: Rounds) -> Values:
    """Most steps; batches decide where steps are equal."""
    return {(tau, s): 1.0 / (tau * many) for (tau, s), many in rounds.items()}


def by_wang(study: Study, measured: Measured, rounds: Rounds) -> Values:
    """The control objective of Wang et al., eq. (18), which knows no batch: the same for all of them."""
    constants = _constant(study, measured, math.inf).constants
    eta, beta = constants.learning_rate, constants.smoothness
    rho = measured.measurement.gradient_norm
    delta = float(measured.measurement.weights @ measured.measurement.divergence)

    def objective(tau: int, steps: int) -> float:
        h = drift_sums(0.0, math.log1p(eta * beta), tau, eta * delta * eta * beta).linear
        root = math.sqrt(1 + 4 * steps**2 * WANG_CONTROL * rho * eta * h / tau)
        return (1 + root) / (2 * steps * eta * WANG_CONTROL) + rho * h

    return {(tau, s): objective(tau, tau * many) for (tau, s), many in rounds.items() if s == FEDAVG_BATCH}


MEASURING: dict[str, Callable[[Study, Measured, Rounds], Values]] = {
    "forecast": by_forecast,
    "mean curvature": by_mean_curvature,
    "certified": by_bound(Certified()),
    "trade-off": by_bound(TradeOff()),
    "dynamite": by_bound(Dynamite()),
    "adacoopt": by_bound(AdaCoOpt(), lipschitz=True),
    "nonconvex": by_bound(NonConvex()),
    "the controller's": by_controller,
    "Wang et al.": by_wang,
}


def nearest(rounds: Rounds, tau: float, batch: int) -> Pair:
    """The plan of the grid nearest to a rule, in ratios."""
    return min(rounds, key=lambda p: abs(math.log(p[0] / tau)) + abs(math.log(p[1] / batch)))


def epoch(study: Study, rounds: Rounds) -> Pair:
    """One local epoch with batches of 32."""
    return nearest(rounds, max(float(study.federation.samples.mean()) / FEDAVG_BATCH, 1.0), FEDAVG_BATCH)

"""Random quadratic federations, and what a plan does to them: round by round, and drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from coopt import (
    Budget,
    ClientSGD,
    Constants,
    Fleet,
    Forecast,
    LocalModel,
    Optimiser,
    Problem,
    ServerSGD,
)
from coopt.objectives.forecast.phases import Setting
from coopt_bounds import federated_quadratic

Floats = NDArray[np.float64]


def random_model(seed: int, devices: int, m: int, *, unlike: float = 1.0, noise: float = 1.0) -> LocalModel:
    """Devices with curvatures between .01 and 1, each with its own axes, and gradients that differ."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(devices, m, m)))[0]
    curvatures = axes @ (10.0 ** rng.uniform(-2.0, 0.0, (devices, m, 1)) * axes.transpose(0, 2, 1))
    roots = rng.normal(size=(devices, m, m)) * np.sqrt(noise / m)
    samples = rng.integers(20, 200, devices)
    return LocalModel(
        weights=samples / samples.sum(),
        gradients=rng.normal(size=m) + unlike * rng.normal(size=(devices, m)),
        curvatures=curvatures,
        covariances=roots @ roots.transpose(0, 2, 1),
        samples=samples,
        parameters=2 * m,
    )


def problem_of(model: LocalModel, budget: Budget, rate: float = 0.7, **fleet: Any) -> Problem:
    """The problem of planning for a model."""
    noise = np.trace(model.covariances, axis1=1, axis2=2)
    return Problem(
        Fleet(model.samples, noise, 1.0, **fleet),
        Constants(learning_rate=rate, smoothness=1.0, initial_gap=1.0),
        budget,
    )


def theorem_phases(settings: Sequence[Setting], how: Optimiser) -> list[federated_quadratic.Phase]:
    """The phases as the theorem takes them, with what devices and server do."""
    assert isinstance(how.client, ClientSGD) and isinstance(how.server, ServerSGD)
    return [
        federated_quadratic.Phase(
            each.rounds,
            each.local_steps,
            each.learning_rate,
            decay=how.client.weight_decay,
            momentum=how.client.momentum,
            server_rate=how.server.learning_rate,
            server_momentum=how.server.momentum,
            nesterov=how.server.nesterov,
        )
        for each in settings
    ]


def variances(fleet: Fleet, batches: NDArray[np.int64]) -> Floats:
    """By what the covariance of a sample's gradient is multiplied in a batch, where it has no bias."""
    if fleet.replacement:
        return (1.0 - 1.0 / fleet.samples) / batches
    return 1.0 / batches - 1.0 / fleet.samples


def simulated(
    forecast: Forecast, problem: Problem, plan: tuple[int, int, NDArray[np.int64]], runs: int, seed: int
) -> tuple[float, float]:
    """Mean of F - F* over many runs with Gaussian noise, and its standard error."""
    model, (rounds, local_steps, batches) = forecast.model, plan
    rng = np.random.default_rng(seed)
    fleet, budget, rate = problem.fleet, problem.budget, problem.constants.learning_rate
    n, m = model.gradients.shape
    roots = np.linalg.cholesky(model.covariances + 1e-12 * np.eye(m))
    roots = roots * np.sqrt(variances(fleet, batches))[:, None, None]
    lasting = np.sqrt(fleet.step_noise / (model.parameters or 1))[:, None, None]
    z = np.zeros((runs, m))
    for _ in range(rounds):
        local = np.repeat(z[None], n, axis=0)
        for _ in range(local_steps):
            noise = rng.normal(size=local.shape) @ roots.transpose(0, 2, 1)
            if lasting.any():
                noise += lasting * rng.normal(size=local.shape)
            local = local - rate * (local @ model.curvatures + model.gradients[:, None, :] + noise)
        counts = np.tile(fleet.weights, (runs, 1))
        if budget.participants is not None and budget.distinct_participants:
            order = np.argsort(rng.random((runs, n)), axis=1)
            counts = (order < budget.participants) / budget.participants
        elif budget.participants is not None:
            counts = rng.multinomial(budget.participants, fleet.weights, size=runs) / budget.participants
        z = np.einsum("rn,nra->ra", counts, local)
    gaps = model.loss.at(z - model.loss.best)
    return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(runs))


def at_fifty_digits(
    model: LocalModel, problem: Problem, rounds: int, local_steps: int
) -> tuple[mpmath.mpf, list[mpmath.mpf]]:
    """Offset and weights of the forecast, step by step and round by round, where every device takes part."""
    with mpmath.workdps(50):
        fleet, eta = problem.fleet, mpmath.mpf(problem.constants.learning_rate)
        n, m = model.gradients.shape
        eye = mpmath.eye(m)
        own = [mpmath.mpf(d) / int(fleet.samples.sum()) for d in fleet.samples.tolist()]
        curvatures = [mpmath.matrix(h.tolist()) for h in model.curvatures]
        gradients = [mpmath.matrix(g.tolist()) for g in model.gradients]
        covariances = [mpmath.matrix(c.tolist()) for c in model.covariances]
        mean_curvature, mean_gradient = mpmath.zeros(m), mpmath.zeros(m, 1)
        contraction, pull, noises = mpmath.zeros(m), mpmath.zeros(m, 1), []
        for p, h, g, c in zip(own, curvatures, gradients, covariances, strict=True):
            mean_curvature += p * h
            mean_gradient += p * g
            power, summed, noise = eye.copy(), mpmath.zeros(m), mpmath.zeros(m)
            for _ in range(local_steps):
                summed += power
                noise += power * c * power
                power = power * (eye - eta * h)
            contraction += p * power
            pull += p * eta * (summed * g)
            noises.append(eta**2 * p**2 * noise)
        best = -mpmath.lu_solve(mean_curvature, mean_gradient)
        z, power = mpmath.zeros(m, 1), eye.copy()
        weights = [mpmath.mpf(0)] * n
        for _ in range(rounds):
            z = contraction * z - pull
            through = power * mean_curvature * power / 2
            for i, noise in enumerate(noises):
                product = through * noise
                weights[i] += mpmath.fsum(product[a, a] for a in range(m))
            power = power * contraction
        away = z - best
        offset = (away.T * mean_curvature * away)[0] / 2
        if fleet.replacement:
            weights = [w * (1 - mpmath.mpf(1) / int(d)) for w, d in zip(weights, fleet.samples, strict=True)]
        else:
            offset -= mpmath.fsum(w / int(d) for w, d in zip(weights, fleet.samples, strict=True))
        return offset, weights

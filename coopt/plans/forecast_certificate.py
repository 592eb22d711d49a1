"""A forecast recomputed from what was measured, step by step: no eigenbasis of a round, no sums over rounds.

The affine map of one local step with its noise is composed with itself tau times, those of all devices are
averaged, and the average is composed with itself K times, phase after phase. Momentum of devices makes the
map of a step one of model and momentum, that of the server the map of a round. Where some devices are drawn,
one round follows the other. This shares nothing with :mod:`coopt.objectives.forecast` but the definitions:
what curvature counts for F*, and to what that of a device is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial, reduce

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.forecast.federation import LARGEST_STEP
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.model import RITZ_FLOOR, LocalModel
from coopt.objectives.forecast.optimiser import LinearSteps
from coopt.objectives.forecast.phases import Setting
from coopt.problem.problem import Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Affine:
    """z <- matrix z + shift, with noise of this covariance; of one map or a stack of them."""

    matrix: Floats
    shift: Floats
    noise: Floats

    def then(self, other: _Affine) -> _Affine:
        """The other map after this one."""
        turn = other.matrix
        return _Affine(
            turn @ self.matrix,
            (turn @ self.shift[..., None])[..., 0] + other.shift,
            turn @ self.noise @ np.swapaxes(turn, -1, -2) + other.noise,
        )

    def upper(self, size: int) -> _Affine:
        """The same for the first components, where the others start from zero."""
        return _Affine(self.matrix[..., :size, :size], self.shift[..., :size], self.noise[..., :size, :size])

    def repeated(self, times: int) -> _Affine:
        """The same map so many times, by doubling."""
        found, power = None, self
        while times:
            if times % 2:
                found = power if found is None else found.then(power)
            times //= 2
            power = power.then(power)
        return self if found is None else found


def recomputed(
    forecast: Forecast,
    problem: Problem,
    phases: Sequence[tuple[Setting, NDArray[np.int64]]],
) -> float:
    """The expected F - F* of a plan, phase after phase.

    Parameters
    ----------
    forecast : Forecast
        What was measured, who trains, and the optimiser; its learning rate plays no part.
    problem : Problem
    phases : sequence of tuple
        Rounds, local steps and learning rate of each phase, and its batches.
    """
    fleet, budget = problem.fleet, problem.budget
    model, trained, how = forecast.model, forecast.trained, forecast.optimiser.linear
    server = how.server
    places = list(range(len(model))) if trained is None else list(trained)
    shares, taken = fleet.weights, budget.participants
    counted = shares**2
    if taken is not None and budget.distinct_participants:
        counted = counted * len(fleet) / taken
    elif taken is not None:
        counted = counted + shares * (1.0 - shares) / taken
    spread = 0.0 if taken is None else float(_drawn(len(fleet), taken, budget.distinct_participants))
    m = model.gradients.shape[1]
    # The state is the model and, behind it, the server's momentum.
    size = m if server.momentum == 0.0 else 2 * m
    enter = np.concatenate([server.now * np.eye(m), np.eye(m)])[:size]
    state = _Affine(np.zeros((size, size)), np.zeros(size), np.zeros((size, size)))
    for setting, batches in phases:
        rate, variances = setting.learning_rate, _variances(problem, batches)
        made = partial(_steps, model, places, rate, variances, how)
        if how.unbiased:
            # No step of a round is like another.
            local = reduce(_Affine.then, (made(t + 1) for t in range(setting.local_steps))).upper(m)
        else:
            local = made(1).repeated(setting.local_steps).upper(m)
        change = _Affine(
            np.einsum("n,nab->ab", shares, local.matrix) - np.eye(m),
            shares @ local.shift,
            np.einsum("n,nab->ab", counted, local.noise),
        )
        step = np.eye(size)
        if size > m:
            step[:m, m:], step[m:, m:] = server.kept * np.eye(m), server.momentum * np.eye(m)
        step[:, :m] += enter @ change.matrix
        whole = _Affine(step, enter @ change.shift, enter @ change.noise @ enter.T)
        if spread == 0.0:
            state = state.then(whole.repeated(setting.rounds))
            continue
        turn = local.matrix - np.eye(m) - change.matrix
        for _ in range(setting.rounds):
            # How the model of each device differs from the average one, and what of that comes from noise.
            apart = turn @ state.shift[:m] + local.shift - change.shift
            drawn = np.einsum("n,na,nb->ab", shares, apart, apart)
            drawn += np.einsum("n,nab->ab", shares, turn @ state.noise[:m, :m] @ np.swapaxes(turn, 1, 2))
            state = state.then(replace(whole, noise=whole.noise + spread * enter @ drawn @ enter.T))
    return _gap(model, state.shift[:m], state.noise[:m, :m])


def _drawn(devices: int, taken: int, distinct: bool) -> Fraction:
    if not distinct:
        return Fraction(1, taken)
    return Fraction(devices - taken, taken * max(devices - 1, 1))


def _variances(problem: Problem, batches: NDArray[np.int64]) -> Floats:
    """By what the covariance of one sample, estimated without bias, is multiplied in a batch."""
    held = problem.fleet.samples
    if problem.fleet.replacement:
        return (held - 1.0) / held / batches
    return (held - batches) / (held * batches)


def _steps(
    model: LocalModel, places: list[int], rate: float, variances: Floats, how: LinearSteps, step: int
) -> _Affine:
    """A local step of every device that trains, of its model and, where it has one, its momentum."""
    values, vectors = np.linalg.eigh(model.curvatures[places])
    cut = np.clip(values, 0.0, LARGEST_STEP * how.stretch / rate)
    # Where nothing is cut the curvature is taken as it was measured.
    same = (np.abs(values - cut) <= 1e-12 * np.abs(values).max(axis=1, keepdims=True)).all(axis=1)
    rebuilt = (vectors * cut[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    curvatures = np.where(same[:, None, None], model.curvatures[places], rebuilt)
    gradients, noise = model.gradients[places], variances[:, None, None] * model.covariances[places]
    eye = np.eye(values.shape[1])
    if how.momentum == 0.0:
        return _Affine(eye - rate * curvatures, -rate * gradients, rate**2 * noise)
    rate *= how.factor(step)
    memory = np.broadcast_to(how.momentum * eye, curvatures.shape)
    above = np.concatenate([eye - rate * curvatures, -rate * memory], axis=2)
    below = np.concatenate([curvatures, memory], axis=2)
    enter = np.concatenate([-rate * eye, eye])
    return _Affine(np.concatenate([above, below], axis=1), gradients @ enter.T, enter @ noise @ enter.T)


def _gap(model: LocalModel, mean: Floats, noise: Floats) -> float:
    """F - F* on average over models with this mean and covariance."""
    values, vectors = np.linalg.eigh(model.curvatures)
    positive = (vectors * np.maximum(values, 0.0)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    curvature = np.einsum("n,nab->ab", model.weights, positive)
    gradient = model.weights @ model.gradients
    bends, axes = np.linalg.eigh(curvature)
    counts = bends > RITZ_FLOOR * bends[-1]
    along, models = axes.T @ gradient, axes.T @ mean
    terms = [
        float(0.5 * bend * (z + slope / bend) ** 2) if counted else float(slope * z + 0.5 * bend * z * z)
        for bend, slope, z, counted in zip(bends, along, models, counts, strict=True)
    ]
    return math.fsum([*terms, 0.5 * float(np.sum(curvature * noise))])

"""A forecast recomputed from what was measured, step by step: no eigenbasis of a round, no sums over rounds.

The affine map of one local step with its noise is composed with itself tau times, those of all devices are
averaged, and the average is composed with itself K times, phase after phase. Momentum of devices makes the
map of a step one of model and momentum, that of the server the map of a round. Where some devices are drawn,
one round follows the other. This shares nothing with :mod:`coopt.objectives.forecast` but the definitions:
what curvature counts for F*, and to what that of a device is cut.
"""

from __future__ import annotations

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
from coopt.problem.exact_sum import exact_sum
from coopt.problem.problem import Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """z <- matrix z + shift, with noise of this covariance; of one map or a stack of them."""

    matrix: Floats
    shift: Floats
    noise: Floats

    def then(self, other: Affine) -> Affine:
        """The other map after this one."""
        turn = other.matrix
        return Affine(
            turn @ self.matrix,
            (turn @ self.shift[..., None])[..., 0] + other.shift,
            turn @ self.noise @ np.swapaxes(turn, -1, -2) + other.noise,
        )

    def upper(self, size: int) -> Affine:
        """The same for the first components, where the others start from zero."""
        return Affine(self.matrix[..., :size, :size], self.shift[..., :size], self.noise[..., :size, :size])

    def repeated(self, times: int) -> Affine:
        """The same map so many times, by doubling."""
        found, power = None, self
        while times:
            if times % 2:
                found = power if found is None else found.then(power)
            times //= 2
            power = power.then(power)
        return self if found is None else found


@dataclass(frozen=True, eq=False)
class Averaging:
    """How a round is made of local steps: who trains, with which weight, and what the server does.

    Attributes
    ----------
    forecast : Forecast
    problem : Problem
    places : list of int
        Those that train, among the devices measured.
    counted : ndarray, shape (N,)
        With which their noise is added.
    lasting : ndarray, shape (N,)
        Variance of the noise of a step along each direction that no batch removes.
    enter : ndarray, shape (size, m)
        How an averaged change enters the state: the model and, behind it, the server's momentum.
    """

    forecast: Forecast
    problem: Problem
    places: list[int]
    counted: Floats
    lasting: Floats
    enter: Floats

    @classmethod
    def of(cls, forecast: Forecast, problem: Problem) -> Averaging:
        """That of a problem."""
        model, trained, server = forecast.model, forecast.trained, forecast.optimiser.linear.server
        fleet, taken = problem.fleet, problem.budget.participants
        shares, counted = fleet.weights, fleet.weights**2
        if taken is not None and problem.budget.distinct_participants:
            counted = counted * len(fleet) / taken
        elif taken is not None:
            counted = counted + shares * (1.0 - shares) / taken
        m = model.gradients.shape[1]
        enter = np.concatenate([server.now * np.eye(m), np.eye(m)])[: m if server.momentum == 0.0 else 2 * m]
        places = list(range(len(model))) if trained is None else list(trained)
        return cls(forecast, problem, places, counted, forecast.lasting(fleet), enter)

    def local(self, rate: float, local_steps: int, noise: Floats) -> Affine:
        """The maps of the devices' local steps, each with gradient noise of this covariance, (N, m, m)."""
        how, m = self.forecast.optimiser.linear, self.enter.shape[1]
        made = partial(_steps, self.forecast.model, self.places, rate, noise, how)

        def after(steps: int) -> Affine:
            if how.unbiased:
                # No step of a round is like another.
                return reduce(Affine.then, (made(t + 1) for t in range(steps))).upper(m)
            return made(1).repeated(steps).upper(m)

        own = self.steps(local_steps)
        maps = {steps: after(steps) for steps in set(own)}
        return Affine(
            np.stack([maps[steps].matrix[i] for i, steps in enumerate(own)]),
            np.stack([maps[steps].shift[i] for i, steps in enumerate(own)]),
            np.stack([maps[steps].noise[i] for i, steps in enumerate(own)]),
        )

    def steps(self, local_steps: int) -> list[int]:
        """Local steps of every device."""
        most = self.forecast.device_steps
        return [local_steps] * len(self.places) if most is None else [min(n, local_steps) for n in most]

    def factors(self, local_steps: int) -> Floats:
        """By what the change of every device is multiplied."""
        own, how = self.steps(local_steps), self.forecast.optimiser.linear
        if len(set(own)) == 1:
            return np.ones(len(own))
        kept = 0.0 if how.unbiased else how.momentum
        # Gradients, each as often as the momentum adds it.
        counts = np.array([exact_sum((1 - kept**j) / (1 - kept) for j in range(1, n + 1)) for n in own])
        factors: Floats = float(self.problem.fleet.weights @ counts) / counts
        return factors

    def of_batches(self, variances: Floats) -> Floats:
        """So many times the covariance of one sample, of every device."""
        sampled: Floats = variances[:, None, None] * self.forecast.model.covariances[self.places]
        return sampled

    @property
    def of_steps(self) -> Floats:
        """The covariance of what no batch removes, of every device."""
        spread: Floats = self.lasting[:, None, None] * np.eye(self.enter.shape[1])
        return spread

    def change(self, local: Affine, local_steps: int) -> Affine:
        """How the average changes the model."""
        factors, m = self.factors(local_steps), self.enter.shape[1]
        shares = self.problem.fleet.weights * factors
        return Affine(
            np.einsum("n,nab->ab", shares, local.matrix - np.eye(m)),
            shares @ local.shift,
            np.einsum("n,nab->ab", self.counted * factors**2, local.noise),
        )

    def round(self, change: Affine) -> Affine:
        """The map of a round, of the whole state."""
        (size, m), server, enter = self.enter.shape, self.forecast.optimiser.linear.server, self.enter
        step = np.eye(size)
        if size > m:
            step[:m, m:], step[m:, m:] = server.kept * np.eye(m), server.momentum * np.eye(m)
        step[:, :m] += enter @ change.matrix
        return Affine(step, enter @ change.shift, enter @ change.noise @ enter.T)


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
    average, shares, taken = (
        Averaging.of(forecast, problem),
        problem.fleet.weights,
        problem.budget.participants,
    )
    spread = 0.0 if taken is None else float(_drawn(len(shares), taken, problem.budget.distinct_participants))
    size, m = average.enter.shape
    state = Affine(np.zeros((size, size)), np.zeros(size), np.zeros((size, size)))
    for setting, batches in phases:
        noise = average.of_batches(_variances(problem, batches)) + average.of_steps
        local = average.local(setting.learning_rate, setting.local_steps, noise)
        change = average.change(local, setting.local_steps)
        whole = average.round(change)
        if spread == 0.0:
            state = state.then(whole.repeated(setting.rounds))
            continue
        turn, enter = local.matrix - np.eye(m) - change.matrix, average.enter
        for _ in range(setting.rounds):
            # How the model of each device differs from the average one, and what of that comes from noise.
            apart = turn @ state.shift[:m] + local.shift - change.shift
            drawn = np.einsum("n,na,nb->ab", shares, apart, apart)
            drawn += np.einsum("n,nab->ab", shares, turn @ state.noise[:m, :m] @ np.swapaxes(turn, 1, 2))
            state = state.then(replace(whole, noise=whole.noise + spread * enter @ drawn @ enter.T))
    return Parabola.of(forecast.model).gap(state.shift[:m], state.noise[:m, :m])


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
    model: LocalModel, places: list[int], rate: float, noise: Floats, how: LinearSteps, step: int
) -> Affine:
    """A local step of every device that trains, of its model and, where it has one, its momentum."""
    values, vectors = np.linalg.eigh(model.curvatures[places])
    eye = np.eye(values.shape[1])
    # Decay through the gradient, and decay of the model beside it.
    within, beside = (0.0, rate * how.decay) if how.decays_beside else (how.decay, 0.0)
    cut = np.clip(np.maximum(values, 0.0) + within, 0.0, LARGEST_STEP * how.stretch / rate)
    # Where nothing is cut the curvature is taken as it was measured.
    wide = np.abs(values).max(axis=1, keepdims=True) + within
    same = (np.abs(values + within - cut) <= 1e-12 * wide).all(axis=1)
    rebuilt = (vectors * cut[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    curvatures = np.where(same[:, None, None], model.curvatures[places] + within * eye, rebuilt)
    start = np.zeros(values.shape[1]) if model.point is None else model.point
    gradients = model.gradients[places] + within * start
    if how.momentum == 0.0:
        return Affine(eye - rate * curvatures, -rate * gradients, rate**2 * noise)
    rate *= how.factor(step)
    memory = np.broadcast_to(how.momentum * eye, curvatures.shape)
    above = np.concatenate([(1.0 - beside) * eye - rate * curvatures, -rate * memory], axis=2)
    below = np.concatenate([curvatures, memory], axis=2)
    enter = np.concatenate([-rate * eye, eye])
    shift = gradients @ enter.T
    shift[:, : start.size] -= beside * start
    return Affine(np.concatenate([above, below], axis=1), shift, enter @ noise @ enter.T)


@dataclass(frozen=True, eq=False)
class Parabola:
    """The average loss along its own axes: slopes, curvatures, and which of them count for F*."""

    curvature: Floats
    axes: Floats
    bends: Floats
    slopes: Floats
    counts: NDArray[np.bool_]

    @classmethod
    def of(cls, model: LocalModel) -> Parabola:
        """That of the measured devices, whose negative curvature counts as none."""
        values, vectors = np.linalg.eigh(model.curvatures)
        positive = (vectors * np.maximum(values, 0.0)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
        curvature = np.einsum("n,nab->ab", model.weights, positive)
        bends, axes = np.linalg.eigh(curvature)
        slopes = axes.T @ (model.weights @ model.gradients)
        return cls(curvature, axes, bends, slopes, bends > RITZ_FLOOR * bends[-1])

    def gap(self, mean: Floats, noise: Floats | None = None) -> float:
        """F - F* on average over models with this mean and covariance."""
        terms = [
            float(0.5 * bend * (z + slope / bend) ** 2) if counted else float(slope * z + 0.5 * bend * z * z)
            for bend, slope, z, counted in zip(
                self.bends, self.slopes, self.axes.T @ mean, self.counts, strict=True
            )
        ]
        return exact_sum([*terms, 0.0 if noise is None else 0.5 * float(np.sum(self.curvature * noise))])

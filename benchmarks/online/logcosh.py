"""Federated log-cosh problems: constants and optimum are known, and thousands of steps take a second.

F_i(w) = L sum_k log cosh(w_k - t_ik) + mu/2 ||w||^2 + b_i w, gradients with Gaussian noise of variance M_i /
s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coopt import Budget, ClientReport, Fleet, RoundPlan
from coopt.measuring.report import HalfBatches, SameBatchPair

DEVICES, DIMENSION = 8, 5


@dataclass(frozen=True)
class Instance:
    """One random problem, its fleet and its budget."""

    curvature: float
    ridge: float
    shift: np.ndarray
    tilt: np.ndarray
    noise: np.ndarray
    samples: np.ndarray
    speed: np.ndarray  # samples per second, before and after the jump, shape (2, N)
    round_time: np.ndarray
    start: np.ndarray
    learning_rate: float
    budget: Budget

    @property
    def weights(self) -> np.ndarray:
        return self.samples / self.samples.sum()

    def gradients(self, w: np.ndarray) -> np.ndarray:
        """Gradients of every device at its own model, shape (..., N, d)."""
        return self.curvature * np.tanh(w - self.shift) + self.ridge * w + self.tilt

    def losses(self, w: np.ndarray) -> np.ndarray:
        """Loss of every device at its own model, shape (..., N)."""
        x = np.abs(w - self.shift)
        cosh = x + np.log1p(np.exp(-2 * x)) - math.log(2)
        return np.sum(self.curvature * cosh + self.ridge / 2 * w**2 + self.tilt * w, axis=-1)

    def loss(self, w: np.ndarray) -> np.ndarray:
        """Global loss at models of shape (..., d)."""
        return self.losses(w[..., None, :]) @ self.weights

    def minimum(self) -> float:
        """Solve for the optimum, coordinate by coordinate, by Newton's method with bisection's safety."""
        low, high = np.full(DIMENSION, -1e4), np.full(DIMENSION, 1e4)
        for _ in range(200):
            middle = (low + high) / 2
            slope = self.weights @ self.gradients(middle)
            low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
        return float(self.loss((low + high) / 2))

    def fleet(self) -> Fleet:
        """What a user knows beforehand: samples, and nothing about noise, divergence or speed."""
        return Fleet(self.samples, gradient_noise=1.0, divergence=1.0, max_batch=self.samples)


def instance(seed: int, *, jump: bool) -> Instance:
    """Draw a problem."""
    rng = np.random.default_rng([7, seed])
    curvature, ridge = rng.uniform(0.5, 2.0), 10 ** rng.uniform(-1.7, -0.5)
    samples = rng.integers(50, 500, DEVICES)
    p = samples / samples.sum()
    tilt = rng.normal(size=(DEVICES, DIMENSION)) * rng.uniform(0.05, 0.8)
    tilt -= p @ tilt
    shift = rng.normal(size=(DEVICES, DIMENSION)) * rng.uniform(0, 1.0)
    speed = 50 * np.exp(rng.normal(0, 0.7, DEVICES))
    after = speed * np.where(rng.random(DEVICES) < 1 / 3, 0.25, 1.5)
    # The limits are those of a reference plan that a careful user might have: enough steps to get near the
    # optimum at this learning rate, in rounds of a few local steps.
    learning_rate = 10 ** rng.uniform(-1.7, -0.7) / (curvature + ridge)
    steps = rng.uniform(2, 8) / (learning_rate * (ridge + curvature / 3))
    batch, tau = 2 ** rng.uniform(2, 5), 2 ** rng.uniform(0, 3)
    rounds, second = max(steps / tau, 15), batch / 50
    round_cost = DEVICES * batch * 10 ** rng.uniform(-0.5, 1)
    round_time = second * 10 ** rng.uniform(-0.5, 1)
    budget = Budget(
        cost=rounds * (tau * DEVICES * batch + round_cost),
        time=rounds * (tau * second + round_time) * rng.uniform(1, 3),
        round_cost=round_cost,
    )
    return Instance(
        curvature=curvature,
        ridge=ridge,
        shift=shift,
        tilt=tilt,
        noise=np.exp(rng.normal(math.log(4), 0.8, DEVICES)) * DIMENSION / 5,
        samples=samples,
        speed=np.array([speed, after if jump else speed]),
        round_time=round_time * rng.uniform(0.5, 1.5, DEVICES),
        start=rng.normal(size=DIMENSION) * 3,
        learning_rate=learning_rate,
        budget=budget,
    )


class Simulation:
    """Clients and server of one training run, exactly as the probe would report them."""

    def __init__(self, problem: Instance, seed: int) -> None:
        self.problem = problem
        self.rng = np.random.default_rng([11, seed])
        self.model = problem.start.copy()
        self.seconds = 0.0
        self.cost = 0.0
        self.history: list[tuple[int, np.ndarray]] = []
        self._held: np.ndarray | None = None  # local models at which a fresh batch was evaluated

    def phase(self) -> int:
        return int(self.seconds >= self.problem.budget.time / 2)

    def run(self, plan: RoundPlan, working: np.ndarray | None = None) -> tuple[list[ClientReport], float]:
        """Run a round on the `working` devices; give their reports and the seconds that it took."""
        problem, s = self.problem, plan.batch_sizes.astype(float)
        working = np.ones(DEVICES, dtype=bool) if working is None else working
        start = np.tile(self.model, (DEVICES, 1))
        clean = problem.gradients(start)
        first = np.maximum(plan.batch_sizes // 2, 1)
        second = np.maximum(plan.batch_sizes - first, 1)
        a, b = clean + self._noise(first), clean + self._noise(second)
        gradient = (first[:, None] * a + second[:, None] * b) / (first + second)[:, None]
        pairs = self._pairs(start)
        loss = problem.losses(start) + np.sum((gradient - clean) * start, axis=1)
        local = start - problem.learning_rate * gradient
        for _ in range(plan.local_steps - 1):
            local = local - problem.learning_rate * (problem.gradients(local) + self._noise(s))
        probe = np.where(plan.batch_sizes >= 2, 2 * np.maximum(1, plan.batch_sizes // 4), 0)
        processed = plan.local_steps * plan.batch_sizes + (probe if plan.extra_evaluation else 0)
        self._held = local if plan.extra_evaluation else None
        busy = processed / problem.speed[self.phase()]
        reports = [
            ClientReport(
                client=i,
                round=plan.round,
                samples=int(problem.samples[i]),
                local_steps=plan.local_steps,
                batch_size=int(plan.batch_sizes[i]),
                samples_processed=int(processed[i]),
                loss=float(loss[i]),
                seconds_computing=float(busy[i]),
                seconds_communicating=float(problem.round_time[i]),
                halves=HalfBatches(
                    int(first[i]), int(second[i]), float(np.sum((a[i] - b[i]) ** 2)), float(a[i] @ b[i])
                )
                if plan.batch_sizes[i] >= 2
                else None,
                pair=pairs[i][0] if pairs else None,
                gradient=gradient[i],
                change=pairs[i][1] if pairs else None,
            )
            for i in np.flatnonzero(working)
        ]
        p = problem.weights * working
        if working.any():
            self.model = p @ local / p.sum()
        took = float(np.max((busy + problem.round_time)[working], initial=0.0))
        if not working.all():
            took = min(plan.deadline, max(took, plan.predicted_seconds))
        self.seconds += took
        self.cost += float(processed[working].sum()) + problem.budget.round_cost
        self.history.append((plan.local_steps, plan.batch_sizes))
        return reports, took

    def _noise(self, size: np.ndarray) -> np.ndarray:
        scale = np.sqrt(self.problem.noise / size / DIMENSION)
        return scale[:, None] * self.rng.normal(size=(DEVICES, DIMENSION))

    def _pairs(self, now: np.ndarray) -> list[tuple[SameBatchPair, np.ndarray]]:
        if self._held is None:
            return []
        step = now - self._held
        change = self.problem.gradients(now) - self.problem.gradients(self._held)
        loss = self.problem.losses(now) - self.problem.losses(self._held)
        return [
            (
                SameBatchPair(
                    step=float(x @ x),
                    product=float(g @ g),
                    difference=0.0,
                    slope=float(g @ x),
                    loss_change=float(f),
                ),
                g,
            )
            for x, g, f in zip(step, change, loss, strict=True)
        ]


def expected_error(
    problem: Instance, rounds: list[tuple[int, np.ndarray]], replicas: int, seed: int, dropout: float = 0.0
) -> float:
    """Mean F(w) - F* after a given sequence of (tau, s), over fresh noise and fresh dropouts."""
    rng = np.random.default_rng([13, seed])
    model = np.tile(problem.start, (replicas, 1))
    p = problem.weights
    for tau, batch in rounds:
        scale = np.sqrt(problem.noise / batch / DIMENSION)[:, None]
        local = np.repeat(model[:, None, :], DEVICES, axis=1)
        for _ in range(tau):
            noise = rng.standard_normal(local.shape, dtype=np.float32)
            local = local - problem.learning_rate * (problem.gradients(local) + scale * noise)
        share = p * (rng.random((replicas, DEVICES)) >= dropout)
        total = share.sum(axis=1, keepdims=True)
        mean = np.einsum("rn,rnd->rd", share, local) / np.maximum(total, 1e-300)
        model = np.where(total > 0, mean, model)
    return float(np.mean(problem.loss(model))) - problem.minimum()

"""A small federated training: quadratic clients with Gaussian noise, fast and known in every number."""

from __future__ import annotations

import numpy as np

from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.online.round_plan import RoundPlan

DIMENSION = 3
LEARNING_RATE = 0.1


def plain_reports(plan: RoundPlan, loss: float) -> list[ClientReport]:
    """What clients say that did as they were told and measured nothing but a loss."""
    return [
        ClientReport(
            client=i,
            round=plan.round,
            samples=60,
            local_steps=plan.local_steps,
            batch_size=int(size),
            samples_processed=plan.local_steps * int(size),
            loss=loss,
            seconds_computing=0.1,
        )
        for i, size in enumerate(plan.batch_sizes)
    ]


class Training:
    """Server and clients of one training run.

    F_i(w) = sum_k h_k (w_k - o_ik)^2 / 2 with curvatures h from 0.5 to 2; the loss is shifted to have
    minimum 1.
    """

    def __init__(
        self, devices: int, seed: int, *, noise: float = 4.0, spread: float = 1.0, step_time: float = 0.0
    ) -> None:
        rng = np.random.default_rng([seed, devices])
        self.seed = seed
        self.samples = rng.integers(40, 400, size=devices)
        self.speed = rng.uniform(40, 200, size=devices)
        # Seconds of a gradient, however small its batch.
        self.step_time = step_time
        self.curvature = np.linspace(0.5, 2.0, DIMENSION)
        self.centre = spread * rng.normal(size=(devices, DIMENSION))
        self.noise = noise * rng.uniform(0.5, 2, size=devices)
        self.model = np.full(DIMENSION, 5.0)
        self.rng = np.random.default_rng([seed, 1])
        self.held: np.ndarray | None = None
        self.cost = 0.0
        self.seconds = 0.0
        self.weights = self.samples / self.samples.sum()
        self.optimum = self.weights @ self.centre
        self.first_gap = self.gap()

    def gap(self) -> float:
        """F - F* of the current model."""
        return float(self.curvature @ (self.model - self.optimum) ** 2 / 2)

    def rewind(self, round_: int) -> None:
        """Make what follows depend on the round alone, as if nothing had gone before."""
        self.rng = np.random.default_rng([self.seed, 2, round_])
        self.model = np.full(DIMENSION, 5.0) * 0.8**round_
        self.held = None

    def run(self, plan: RoundPlan, working: np.ndarray | None = None) -> tuple[list[ClientReport], float]:
        """Run a round on the working devices: their reports, and the seconds of the slowest."""
        devices = len(self.speed)
        working = np.ones(devices, dtype=bool) if working is None else working
        size = plan.batch_sizes
        first = size // 2
        second = size - first
        start = np.tile(self.model, (devices, 1))
        clean = self.curvature * (start - self.centre)
        a, b = (clean + self._noise(np.maximum(part, 1)) for part in (first, second))
        gradient = np.where(first[:, None] > 0, (first[:, None] * a + second[:, None] * b) / size[:, None], b)
        local = start - LEARNING_RATE * gradient
        for _ in range(plan.local_steps - 1):
            local = local - LEARNING_RATE * (self.curvature * (local - self.centre) + self._noise(size))
        extra = np.where(size >= 2, 2 * np.maximum(1, size // 4), 0) * plan.extra_evaluation
        processed = plan.local_steps * size + extra
        gradients = plan.local_steps + (size >= 2) * (1 + 2 * plan.extra_evaluation)
        computing = gradients * self.step_time + processed / self.speed
        reports = []
        for i in np.flatnonzero(working):
            pair = change = None
            if self.held is not None:
                step = self.model - self.held[i]
                change = self.curvature * step
                square, slope = float(change @ change), float(change @ step)
                if step @ step > 0:
                    pair = SameBatchPair(float(step @ step), square, 0.0, slope, slope / 2)
            halves = None
            if first[i]:
                difference = float(np.sum((a[i] - b[i]) ** 2))
                halves = HalfBatches(int(first[i]), int(second[i]), difference, float(a[i] @ b[i]))
            reports.append(
                ClientReport(
                    client=int(i),
                    round=plan.round,
                    samples=int(self.samples[i]),
                    local_steps=plan.local_steps,
                    batch_size=int(size[i]),
                    samples_processed=int(processed[i]),
                    loss=float(1 + self.curvature @ (self.model - self.optimum) ** 2 / 2),
                    seconds_computing=float(computing[i]),
                    seconds_communicating=0.1,
                    halves=halves,
                    pair=pair,
                    gradient=gradient[i],
                    change=None if pair is None else change,
                )
            )
        self.held = local if plan.extra_evaluation else None
        if working.any():
            p = self.weights * working
            self.model = p @ local / p.sum()
        seconds = float(np.max((computing + 0.1)[working], initial=0.0))
        self.cost += float(processed[working].sum()) + 20
        self.seconds += seconds
        return reports, seconds

    def _noise(self, size: np.ndarray) -> np.ndarray:
        return np.sqrt(self.noise / size / DIMENSION)[:, None] * self.rng.normal(size=(len(size), DIMENSION))

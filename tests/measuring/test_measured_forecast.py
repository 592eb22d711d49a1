"""From data to a forecast: what is measured forecasts what is trained, where the theory is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coopt
from coopt import Budget, Problem, solve_allocation
from measuring.quadratics import LeastSquares

RATE, ROWS = 0.2, [10, 8, 14]


class Centres:
    """F_i(w) = mean of (w - x)'A_i(w - x) / 2 over few rows x: the noise is the same at every w."""

    def __init__(self, seed: int, dimension: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self.curvatures = []
        for _ in ROWS:
            vectors = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
            self.curvatures.append(vectors @ np.diag(rng.uniform(0.3, 3.0, dimension)) @ vectors.T)
        self.rows = [rng.normal(size=dimension) + rng.normal(size=(size, dimension)) for size in ROWS]
        self.weights = np.array(ROWS) / sum(ROWS)

    @property
    def clients(self) -> list[Any]:
        return [(x, np.full(len(x), i)) for i, x in enumerate(self.rows)]

    def gradient(self, w: np.ndarray, batch: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
        error, curvature = w - batch[0], self.curvatures[int(batch[1][0])]
        return 0.5 * float(np.mean(np.sum(error @ curvature * error, axis=1))), curvature @ error.mean(axis=0)

    def gaps(self, w: np.ndarray) -> np.ndarray:
        """F - F* at models of shape (runs, dimension)."""
        curvature = np.tensordot(self.weights, self.curvatures, axes=1)
        pulled = sum(p * a @ x.mean(axis=0) for p, a, x in self._devices())
        away = w - np.linalg.solve(curvature, pulled)
        return 0.5 * np.sum(away @ curvature * away, axis=1)

    def _devices(self) -> Any:
        return zip(self.weights, self.curvatures, self.rows, strict=True)

    def train(self, rounds: int, steps: int, batches: list[int], replacement: bool, runs: int) -> np.ndarray:
        """Models after federated averaging from zero, shape (runs, dimension)."""
        rng = np.random.default_rng(1)
        w = np.zeros((runs, 4))
        for _ in range(rounds):
            total = np.zeros_like(w)
            for (p, a, x), size in zip(self._devices(), batches, strict=True):
                local = w.copy()
                for _ in range(steps):
                    drawn = rng.integers(len(x), size=(runs, size))
                    if not replacement:
                        drawn = rng.random((runs, len(x))).argsort(axis=1)[:, :size]
                    local -= RATE * (local - x[drawn].mean(axis=1)) @ a
                total += p * local
            w = total
        return w


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(
    ("rounds", "steps", "batches"), [(1, 1, [2, 3, 1]), (4, 5, [1, 2, 3]), (30, 3, [4, 2, 5])]
)
def test_the_forecast_is_the_mean_of_many_runs(
    rounds: int, steps: int, batches: list[int], replacement: bool
) -> None:
    task = Centres(seed=3)
    measurement = coopt.measure(task.gradient, np.zeros(4), task.clients, rows=20)
    problem = Problem(measurement.fleet(replacement=replacement), measurement.constants(RATE), Budget())
    value = measurement.forecast().value(problem, rounds, steps, batches)
    gaps = task.gaps(task.train(rounds, steps, batches, replacement, runs=4000))
    assert abs(value - gaps.mean()) < 4.5 * gaps.std() / np.sqrt(len(gaps)) + 1e-6


def test_the_plan_of_the_forecast_trains_as_well_as_the_best_of_a_grid() -> None:
    task = Centres(seed=5)
    measurement = coopt.measure(task.gradient, np.zeros(4), task.clients, rows=20)
    budget = Budget(cost=400, max_local_steps=8, round_cost=6)
    problem = Problem(measurement.fleet(), measurement.constants(RATE), budget)
    plan = solve_allocation(problem, bound=measurement.forecast(), gap_tolerance=1e-3)

    def trained(rounds: int, steps: int, batches: Any) -> float:
        return float(task.gaps(task.train(rounds, steps, list(batches), True, runs=1500)).mean())

    grid = [
        trained(int(400 // (steps * 3 * size + 6)), steps, [size] * 3)
        for steps in (1, 2, 4, 8)
        for size in (1, 2, 4, 8)
        if 400 // (steps * 3 * size + 6) >= 1
    ]
    assert trained(plan.rounds, plan.local_steps, plan.batch_sizes) <= 1.03 * min(grid)


def test_devices_that_are_not_measured_differ_like_those_that_are() -> None:
    """Values taken over from one device keep the differences, and so the drift, that means would lose."""
    task = LeastSquares.random([12] * 120, 6, seed=1)
    model = np.zeros(6)

    def spread(found: coopt.Measurement) -> float:
        return float(found.weights @ np.sum((found.gradients - found.gradient) ** 2, axis=1))

    whole = spread(coopt.measure(task.gradient, model, task.clients, rows=12))
    donors, means = [], []
    for seed in range(5):
        few = coopt.measure(task.gradient, model, task.clients, rows=12, devices=20, seed=seed)
        others = np.flatnonzero(~few.measured)
        donors.append(spread(few) / whole)
        means.append(
            spread(coopt.measure(task.gradient, model, task.clients, rows=12, left_out=others)) / whole
        )
    assert 0.75 < np.mean(donors) < 1.25
    assert np.mean(means) < 0.3


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(3)), st.floats(-3, 3))
def test_the_order_of_the_devices_and_the_unit_of_the_loss_do_not_matter(
    seed: int, order: list[int], power: float
) -> None:
    task, c = LeastSquares.random([30, 20, 25], 5, seed), 10.0**power
    w = np.random.default_rng(seed).normal(size=5)

    def scaled(v: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        loss, gradient = task.gradient(v, batch)
        return c * loss, c * gradient

    plain = coopt.measure(task.gradient, w, task.clients, rows=30, directions=4)
    other = coopt.measure(scaled, w, [task.clients[i] for i in order], rows=30, directions=4)
    np.testing.assert_allclose(other.spectrum, c * plain.spectrum, rtol=1e-4)
    np.testing.assert_allclose(
        other.device_spectra, c * plain.device_spectra[order], atol=1e-5 * c * plain.spectrum[0]
    )
    np.testing.assert_allclose(other.noise, c**2 * plain.noise[order], rtol=1e-9)
    np.testing.assert_allclose(other.divergence, c * plain.divergence[order], rtol=1e-7)
    np.testing.assert_allclose(other.sample_curvature, c * plain.sample_curvature, rtol=1e-4)
    np.testing.assert_allclose(other.loss, c * plain.loss)

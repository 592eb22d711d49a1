"""Noise on reports: calibrated, of no part in training, and subtracted again by the estimators."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from coopt import ClientProbe, InvalidProblemError
from coopt.measuring.estimates import estimate
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.report_noise import PARTS, ReportNoise, gaussian_scale

DEVICES, LENGTH = 30, 20


@given(epsilon=st.floats(0.01, 50), delta=st.floats(1e-9, 0.1))
def test_the_scale_is_the_smallest_that_is_private(epsilon: float, delta: float) -> None:
    def leak(scale: float) -> float:
        """How much more likely than e^epsilon times the worst set of outcomes is, for means 0 and 1."""
        border = scale**2 * epsilon + 0.5
        return float(norm.sf((border - 1) / scale) - math.exp(epsilon) * norm.sf(border / scale))

    scale = gaussian_scale(epsilon, delta)
    assert leak(scale) <= delta * (1 + 1e-6)
    assert leak(scale / 1.01) > delta
    if epsilon < 1:
        assert scale <= math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def test_two_mechanisms_of_all_parts_together_are_as_private_as_one() -> None:
    noise = ReportNoise(2.0, 1e-5, gradient_clip=3.0, loss_clip=7.0)
    gradients = math.sqrt(PARTS) * 2 * 3.0 / noise.gradient_deviation
    losses = math.sqrt(PARTS) * 7.0 / noise.loss_deviation
    assert math.hypot(gradients, losses) == pytest.approx(1 / gaussian_scale(2.0, 1e-5))


def reports(noise: ReportNoise | None, round_: int, rng: np.random.Generator) -> list:
    """Gradients of length 2 that agree, with mini-batch noise of variance 4 a sample."""
    told = []
    for i in range(DEVICES):
        model = np.zeros(LENGTH)

        def gradient(w: np.ndarray, batch: int) -> tuple[float, np.ndarray]:
            blur = rng.normal(size=LENGTH) * math.sqrt(4 / LENGTH / batch)
            return 1.0, w + 2 / math.sqrt(LENGTH) + blur

        probe = ClientProbe(i, gradient, lambda size: size, noise=noise, seed=rng, clock=lambda: 1.0)
        first = probe.begin(model, round=round_, batch_size=16)
        assert np.linalg.norm(first) < 5
        told.append(probe.end(model - 0.1 * first, samples=100, local_steps=1, extra_evaluation=False))
    return told


def test_estimates_are_unbiased_under_noise_and_noise_is_counted_as_noise() -> None:
    noise = ReportNoise(300.0, 1e-5, gradient_clip=10.0, loss_clip=4.0)
    rng = np.random.default_rng(0)
    added = LENGTH * noise.gradient_deviation**2
    assert added > 20
    found = []
    for seed in range(60):
        state, ignored = estimate.update(
            Estimates.empty([100] * DEVICES), reports(noise, seed, rng), round=seed
        )
        assert not ignored
        found.append((state.gradient.now.value, state.divergence.now.value, state.loss.now.value))
        # Two halves of eight: each has the variance of its samples and what was added.
        assert state.fleet_noise.mean == pytest.approx(4 + 8 * added, rel=0.3)
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(len(found))
    assert np.all(np.abs(mean - [4.0, 0.0, 1.0]) < 4 * error + [0.1, 0.05 * added, 0.02])


def test_without_noise_nothing_changes_and_wrong_numbers_are_named() -> None:
    (report, *_) = reports(None, 0, np.random.default_rng(1))
    assert report.loss == 1.0
    for name in ("epsilon", "delta", "gradient_clip", "loss_clip"):
        good = {"epsilon": 1.0, "delta": 1e-5, "gradient_clip": 1.0, "loss_clip": 1.0}
        for bad in (0.0, -1.0, math.nan, "x"):
            with pytest.raises(InvalidProblemError, match=name):
                ReportNoise(**{**good, name: bad})
    with pytest.raises(InvalidProblemError, match="delta"):
        ReportNoise(1.0, 1.0, 1.0, 1.0)

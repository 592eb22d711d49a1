"""The time of a step and of a sample, told apart from times that jitter, jump and straggle."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coopt.measuring.estimates.step_timing import StepTiming

ALPHA, THROUGHPUT, DEVICES = 0.030, 2000.0, 60


def observe(
    timing: StepTiming,
    batches: list[int],
    *,
    jitter: float = 0.0,
    stragglers: float = 0.0,
    slower: float = 1.0,
    seed: int = 0,
    alpha: float = ALPHA,
    steps: int = 4,
) -> StepTiming:
    rng = np.random.default_rng(seed)
    for batch in batches:
        seconds = steps * (alpha + batch / THROUGHPUT) * slower * np.exp(jitter * rng.normal(size=DEVICES))
        seconds *= np.where(rng.random(DEVICES) < stragglers, 5.0, 1.0)
        timing = timing.add(seconds, np.full(DEVICES, steps), np.full(DEVICES, steps * batch))
    return timing


def nothing(worth: float = 0.0) -> StepTiming:
    return StepTiming.empty(np.full(DEVICES, worth))


def seconds_at(timing: StepTiming, batch: int) -> np.ndarray:
    alpha, per_sample = timing.seconds()
    return alpha + batch * per_sample


@pytest.mark.parametrize(
    ("jitter", "stragglers", "rounds", "error"),
    [(0.0, 0.0, 6, 0.02), (0.05, 0.0, 20, 0.08), (0.2, 0.05, 60, 0.25)],
)
def test_step_and_sample_are_told_apart(jitter, stragglers, rounds, error):
    timing = observe(nothing(), [8, 32, 16] * (rounds // 3), jitter=jitter, stragglers=stragglers)
    alpha, per_sample = timing.seconds()
    assert np.median(alpha) == pytest.approx(ALPHA, rel=error)
    assert 1 / np.median(per_sample) == pytest.approx(THROUGHPUT, rel=2 * error)
    _, share_error = timing.fixed_share()
    assert np.median(share_error) < 0.2


def test_errors_cover_what_they_claim():
    timing = observe(nothing(), [8, 32, 16, 12, 24] * 4, jitter=0.1)
    share, error = timing.fixed_share()
    assert np.mean(np.abs(share - ALPHA / (ALPHA + 24 / THROUGHPUT)) <= 3 * error) > 0.9


def test_one_batch_size_tells_nothing_and_says_so():
    timing = observe(nothing(), [16] * 30, jitter=0.02)
    _, error = timing.fixed_share()
    assert (error > 0.3).all()
    # Its own batch is predicted all the same.
    np.testing.assert_allclose(seconds_at(timing, 16), ALPHA + 16 / THROUGHPUT, rtol=0.1)
    assert np.isinf(nothing().fixed_share()[1]).all()


def test_without_a_fixed_part_one_number_is_exact():
    timing = observe(nothing(), [8, 32, 16], alpha=0.0)
    alpha, per_sample = timing.seconds()
    assert (alpha == 0.0).all()
    np.testing.assert_allclose(1 / per_sample, THROUGHPUT, rtol=1e-12)


def test_what_the_fleet_says_is_believed_until_times_say_otherwise():
    timing = observe(nothing(worth=ALPHA * THROUGHPUT), [16])
    np.testing.assert_allclose(seconds_at(timing, 128), ALPHA + 128 / THROUGHPUT, rtol=0.05)
    wrong = observe(nothing(worth=1.0), [8, 32, 16] * 8)
    np.testing.assert_allclose(seconds_at(wrong, 128), ALPHA + 128 / THROUGHPUT, rtol=0.05)


def test_a_device_that_gets_slower_keeps_its_shape():
    timing = observe(nothing(), [8, 32, 16] * 4)
    slower = observe(timing, [16, 16, 16, 16], slower=3.0)
    np.testing.assert_allclose(seconds_at(slower, 128), 3 * (ALPHA + 128 / THROUGHPUT), rtol=0.15)


def test_nonsense_is_nothing_and_the_state_is_kept_bit_for_bit():
    timing = observe(nothing(), [8, 32])
    bad = np.full(DEVICES, np.nan)
    for seconds, samples in ((bad, 8.0), (np.zeros(DEVICES), 8.0), (np.ones(DEVICES), bad)):
        after = timing.add(seconds, np.ones(DEVICES), samples * np.ones(DEVICES))
        assert (after.steady.count == timing.steady.count).all() and (after.loss == timing.loss).all()
    back = timing.restored("timing", json.loads(json.dumps(timing.state_dict())))
    first, second = observe(timing, [64]), observe(back, [64])
    for one, other in zip(first.seconds(), second.seconds(), strict=True):
        np.testing.assert_array_equal(one, other)

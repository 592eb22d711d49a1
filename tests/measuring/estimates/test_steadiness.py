"""Levels of devices that are steady for long, straggle, and change at once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coopt.errors import InvalidProblemError
from coopt.measuring.estimates.steadiness import Steadiness
from coopt.measuring.estimates.steady_mean import SteadyMean

DEVICES = 2000
EVERY = np.ones(DEVICES, dtype=bool)


def follow(mean: SteadyMean, rounds: int, spread: float, *, level: float = 5.0, seed: int = 0) -> SteadyMean:
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        mean = mean.add(level * np.exp(spread * rng.standard_normal(DEVICES)), EVERY)
    return mean


@pytest.mark.parametrize(("rounds", "share"), [(4, 0.62), (12, 0.4), (60, 0.25)])
def test_what_stays_the_same_is_known_ever_better(rounds: int, share: float) -> None:
    """Averaging the last two would leave .58 of the spread for ever."""
    found = follow(SteadyMean.empty(DEVICES), rounds, 0.2)
    error = np.sqrt(np.mean((found.mean / 5.0 - 1.0) ** 2))
    assert error < 0.2 * share


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.4])
def test_the_spread_of_readings_is_learned(spread: float) -> None:
    found = follow(SteadyMean.empty(DEVICES), 60, spread)
    assert np.median(found.steady.spread) == pytest.approx(spread, rel=0.12)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_change_is_followed_within_a_few_readings(factor: float) -> None:
    steady = follow(SteadyMean.empty(DEVICES), 40, 0.2)
    after = follow(steady, 3, 0.2, level=5.0 * factor, seed=1)
    off = after.mean / (5.0 * factor) - 1.0
    assert np.median(np.abs(off)) < 0.2
    assert abs(np.median(off)) < 0.12
    assert (
        np.median(np.abs(follow(after, 12, 0.2, level=5.0 * factor, seed=2).mean / (5.0 * factor) - 1.0))
        < 0.06
    )


def test_one_straggler_decides_nothing() -> None:
    steady = follow(SteadyMean.empty(DEVICES), 40, 0.1)
    after = steady.add(np.full(DEVICES, 50.0), EVERY)
    # But where the last readings were late as well.
    assert np.mean(after.mean / steady.mean > 1.05) < 0.04


def test_nothing_varies_where_nothing_does() -> None:
    mean = follow(SteadyMean.empty(DEVICES), 10, 0.0, level=0.0)
    assert (mean.mean == 0.0).all() and mean.known.all()
    assert (follow(mean, 5, 0.0, level=2.0).mean > 1.5).all()
    assert (follow(SteadyMean.empty(DEVICES), 10, 0.0).mean.round(12) == 5.0).all()


def test_devices_that_join_begin_anew_and_the_state_is_kept_bit_for_bit() -> None:
    mean = follow(SteadyMean.empty(DEVICES), 7, 0.3).joined(SteadyMean.empty(1))
    assert not mean.known[-1] and mean.mean.shape == (DEVICES + 1,)
    written = json.loads(json.dumps(mean.state_dict()))
    back = SteadyMean.empty(DEVICES + 1).restored("mean", written)
    every = np.ones(DEVICES + 1, dtype=bool)
    one, other = (each.add(np.full(DEVICES + 1, 4.0), every) for each in (mean, back))
    np.testing.assert_array_equal(one.mean, other.mean)
    for name in ("count", "since", "lean", "spread"):
        np.testing.assert_array_equal(getattr(one.steady, name), getattr(other.steady, name))
    with pytest.raises(InvalidProblemError, match=r"mean\.steady\.lean"):
        SteadyMean.empty(DEVICES + 1).restored(
            "mean", written | {"steady": written["steady"] | {"lean": [9.0] * (DEVICES + 1)}}
        )


def test_only_devices_that_were_read_change() -> None:
    steady, weights = Steadiness.empty(3).weigh(np.array([2]), np.array([5.0]))
    assert weights.tolist() == [1.0]
    assert steady.count.tolist() == [0, 0, 1] and steady.known.tolist() == [False, False, True]

"""What multipliers prove is below every point of the problem, whatever the multipliers are."""

from __future__ import annotations

import numpy as np
import pytest

from coopt.solvers.proposers.dual_bound import Box, Priced, proved


def _case(rng):
    size = int(rng.integers(1, 6))
    weights = rng.exponential(1.0, size) * (rng.random(size) < 0.9)
    lower = rng.uniform(0.01, 0.5, size)
    box = Box(
        lower,
        lower + rng.exponential(2.0, size),
        np.sort(rng.uniform(0.01, 1.0, 2)),
        np.sort(10.0 ** rng.uniform(-2.0, 2.0, 2)),
    )
    lines = rng.normal(0.0, 2.0, (2, 5))
    return weights, lines, box


def _points(rng, box, count):
    """Corners of the box as often as its inside, and the largest z1 among them."""
    share = np.clip(rng.uniform(-1.0, 2.0, (count, box.lower.size + 2)), 0.0, 1.0)
    batches = box.lower + share[:, 2:] * (box.upper - box.lower)
    z2 = box.ends[0] + share[:, 0] * (box.ends[1] - box.ends[0])
    z1 = z2 * (box.slopes[0] + share[:, 1] * (box.slopes[1] - box.slopes[0]))
    return batches, z1, z2


@pytest.mark.parametrize("seed", range(30))
def test_any_multipliers_bound_from_below(seed):
    rng = np.random.default_rng(seed)
    weights, lines, box = _case(rng)
    batches, z1, z2 = _points(rng, box, 2000)
    # A limit that the points in the middle meet with nothing to spare, times a multiplier.
    row, price = rng.normal(0.0, 1.0, weights.size + 2), rng.exponential(3.0)
    used = batches @ row[2:] + row[0] * z1 + row[1] * z2
    constant = -float(np.median(used))
    limits = Priced(price * row[2:], price * row[0], price * row[1], price * constant, price * abs(constant))
    inside = used + constant <= 0.0
    excess = np.maximum((lines[0][:, None] + lines[1][:, None] * z1).max(axis=0), 0.0)
    least = float(np.min((np.sum(weights / batches, axis=1) + excess)[inside]))
    none = Priced(np.zeros(weights.size))
    bound = proved(weights, (lines[0], lines[1]), box, limits, none, least)
    assert bound <= least
    # Where nothing limits the points but the box, the bound is the optimum: the points come near it.
    free = proved(weights, (lines[0], lines[1]), box, none, none, least)
    everywhere = np.sum(weights / box.upper) + box.least(*lines, 0.0, 0.0)
    assert free == pytest.approx(everywhere, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_excess_is_least_at_a_kink_or_a_corner(seed):
    rng = np.random.default_rng(seed)
    _, lines, box = _case(rng)
    along, across = rng.normal(0.0, 3.0, 2)
    _, z1, z2 = _points(rng, box, 20_000)
    excess = np.maximum((lines[0][:, None] + lines[1][:, None] * z1).max(axis=0), 0.0)
    tried = float(np.min(excess + along * z1 + across * z2))
    found = box.least(*lines, along, across)
    assert found <= tried + 1e-12
    assert found >= tried - 0.05 * (1.0 + abs(tried))


def test_no_numbers_prove_nothing():
    weights, lines, box = _case(np.random.default_rng(0))
    broken = Priced(np.full(weights.size, np.nan))
    none = Priced(np.zeros(weights.size))
    assert proved(weights, (lines[0], lines[1]), box, broken, none, 1.0) == -np.inf

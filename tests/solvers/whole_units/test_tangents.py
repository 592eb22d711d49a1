"""The peak of a concave function that is the least of lines, against its corners."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.solvers.whole_units.tangents import Tangent, peak

lines = st.lists(st.tuples(st.floats(-100.0, 100.0), st.floats(-100.0, 100.0)), min_size=1, max_size=20)


def least_of(parts):
    """The function x -> min(a + b x) with its slope, and how often it was asked."""
    calls = []

    def draw(at: float) -> Tangent[None]:
        calls.append(at)
        value, slope = min((a + b * at, b) for a, b in parts)
        return Tangent(at, value, slope, None)

    return draw, calls


def largest(parts, low, high):
    """The best value at a corner or an end of the interval."""
    corners = [(c - a) / (b - d) for a, b in parts for c, d in parts if b != d]
    places = [low, high, *(corner for corner in corners if low < corner < high)]
    return max(min(a + b * place for a, b in parts) for place in places)


@settings(max_examples=120, deadline=None)
@given(lines, st.floats(-50.0, 50.0), st.floats(1e-3, 10.0))
def test_nothing_in_the_interval_is_larger(parts, start, step):
    draw, calls = least_of(parts)
    found = peak(draw, start, step, (-50.0, 50.0))
    assert found.best.value == pytest.approx(largest(parts, -50.0, 50.0), rel=1e-12, abs=1e-11)
    assert len(calls) <= 30
    assert found.rising is None or found.rising.slope > 0.0
    assert found.falling is None or found.falling.slope <= 0.0


@given(lines, st.floats(-50.0, 50.0))
def test_enough_is_enough(parts, start):
    draw, _ = least_of(parts)
    top = largest(parts, -50.0, 50.0)
    found = peak(draw, start, 1.0, (-50.0, 50.0), enough=top - 1.0)
    assert top - 1.0 - 1e-9 <= found.best.value <= top + 1e-9


def test_a_function_without_a_peak_is_followed_until_numbers_end():
    draw, _ = least_of([(0.0, 1.0)])
    found = peak(draw, 0.0, 1.0)
    assert found.falling is None
    assert math.isfinite(found.best.at)

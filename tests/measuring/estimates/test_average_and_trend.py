"""Averages, lines and trends against what they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt.measuring.estimates.average import Average
from coopt.measuring.estimates.regression import FadingLine
from coopt.measuring.estimates.trend import Trend


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), decay=st.floats(0, 0.99))
def test_average_is_the_weighted_mean_and_scatter(values: list[float], decay: float) -> None:
    average = Average.empty(decay)
    for value in values:
        average = average.add(value)
    weights = decay ** np.arange(len(values))[::-1]
    mean = float(weights @ values / weights.sum())
    assert float(average.mean) == pytest.approx(mean, abs=1e-9)
    scatter = float(weights @ (np.asarray(values) - mean) ** 2)
    assert float(average.scatter) == pytest.approx(scatter, abs=1e-6)
    assert float(average.squares) == pytest.approx(float(np.sum(weights**2)))


def test_average_of_one_is_unknown_in_its_error_and_rows_are_independent() -> None:
    average = Average.empty(0.9, (2,)).add([1.0, 5.0], [True, False])
    np.testing.assert_array_equal(average.known, [True, False])
    np.testing.assert_array_equal(average.standard_error, [math.inf, math.inf])
    same = Average.empty(1 - 1e-15).add(1.0).add(3.0)
    assert float(same.standard_error) == pytest.approx(math.sqrt(2) / math.sqrt(2))


@given(slope=st.floats(-5, 5), offset=st.floats(-5, 5), decay=st.floats(0.5, 0.99))
def test_line_through_noise_free_points(slope: float, offset: float, decay: float) -> None:
    line = FadingLine(decay)
    assert math.isnan(line.slope) and line.slope_error == math.inf
    for x in (1.0, 3.0, 2.0, 5.0):
        line = line.add(x, slope * x + offset)
    assert line.slope == pytest.approx(slope, abs=1e-9)
    assert line.slope_error < 1e-5


def test_points_that_say_nothing_about_the_slope_do_not_make_it_forgotten() -> None:
    line = FadingLine(0.5)
    for x in (4.0, 2.0, 1.0):
        line = line.add(x, 3 * x)
    still = line
    for noise in (0.1, -0.1) * 20:
        still = still.add(line.x, line.y + noise)
    assert still.slope == pytest.approx(3, abs=1e-6)


def test_line_error_is_the_textbook_one_without_fading() -> None:
    rng = np.random.default_rng(12)
    x = rng.normal(size=40)
    y = 2 * x + rng.normal(size=40)
    line = FadingLine(1 - 1e-15)
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        line = line.add(a, b)
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    error = math.sqrt(residual @ residual / 38 / np.sum((x - x.mean()) ** 2))
    assert line.slope == pytest.approx(slope, rel=1e-9)
    assert line.slope_error == pytest.approx(error, rel=1e-6)


def test_trend_follows_a_fall_without_delay_and_averages_what_is_steady() -> None:
    rng = np.random.default_rng(13)
    late, steady = [], []
    for _ in range(60):
        falling = flat = Trend.empty()
        for k in range(40):
            falling = falling.add(100.0 - 2 * k + rng.normal())
            flat = flat.add(5 + rng.normal())
        late.append(falling.now.value - 22)
        steady.append(flat.now.value - 5)
    assert abs(np.mean(late)) < 0.5 and np.std(late) < 1.2
    # A long average over about 19 observations, hardly ever contradicted.
    assert np.std(steady) < 0.4

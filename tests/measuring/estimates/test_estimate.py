"""Estimators: unbiased on simulated clients, and exact when resumed."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.measuring.estimates import estimate, estimate_published, readings
from coopt.measuring.estimates.regression import FadingLine
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.measuring.screening import screen
from measuring.estimates.reporting_fleet import DIMENSION, Fleet, run


def test_corrected_estimators_are_unbiased_and_know_their_error() -> None:
    """Over many independent runs the mean hits the truth, and the error matches the reported one."""
    fleet = Fleet(6, seed=0)
    model = np.full(DIMENSION, 0.4)
    truth = fleet.truth(model)
    states = [run(fleet, model, 8) for _ in range(40)]
    for name in ("gradient", "divergence"):
        found = np.array([float(getattr(state, name).averages[1].mean) for state in states])
        errors = np.array([float(getattr(state, name).averages[1].standard_error) for state in states])
        assert abs(found.mean() - truth[name]) < 5 * found.std() / math.sqrt(len(found))
        assert found.std() == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.35)
    noise = np.array([state.noise.mean for state in states])
    errors = noise.std(axis=0) / math.sqrt(len(states))
    assert np.all(np.abs(noise.mean(axis=0) - fleet.noise) < 5 * errors)
    change = np.array([float(state.pair_change.mean) for state in states])
    wanted = 0.01 * np.sum(fleet.curvature**2)
    assert abs(change.mean() - wanted) < 5 * change.std() / math.sqrt(len(states))


def test_estimators_read_in_their_units() -> None:
    fleet = Fleet(6, seed=1)
    state = run(fleet, np.full(DIMENSION, 0.4), 100)
    beta = math.sqrt(np.mean(fleet.curvature**2))
    found = readings.smoothness(state)
    assert abs(found.value - beta) < 5 * found.standard_error < beta
    # Steps are independent here, so the averaged change is that of an average of independent steps.
    expected = beta * math.sqrt(np.sum(fleet.p**2))
    found = readings.coupling(state)
    assert abs(found.value - expected) < 5 * found.standard_error < 4 * expected
    assert readings.divergence(state).value == pytest.approx(
        math.sqrt(fleet.truth(np.full(DIMENSION, 0.4))["divergence"]), rel=0.1
    )
    assert state.loss.now.value == pytest.approx(float(fleet.p @ (1.0 + np.arange(6))))
    np.testing.assert_allclose(state.timing.seconds()[1], 0.25)
    np.testing.assert_allclose(state.round_seconds.mean, 0.25)


def test_published_estimators_are_biased_the_way_they_are_known_to_be() -> None:
    fleet = Fleet(6, seed=2, spread=0.1)
    model = np.full(DIMENSION, 0.1)
    seen, _ = screen(fleet.reports(model), devices=6, round=0)
    published = estimate_published.estimate(seen, fleet.samples)
    corrected = readings.divergence(run(fleet, model, 50)).value
    assert published.divergence > 2 * corrected
    assert published.smoothness > 0 and published.lipschitz > 0 and published.convexity > 0


def test_published_estimators_by_hand() -> None:
    """Two clients with 1 and 3 samples, numbers small enough for paper."""
    pair = SameBatchPair(step=4.0, product=2.0, difference=8.0, slope=0.0, loss_change=-3.0)
    reports = [
        dataclasses.replace(
            Fleet(2, seed=3).report(i, np.zeros(DIMENSION)),
            gradient=[[1.0, 0.0], [5.0, 0.0]][i],
            pair=pair,
            loss=[0.5, 5.0][i],
        )
        for i in range(2)
    ]
    seen, _ = screen(reports, devices=2, round=0)
    found = estimate_published.estimate(seen, np.array([1, 3]))
    assert found.smoothness == pytest.approx(1.0)  # sqrt((2 + 8/4) / 4)
    assert found.lipschitz == pytest.approx(1.5)  # 3 / 2
    assert found.divergence == pytest.approx(0.25 * 3 + 0.75 * 1)  # mean gradient 4
    assert found.convexity == pytest.approx(0.25 * 1 / 0.5 + 0.75 * 25 / 5)


def test_missing_devices_do_not_pass_for_a_gradient() -> None:
    """At the optimum a part of the fleet has a gradient of its own: on average it is subtracted again."""
    fleet = Fleet(10, seed=19)
    model = (fleet.p @ fleet.offset) / fleet.curvature
    assert fleet.truth(model)["gradient"] < 1e-20
    rng = np.random.default_rng(19)
    found, naive = [], []
    for _ in range(120):
        state = Estimates.empty(fleet.samples)
        here = [report for report in fleet.reports(model) if rng.random() < 0.7]
        state, _ = estimate.update(state, here, round=0)
        found.append(state.gradient.now.value)
        naive.append(found[-1] + float(state.partial.mean))
    assert np.mean(naive) > 5 * np.std(naive) / math.sqrt(120)
    assert abs(np.mean(found)) < 0.25 * np.mean(naive)
    assert readings.squared_gradient(run(fleet, model, 5)).value < np.mean(naive)


def test_device_that_never_reported_gets_the_fleet_mean() -> None:
    fleet = Fleet(4, seed=10)
    reports = fleet.reports(np.zeros(DIMENSION))[:3]
    state, _ = estimate.update(Estimates.empty(fleet.samples), reports, round=0)
    noise = readings.device_noise(state)
    assert noise[3] == pytest.approx(noise[:3].mean())


@settings(max_examples=12, deadline=None)
@given(rounds=st.integers(0, 6), after=st.integers(0, 4))
def test_resumed_state_is_the_same_bit_for_bit(rounds: int, after: int) -> None:
    fleet = Fleet(3, seed=11)
    model = np.zeros(DIMENSION)
    state = Estimates.empty(fleet.samples)
    for round_ in range(rounds):
        state, _ = estimate.update(state, fleet.reports(model, round_), round=round_)
    again = state.restored("estimates", json.loads(json.dumps(state.state_dict())))
    for round_ in range(rounds, rounds + after):
        reports = fleet.reports(model, round_)
        state, _ = estimate.update(state, reports, round=round_)
        again, _ = estimate.update(again, reports, round=round_)
    assert json.dumps(state.state_dict()) == json.dumps(again.state_dict())


def test_contraction_and_gap_on_a_quadratic() -> None:
    """F = F* + c d^2 / 2 seen without noise: the slope gives c, the line through zero gives F*."""
    state = Estimates.empty([10])
    c, lowest = 0.7, 3.0
    for distance in (2.0, 1.5, 1.2, 1.0):
        loss, square = lowest + c * distance**2 / 2, (c * distance) ** 2
        state = dataclasses.replace(
            state,
            line=state.line.add(loss, square),
            loss=state.loss.add(loss),
            gradient=state.gradient.add(square),
        )
    found = readings.contraction(state, 0.1)
    assert found.value == pytest.approx(c, rel=1e-6)
    assert readings.gap(state, found.value).value == pytest.approx(state.loss.now.value - lowest, rel=1e-6)
    # A guard from below: with nothing but the lowest possible loss known, c cannot be smaller than this.
    lonely = dataclasses.replace(state, line=FadingLine(0.9))
    height = state.loss.now.value
    assert readings.contraction(lonely, 0.1).value == pytest.approx(state.gradient.now.value / (2 * height))
    assert readings.gap(state, 1e-12).value == pytest.approx(height)
    assert readings.gap(state, 0.0).value == pytest.approx(height)
    assert readings.gap(state, c, lowest_loss=height - 0.01).value == pytest.approx(0.01)


def test_what_was_before_steep_directions_converged_is_forgotten() -> None:
    """Squared gradient 16, then 0.04 from the second round on; halves that agree, so there is no noise."""
    state = Estimates.empty([50, 50])
    for k, length in enumerate((4.0, 0.2, 0.19, 0.18)):
        vector = np.array([length, 0.0])
        reports = [
            ClientReport(
                client=i,
                round=k,
                samples=50,
                local_steps=1,
                batch_size=4,
                samples_processed=4,
                loss=10.0 if k == 0 else 3.0,
                seconds_computing=1.0,
                halves=HalfBatches(2, 2, 0.0, length**2),
                gradient=vector,
            )
            for i in range(2)
        ]
        state, _ = estimate.update(state, reports, round=k)
    assert 0.03 < state.gradient.now.value < 0.045
    assert state.loss.now.value == pytest.approx(3.0)


def test_without_extrapolation_a_plateau_is_no_arrival() -> None:
    """Gradient below its noise, and a loss that does not move: c is that of what noise may hide."""
    rng = np.random.default_rng(5)
    state = Estimates.empty([50] * 4)
    for k in range(12):
        halves = rng.normal(size=(4, 2, 6))
        reports = [
            ClientReport(
                client=i,
                round=k,
                samples=50,
                local_steps=1,
                batch_size=4,
                samples_processed=4,
                loss=2.3,
                seconds_computing=1.0,
                halves=HalfBatches(2, 2, float(np.sum((a - b) ** 2)), float(a @ b)),
                gradient=(a + b) / 2,
            )
            for i, (a, b) in enumerate(halves)
        ]
        state, _ = estimate.update(state, reports, round=k)
    now = readings.squared_gradient(state)
    found = readings.contraction(state, 0.1, extrapolate=False).value
    assert found == pytest.approx((max(now.value, 0) + now.standard_error) / (2 * 2.3))
    assert found > 0

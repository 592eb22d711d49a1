"""A fifth of the reports may be anything: every estimate stays near what honest clients say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.measuring.estimates import estimate, readings
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.wall_clock import WallClock
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.measuring.screening import screen
from coopt.measuring.winsorize import held_losses, hold_above

DEVICES, LIARS, DIMENSION = 20, 4, 6

anything = st.floats(allow_nan=True, allow_infinity=True)
plausible = st.floats(-100, 100) | st.floats(0, 5)
lies = anything | plausible


def honest(seed: int) -> list[ClientReport]:
    """Devices whose gradients differ by about their length, with loss, noise and curvature around 1."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=DIMENSION)
    reports = []
    for i in range(DEVICES):
        vector = mean + rng.normal(size=DIMENSION)
        step = 0.1 * rng.normal(size=DIMENSION)
        difference, loss = float(rng.uniform(0.5, 2)), float(rng.uniform(0.5, 2))
        reports.append(
            ClientReport(
                client=i,
                round=0,
                samples=100,
                local_steps=2,
                batch_size=8,
                samples_processed=16,
                loss=loss,
                seconds_computing=float(rng.uniform(0.5, 2)),
                halves=HalfBatches(4, 4, difference, float(vector @ vector) - difference / 4),
                pair=SameBatchPair(float(step @ step), float(step @ step), 0.0, float(step @ step), 0.1),
                gradient=vector,
                change=step,
            )
        )
    return reports


@st.composite
def told(draw: st.DrawFn) -> tuple[list[ClientReport], list[ClientReport]]:
    """Honest reports, and the same with a fifth replaced."""
    true = honest(draw(st.integers(0, 50)))
    reports = list(true)
    for place in draw(st.sets(st.integers(0, DEVICES - 1), min_size=LIARS, max_size=LIARS)):
        reports[place] = dataclasses.replace(
            reports[place],
            loss=draw(lies),
            samples_processed=draw(lies),
            seconds_computing=draw(lies),
            seconds_communicating=draw(lies),
            cost=draw(lies),
            halves=HalfBatches(4, 4, draw(lies), draw(lies)),
            pair=SameBatchPair(*(draw(lies) for _ in range(5))),
            gradient=np.array([draw(lies) for _ in range(DIMENSION)]),
            change=np.array([draw(lies) for _ in range(DIMENSION)]),
        )
    return true, reports


def after(reports: list[ClientReport]) -> Estimates:
    return estimate.update(Estimates.empty([100] * DEVICES), reports, round=0)[0]


@settings(max_examples=30, deadline=None)
@given(told())
def test_no_estimate_leaves_the_range_of_honest_clients_by_more_than_a_factor(
    pair: tuple[list[ClientReport], list[ClientReport]],
) -> None:
    true, reports = pair
    state, ideal = after(reports), after(true)
    assert 0.2 < state.loss.now.value < 4.0
    noise = readings.device_noise(state)
    usual = np.array([2 * report.halves.difference for report in true if report.halves])
    assert np.all((noise > 0.2 * usual.min()) & (noise < 4 * usual.max()))
    assert 0.3 < readings.smoothness(state).value < 3.0
    # The mean moves by the weight of the liars times a few of the usual distances from the middle.
    spread = math.sqrt(ideal.divergence.now.value)
    size = math.sqrt(max(ideal.gradient.now.value, 0.0))
    assert math.sqrt(max(state.gradient.now.value, 0.0)) < size + LIARS / DEVICES * 5 * spread + 0.5
    assert state.divergence.now.value < 5 * ideal.divergence.now.value


@settings(max_examples=12, deadline=None)
@given(pair=told(), order=st.permutations(range(DEVICES)))
def test_neither_the_order_nor_the_names_of_devices_matter(
    pair: tuple[list[ClientReport], list[ClientReport]], order: list[int]
) -> None:
    _, reports = pair
    state, ignored = estimate.update(Estimates.empty([100] * DEVICES), reports, round=0)
    mixed = [reports[place] for place in order]
    again, blamed = estimate.update(Estimates.empty([100] * DEVICES), mixed, round=0)
    assert repr(again.state_dict()) == repr(state.state_dict()) and len(blamed) == len(ignored)
    renamed = [dataclasses.replace(report, client=new) for new, report in enumerate(mixed)]
    other = after(renamed)
    for name in ("loss", "gradient", "divergence"):
        assert getattr(other, name).now.value == pytest.approx(getattr(state, name).now.value, rel=1e-6)


@given(
    values=st.lists(st.floats(0.5, 2.0), min_size=16, max_size=16),
    wrong=st.lists(lies, min_size=4, max_size=4),
)
def test_held_values_stay_within_a_power_of_the_honest_range(values: list[float], wrong: list[float]) -> None:
    mixed = np.array([*values, *wrong])
    finite = np.isfinite(mixed)
    held = held_losses(mixed, -math.inf)[finite]
    width = max(values) - min(values)
    # Three deviations, 1.4 of them for twenty values, each 1.4826 times a median distance.
    reach = 3 * 1.4 * 1.4826
    assert np.all(held >= min(values) - (reach * width + 1e-9))
    ratio = max(max(values) / min(values), math.exp(0.1))
    assert np.all(held <= max(values) * ratio ** (2 * reach) + reach * width)
    sizes = np.abs(mixed[finite])
    assert np.all(hold_above(sizes) <= max(values) * ratio ** (2 * reach))


def test_liars_are_named_with_what_they_told_and_what_is_typical() -> None:
    reports = honest(0)
    reports[3] = dataclasses.replace(reports[3], loss=-20.0)
    reports[5] = dataclasses.replace(reports[5], gradient=-50 * np.ones(DIMENSION))
    _, ignored = screen(reports, devices=DEVICES, round=0, lowest_loss=0.0)
    assert {(entry.client, entry.what) for entry in ignored} == {(3, "loss"), (5, "gradient")}
    by_client = {entry.client: entry for entry in ignored}
    assert by_client[3].value == -20 and "below the lowest possible, 0" in by_client[3].why
    assert by_client[5].value is not None and by_client[5].value > 100
    assert by_client[5].typical is not None and by_client[5].typical < 10


def test_noise_far_above_that_of_others_is_named_once_however_long_gradients_are() -> None:
    reports = [dataclasses.replace(each, gradient=None) for each in honest(0)]
    halves = reports[4].halves
    assert halves is not None
    for product in (halves.product, 30.0):  # at 30 the gradient hides the noise in the sum of both
        lie = dataclasses.replace(halves, difference=29 * halves.difference, product=product)
        told = [dataclasses.replace(each, halves=lie) if each.client == 4 else each for each in reports]
        seen, ignored = screen(told, devices=DEVICES, round=0)
        assert [(entry.client, entry.what) for entry in ignored] == [(4, "halves")]
        assert np.isnan(seen["halves_difference"]).tolist() == [i == 4 for i in range(DEVICES)]


def test_two_reports_of_one_device_that_differ_are_both_left_out() -> None:
    reports = honest(1)
    forged = dataclasses.replace(reports[2], client=19)
    seen, ignored = screen([*reports, forged], devices=DEVICES, round=0)
    assert seen.client.tolist() == list(range(19))
    assert [str(entry) for entry in ignored] == [
        "client 19: ignored report: two reports about the same round that differ: neither is believed"
    ]


@given(
    rounds=st.lists(
        st.tuples(st.floats(1e-3, 1e6), st.lists(lies, min_size=3, max_size=3)), min_size=1, max_size=6
    )
)
def test_the_clock_never_asks_for_more_time_than_a_round_took(
    rounds: list[tuple[float, list[float]]],
) -> None:
    clock, work = WallClock(), np.array([10.0, 20.0, 40.0])
    for seconds, claims in rounds:
        clock = clock.add(seconds, np.abs(np.array(claims)), work)
        if np.isfinite(claims).any():
            assert clock.least * 40.0 <= seconds * (1 + 1e-12)
    assert clock.least >= 0 and (clock.overhead is None or clock.overhead >= 0)


def test_who_does_not_say_how_long_it_took_may_be_what_the_round_waited_for() -> None:
    """Two devices of eight that never told their times had the batches of the others cut to a quarter."""
    clock, work = WallClock().add(2.0, np.array([1.9, 1.5]), np.array([80.0, 60.0])), np.array([90.0, 60.0])
    silent = clock.add(9.0, np.array([1.9, math.nan]), work)
    assert silent.least == 0.0 and silent.overhead == clock.overhead
    assert clock.add(9.0, np.array([1.9, 0.1]), work).least > 0.0

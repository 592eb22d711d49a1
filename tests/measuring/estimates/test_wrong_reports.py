"""Reports that are wrong, late, alone or missing break no estimate."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.measuring.estimates import estimate, readings
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.measuring.screening import screen
from measuring.estimates.reporting_fleet import DIMENSION, Fleet


def corrupt(report: ClientReport, how: str) -> ClientReport:
    values = {"nan": math.nan, "inf": math.inf, "zero": 0.0, "huge": 1e30, "negative": -1e6}
    if how == "scaled":
        factor = 1e4
        assert report.halves and report.pair and report.gradient is not None and report.change is not None
        return dataclasses.replace(
            report,
            gradient=report.gradient * factor,
            change=report.change * factor,
            loss=report.loss * factor,
            halves=dataclasses.replace(
                report.halves,
                difference=report.halves.difference * factor**2,
                product=report.halves.product * factor**2,
            ),
            pair=dataclasses.replace(
                report.pair,
                product=report.pair.product * factor**2,
                difference=report.pair.difference * factor**2,
            ),
            samples=report.samples * 10_000,
            seconds_computing=report.seconds_computing * factor,
        )
    x = values[how]
    return dataclasses.replace(
        report,
        samples=x,
        samples_processed=x,
        loss=x,
        seconds_computing=x,
        seconds_communicating=x,
        cost=x,
        halves=HalfBatches(4, 4, x, x),
        pair=SameBatchPair(x, x, x, x, x),
        gradient=np.full(DIMENSION, x),
        change=np.full(DIMENSION, x),
    )


@pytest.mark.parametrize("how", ["nan", "inf", "huge", "negative", "scaled"])
def test_a_fifth_of_the_clients_may_lie(how: str) -> None:
    fleet = Fleet(20, seed=4)
    model = np.full(DIMENSION, 0.4)
    state = Estimates.empty(fleet.samples)
    blamed: set[int] = set()
    for round_ in range(30):
        reports = fleet.reports(model, round_)
        for client in range(4):
            reports[5 * client] = corrupt(reports[5 * client], how)
        state, ignored = estimate.update(state, reports, round=round_, streaming=True)
        blamed |= {entry.client for entry in ignored}
    assert blamed == {0, 5, 10, 15}
    np.testing.assert_array_equal(state.samples, fleet.samples)
    honest = np.setdiff1d(np.arange(20), sorted(blamed))
    p = fleet.p * np.isin(np.arange(20), honest)
    gradients = fleet.full(model)
    mean = p @ gradients / p.sum()
    wanted = float(p @ np.sum((gradients - mean) ** 2, axis=1) / p.sum())
    assert state.divergence.now.value == pytest.approx(wanted, rel=0.15)
    assert np.all(np.isfinite(readings.device_noise(state)))
    assert np.median(np.abs(state.noise.mean[honest] / fleet.noise[honest] - 1)) < 0.25
    assert 0 < state.loss.now.value < 30


def test_zeros_from_a_fifth_of_the_clients_do_no_harm_to_the_others() -> None:
    fleet = Fleet(20, seed=5)
    model = np.full(DIMENSION, 0.4)
    state = Estimates.empty(fleet.samples)
    for round_ in range(30):
        reports = fleet.reports(model, round_)
        for client in range(4):
            reports[5 * client] = corrupt(reports[5 * client], "zero")
        state, ignored = estimate.update(state, reports, round=round_)
    assert {entry.what for entry in ignored} >= {"samples", "pair"}
    honest = np.arange(20) % 5 != 0
    assert np.median(np.abs(state.noise.mean[honest] / fleet.noise[honest] - 1)) < 0.25
    assert np.all(np.isfinite(state.timing.seconds()))


number = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, -1.0, 1e308, 5e-324])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), devices=st.integers(1, 6))
def test_nothing_that_clients_send_breaks_the_state(data: st.DataObject, devices: int) -> None:
    fleet = Fleet(devices, seed=6)
    state = Estimates.empty(fleet.samples)
    for round_ in range(3):
        reports = []
        for report in fleet.reports(np.zeros(DIMENSION), round_):
            fields = data.draw(
                st.sets(st.sampled_from(["loss", "samples", "halves", "pair", "gradient", "client"]))
            )
            broken: dict[str, object] = {
                name: data.draw(number) for name in fields - {"halves", "pair", "gradient"}
            }
            if "halves" in fields:
                broken["halves"] = HalfBatches(*(data.draw(number) for _ in range(4)))
            if "pair" in fields:
                broken["pair"] = SameBatchPair(*(data.draw(number) for _ in range(5)))
            if "gradient" in fields:
                broken["gradient"] = data.draw(st.lists(number, max_size=9).map(np.array) | st.none())
            reports.append(dataclasses.replace(report, **broken))
        state, _ = estimate.update(state, reports, round=round_, streaming=data.draw(st.booleans()))
    assert np.all(state.samples >= 1)
    assert np.all(np.isfinite(readings.device_noise(state)))
    for read in (readings.divergence, readings.smoothness, readings.coupling):
        value = read(state).value
        assert math.isnan(value) or value >= 0
    assert readings.contraction(state, 0.1).value >= 0


def test_a_lonely_liar_is_judged_by_what_was_believed_before() -> None:
    fleet = Fleet(6, seed=20)
    state = Estimates.empty(fleet.samples)
    for round_ in range(3):
        state, _ = estimate.update(state, fleet.reports(np.zeros(DIMENSION), round_), round=round_)
    pair = [fleet.report(i, np.zeros(DIMENSION), round_=3) for i in (0, 1)]
    after, ignored = estimate.update(state, [corrupt(pair[0], "huge"), pair[1]], round=3)
    assert {entry.client for entry in ignored} == {0} and len(ignored) >= 5
    assert readings.squared_gradient(after).value < 1e3
    # A world that has really changed is believed once the old one is forgotten.
    changed = None
    for round_ in range(4, 9):
        report = fleet.report(0, np.full(DIMENSION, 1e6), round_=round_)
        after, changed = estimate.update(after, [report], round=round_)
    assert changed == []


def test_unknown_twice_and_late_reports() -> None:
    fleet = Fleet(3, seed=7)
    one, two, three = fleet.reports(np.zeros(DIMENSION), 4)
    late = dataclasses.replace(three, round=2)
    stranger = dataclasses.replace(one, client=9)
    seen, ignored = screen([two, one, one, stranger, late], devices=3, round=4)
    np.testing.assert_array_equal(seen.client, [0, 1, 2])
    assert [(entry.client, entry.what) for entry in ignored] == [
        (0, "report"),
        (9, "report"),
        (2, "loss, curvature and vectors"),
    ]
    assert "late: about round 2" in str(ignored[2]) and "0 to 2" in str(ignored[1])
    assert np.isnan(seen["loss"][2]) and seen.vectors["gradient"][2] is None
    assert np.isfinite(seen["halves_difference"][2])


def test_a_late_report_may_be_about_a_longer_round_than_the_one_that_just_ended() -> None:
    seen = []
    for round_ in (3, 4):
        report = ClientReport(0, round_, 100, 5, 8, 40, loss=1.0, seconds_computing=50.0)
        observations, _ = screen(
            [report], devices=1, round=4, most_seconds=10.0, planned_samples=np.array([16.0])
        )
        seen.append((observations["seconds_computing"][0], observations["samples_processed"][0]))
    assert seen[0] == (50, 40)
    assert np.isnan(seen[1][0]) and seen[1][1] == 16  # as planned


def test_one_client_one_report_and_none() -> None:
    fleet = Fleet(1, seed=8)
    state = Estimates.empty(fleet.samples)
    state, ignored = estimate.update(state, [], round=0)
    assert ignored == [] and not state.loss.known
    assert readings.gap(state, 1.0).standard_error == math.inf
    state, _ = estimate.update(state, fleet.reports(np.zeros(DIMENSION), 1), round=1)
    assert math.isnan(readings.divergence(state).value)
    assert state.gradient.known and state.gradient.now.standard_error == math.inf


def test_identical_reports_have_no_spread_and_no_outliers() -> None:
    report = Fleet(1, seed=9).report(0, np.ones(DIMENSION))
    reports = [dataclasses.replace(report, client=i) for i in range(6)]
    state = Estimates.empty([10] * 6)
    for round_ in range(5):
        again = [dataclasses.replace(entry, round=round_) for entry in reports]
        state, ignored = estimate.update(state, again, round=round_)
        assert ignored == []
    assert float(state.noise.standard_error[0]) == 0
    assert readings.divergence(state).value == 0  # raw spread 0, minus noise: never negative


def test_what_was_measured_on_no_sample_is_not_believed() -> None:
    """Zeros from a client that did nothing made its noise look small, and its batches with it."""
    fleet = Fleet(8, 0)
    reports = [fleet.report(client, np.ones(DIMENSION)) for client in range(8)]
    idle = dataclasses.replace(reports[3], samples_processed=0, loss=0.0, halves=HalfBatches(4, 4, 0.0, 0.0))
    seen, ignored = screen([*reports[:3], idle, *reports[4:]], devices=8, round=0)
    row = int(np.flatnonzero(seen.client == 3)[0])
    assert np.isnan([seen["loss"][row], seen["halves_difference"][row], seen["gradient"][row]]).all()
    told = {each.what: each.why for each in ignored if each.client == 3}
    assert "no sample" in told["loss"] and "no sample" in told["halves"]
    assert np.isfinite(seen["seconds_computing"][row])

"""Estimators: unbiased on simulated clients, robust against broken ones, exact when resumed."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.measuring.estimates import estimate, estimate_published, readings
from coopt.measuring.estimates.average import Average
from coopt.measuring.estimates.regression import FadingLine
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.trend import Trend
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.measuring.screening import screen

DIMENSION = 8


class Fleet:
    """Clients whose gradients are A_i w - b_i plus Gaussian noise: every constant is known."""

    def __init__(self, devices: int, seed: int, *, spread: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.samples = rng.integers(50, 500, size=devices)
        self.p = self.samples / self.samples.sum()
        self.curvature = np.linspace(0.5, 2.0, DIMENSION)
        self.offset = spread * rng.normal(size=(devices, DIMENSION))
        self.noise = rng.uniform(0.5, 8, size=devices)

    def full(self, model: np.ndarray) -> np.ndarray:
        return self.curvature * model - self.offset

    def truth(self, model: np.ndarray) -> dict[str, float]:
        gradients = self.full(model)
        mean = self.p @ gradients
        return {
            "gradient": float(mean @ mean),
            "divergence": float(self.p @ np.sum((gradients - mean) ** 2, axis=1)),
        }

    def report(self, client: int, model: np.ndarray, *, round_: int = 0, size: int = 8) -> ClientReport:
        scale = math.sqrt(self.noise[client] / (size / 2) / DIMENSION)
        clean = self.full(model)[client]
        first, second = clean + scale * self.rng.normal(size=(2, DIMENSION))
        step = self.rng.normal(size=DIMENSION) * 0.1
        blur = 0.05 * self.rng.normal(size=(2, DIMENSION))
        moved = self.curvature * step + blur
        return ClientReport(
            client=client,
            round=round_,
            samples=int(self.samples[client]),
            local_steps=2,
            batch_size=size,
            samples_processed=2 * size,
            loss=1.0 + client,
            seconds_computing=0.5 * size,
            seconds_communicating=0.25,
            halves=HalfBatches(
                size // 2, size // 2, float(np.sum((first - second) ** 2)), float(first @ second)
            ),
            pair=SameBatchPair(
                step=float(step @ step),
                product=float(moved[0] @ moved[1]),
                difference=float(np.sum((moved[0] - moved[1]) ** 2)),
                slope=float(moved.mean(axis=0) @ step),
                loss_change=0.1,
            ),
            gradient=(first + second) / 2,
            change=moved.mean(axis=0),
        )

    def reports(self, model: np.ndarray, round_: int = 0) -> list[ClientReport]:
        return [self.report(i, model, round_=round_) for i in range(len(self.samples))]


def run(fleet: Fleet, model: np.ndarray, rounds: int) -> Estimates:
    state = Estimates.empty(fleet.samples)
    for round_ in range(rounds):
        state, ignored = estimate.update(state, fleet.reports(model, round_), round=round_)
        assert ignored == []
    return state


def test_corrected_estimators_are_unbiased_and_know_their_error() -> None:
    """Over many independent runs the mean hits the truth, and the error matches the reported one."""
    fleet = Fleet(6, seed=0)
    model = np.full(DIMENSION, 0.4)
    truth = fleet.truth(model)
    states = [run(fleet, model, 12) for _ in range(150)]
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
    state = run(fleet, np.full(DIMENSION, 0.4), 200)
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


@settings(max_examples=80, deadline=None)
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


def test_missing_devices_do_not_pass_for_a_gradient() -> None:
    """At the optimum a part of the fleet has a gradient of its own: on average it is subtracted again."""
    fleet = Fleet(10, seed=19)
    model = (fleet.p @ fleet.offset) / fleet.curvature
    assert fleet.truth(model)["gradient"] < 1e-20
    rng = np.random.default_rng(19)
    found, naive = [], []
    for _ in range(300):
        state = Estimates.empty(fleet.samples)
        here = [report for report in fleet.reports(model) if rng.random() < 0.7]
        state, _ = estimate.update(state, here, round=0)
        found.append(state.gradient.now.value)
        naive.append(found[-1] + float(state.partial.mean))
    assert np.mean(naive) > 10 * np.std(naive) / math.sqrt(300)
    assert abs(np.mean(found)) < 0.25 * np.mean(naive)
    assert readings.squared_gradient(run(fleet, model, 5)).value < np.mean(naive)


def test_device_that_never_reported_gets_the_fleet_mean() -> None:
    fleet = Fleet(4, seed=10)
    reports = fleet.reports(np.zeros(DIMENSION))[:3]
    state, _ = estimate.update(Estimates.empty(fleet.samples), reports, round=0)
    noise = readings.device_noise(state)
    assert noise[3] == pytest.approx(noise[:3].mean())


@settings(max_examples=25, deadline=None)
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


def test_trend_follows_a_fall_without_delay_and_averages_what_is_steady() -> None:
    rng = np.random.default_rng(13)
    late, steady = [], []
    for _ in range(200):
        falling = flat = Trend.empty()
        for k in range(40):
            falling = falling.add(100.0 - 2 * k + rng.normal())
            flat = flat.add(5 + rng.normal())
        late.append(falling.now.value - 22)
        steady.append(flat.now.value - 5)
    assert abs(np.mean(late)) < 0.5 and np.std(late) < 1.2
    # A long average over about 19 observations, hardly ever contradicted.
    assert np.std(steady) < 0.4


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

from __future__ import annotations

import math
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import coopt
from coopt import Budget, InvalidProblemError, Measurement, Problem, evaluate
from measuring.quadratics import LeastSquares


@pytest.fixture(scope="module")
def measurement() -> Measurement:
    task = LeastSquares.random([60, 40, 80], 5)
    return coopt.measure(task.gradient, np.zeros(5), task.clients, names=["a", "b", "<i>c</i>"], left_out=[2])


def test_saving_and_loading_gives_an_equal_measurement(measurement: Measurement, tmp_path: Path) -> None:
    for original in (measurement, replace(measurement, names=None)):
        original.save(tmp_path / "m.npz")
        loaded = Measurement.load(tmp_path / "m.npz")
        assert loaded == original
        assert loaded.model.digest == original.model.digest
        assert type(loaded.unseen) is float
        assert type(loaded.curvature_kind) is str


def test_a_file_that_is_no_measurement_is_refused(measurement: Measurement, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with pytest.raises(InvalidProblemError, match="cannot be read: No such file"):
        Measurement.load(path)
    path.write_text("nonsense")
    with pytest.raises(InvalidProblemError, match="is no measurement"):
        Measurement.load(path)
    np.savez(path, evil=np.array([{}], dtype=object))
    with pytest.raises(InvalidProblemError, match="is no measurement"):
        Measurement.load(path)
    np.savez(path, format=np.array(2))
    with pytest.raises(InvalidProblemError, match="this version"):
        Measurement.load(path)
    np.savez(path, format=np.array(1), samples=np.array([3]))
    with pytest.raises(InvalidProblemError, match="weights of the measurement is missing"):
        Measurement.load(path)


def test_arrays_are_checked_and_cannot_be_changed(measurement: Measurement) -> None:
    with pytest.raises(ValueError, match="read-only"):
        measurement.noise[0] = 0.0
    with pytest.raises(InvalidProblemError, match=r"noise has shape \(2,\): must be a scalar or"):
        replace(measurement, noise=np.zeros(2))
    with pytest.raises(InvalidProblemError, match="curvatures of a measurement is not finite at device 1"):
        replace(measurement, curvatures=measurement.curvatures * np.array([1, np.nan, 1])[:, None, None])


WRONG = (
    np.array("text"),
    np.array(["a", "b", "c"]),
    np.array(np.nan),
    np.array([-1.0, np.inf, 0.0]),
    np.zeros((2, 2)),
    np.zeros(0),
    np.array(True),
)


@pytest.mark.parametrize("name", [field.name for field in fields(Measurement)])
def test_a_file_with_one_wrong_value_is_refused_or_read(
    name: str, measurement: Measurement, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    measurement.save(path)
    with np.load(path) as archive:
        content = {key: archive[key] for key in archive.files}
    for value in WRONG:
        np.savez(path, **(content | {name: value}))
        try:
            found = Measurement.load(path)
        except InvalidProblemError:
            continue
        # What is read is whole: everything that is computed from it can be.
        assert len(repr(found) + found._repr_html_()) > 0
        assert found.forecast().devices == len(found)


def test_the_forecast_is_that_of_the_quadratic_model(measurement: Measurement) -> None:
    forecast = measurement.forecast(learning_rate=0.05)
    assert forecast.learning_rate == 0.05
    assert measurement.forecast().learning_rate is None
    problem = Problem(measurement.fleet(), measurement.constants(0.05), Budget())
    few, many = (forecast.value(problem, rounds, 1, 40) for rounds in (1, 20))
    assert 0.0 < many < few < forecast.initial_gap


def test_a_gradient_counts_as_far_as_fresh_rows_confirm_it(measurement: Measurement) -> None:
    # Along each axis: half of it, more than it, the other way, nothing, and all.
    first, fresh = np.array([2.0, -2.0, 2.0, 2.0, 1.0]), np.array([0.5, -8.0, -1.0, 0.0, 1.0])
    known = replace(
        measurement,
        gradients=np.broadcast_to(first, (3, 5)) + np.array([[1.0], [-1.5], [0.0]]),
        fresh_gradient=fresh,
        weights=[0.3, 0.2, 0.5],
        curvatures=[np.diag([5.0, 4.0, 3.0, 2.0, 1.0])] * 3,
    )
    np.testing.assert_allclose(known.confirmed_gradient, [1.0, -2.0, 0.0, 0.0, 1.0], atol=1e-12)
    assert known.confirmed == pytest.approx(
        (1 / 5 + 16 / 4 - 2 / 3 + 1) / (4 / 5 + 4 / 4 + 4 / 3 + 4 / 2 + 1)
    )
    shifted = known.model.gradients - known.gradients
    np.testing.assert_allclose(shifted, np.tile([-1.0, 0.0, -2.0, -2.0, 0.0], (3, 1)), atol=1e-12)


def test_all_rows_confirm_themselves() -> None:
    task = LeastSquares.random([20, 30], 4)
    whole = coopt.measure(task.gradient, np.ones(4), task.clients, rows=30)
    np.testing.assert_allclose(whole.fresh_gradient, whole.gradient, atol=1e-12)
    np.testing.assert_allclose(whole.model.gradients, whole.gradients, atol=1e-12)
    assert whole.confirmed == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_fresh_rows_mend_what_few_rows_promise() -> None:
    task = LeastSquares.random([400] * 4, 8)
    w = np.zeros(8)
    curvature, gradient = (
        np.tensordot(task.weights, task.curvatures(), axes=1),
        task.gradients(w).mean(axis=0),
    )
    true = gradient @ np.linalg.solve(curvature, gradient) / 2
    promised, confirmed = [], []
    for seed in range(20):
        found = coopt.measure(task.gradient, w, task.clients, rows=4, directions=6, seed=seed)
        confirmed.append(found.model.loss.initial_gap)
        promised.append(replace(found, fresh_gradient=found.gradient).model.loss.initial_gap)
    assert np.abs(np.log(confirmed) - np.log(true)).mean() < np.abs(np.log(promised) - np.log(true)).mean()


def test_labels_at_random_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(500, 40)) for _ in range(5)]
    task = LeastSquares([(x, rng.normal(size=500)) for x in features])
    with pytest.warns(coopt.MeasurementWarning, match="fresh rows confirm .*labels at random"):
        coopt.measure(task.gradient, np.zeros(40), task.clients)
    learnable = LeastSquares(
        [(x, x @ np.ones(40) + y) for x, (_, y) in zip(features, task.clients, strict=True)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", coopt.MeasurementWarning)
        coopt.measure(learnable.gradient, np.zeros(40), learnable.clients)


def test_the_fleet_has_what_was_measured_and_what_is_given(measurement: Measurement) -> None:
    fleet = measurement.fleet(throughput=[10.0, 20.0, 30.0], round_time=0.5)
    np.testing.assert_array_equal(fleet.gradient_noise, measurement.noise)
    np.testing.assert_array_equal(fleet.divergence, measurement.divergence)
    assert fleet.names == ("a", "b", "<i>c</i>")
    assert fleet.throughput.tolist() == [10.0, 20.0, 30.0]
    assert measurement.fleet(divergence=1.0).divergence[0] == 1.0


def test_constants_of_a_quadratic_are_its_own() -> None:
    task = LeastSquares.random([200, 300], 4)
    w = np.ones(4)
    found = coopt.measure(task.gradient, w, task.clients, rows=300).constants(0.02)
    curvature = np.tensordot(task.weights, task.curvatures(), axes=1)
    gradient = task.weights @ task.gradients(w)
    gap = gradient @ np.linalg.solve(curvature, gradient) / 2
    largest = np.linalg.eigvalsh(task.curvatures()).max()
    assert found.smoothness == pytest.approx(largest, rel=1e-5)
    assert found.mean_smoothness == pytest.approx(np.linalg.eigvalsh(curvature).max(), rel=1e-5)
    assert found.initial_gap == pytest.approx(gap, rel=1e-3)
    assert found.pl_constant == pytest.approx(gradient @ gradient / 2 / gap, rel=1e-3)
    assert found.curvature_floor == 0.0
    assert found.learning_rate == 0.02


def test_constants_need_a_slope_and_upward_curvature(measurement: Measurement) -> None:
    with pytest.raises(InvalidProblemError, match="gradient is zero"):
        replace(measurement, gradients=0 * measurement.gradients).constants(0.1)
    with pytest.raises(InvalidProblemError, match="rises in no direction"):
        replace(measurement, curvatures=-measurement.curvatures).constants(0.1)


def test_it_is_shown_with_what_it_lacks(measurement: Measurement) -> None:
    assert repr(measurement).endswith("samples, 1 filled in)")
    html = measurement._repr_html_()
    assert "&lt;i&gt;c&lt;/i&gt;" in html
    assert "<i>" not in html
    assert "forward differences" in html


def test_the_picture_of_a_training_has_the_forecast_beside_it(
    measurement: Measurement, tmp_path: Path
) -> None:
    problem = Problem(measurement.fleet(), measurement.constants(0.05), Budget(cost=2000, max_rounds=20))
    plan = evaluate(problem, 20, 2, [4, 4, 4], bound=measurement.forecast())
    for losses in (np.ones(20), np.ones(21)):
        figure = measurement.plot_training(plan, losses)
        forecast, trained = figure.axes[0].get_lines()
        np.testing.assert_array_equal(trained.get_xdata(), np.arange(21)[-losses.size :])
        fallen = forecast.get_ydata()
        assert fallen[0] == pytest.approx(measurement.loss)
        change = measurement.forecast().value(problem, 20, 2, 4) - measurement.forecast().initial_gap
        assert fallen[-1] - fallen[0] == pytest.approx(change)
    figure.savefig(tmp_path / "training.png")
    with pytest.raises(InvalidProblemError, match=r"losses has shape \(5,\): must have \(20,\)"):
        measurement.plot_training(plan, np.ones(5))


def test_the_picture_draws(measurement: Measurement, tmp_path: Path) -> None:
    figure = measurement.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == [
        "How the loss curves",
        "How the devices differ",
    ]
    figure.savefig(tmp_path / "m.png")
    replace(measurement, curvatures=-measurement.curvatures).plot().savefig(tmp_path / "n.png")


def test_rates_of_a_network_do_not_grow_unless_told(measurement: Measurement) -> None:
    assert measurement.convex
    assert measurement.forecast().rate_growth == math.inf
    network = replace(measurement, curvature_kind="gauss-newton")
    assert not network.convex
    assert network.forecast().rate_growth == 1.0
    assert network.forecast(rate_growth=2.0).rate_growth == 2.0
    downwards = replace(measurement, curvatures=-measurement.curvatures)
    assert not downwards.convex
    with pytest.raises(InvalidProblemError, match="rate_growth = 0"):
        network.forecast(rate_growth=0)

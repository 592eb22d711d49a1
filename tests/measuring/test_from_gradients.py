from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coopt
from coopt import InvalidProblemError, Measurement, MeasurementWarning
from measuring.quadratics import LeastSquares, krylov_space

SIZES = [40, 25, 60]


def measure_all_rows(task: LeastSquares, w: np.ndarray, **options: Any) -> Measurement:
    return coopt.measure(task.gradient, w, task.clients, rows=100, **options)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 10), st.integers(1, 12))
def test_quadratics_measured_on_all_rows_are_recovered(seed: int, dimension: int, directions: int) -> None:
    task = LeastSquares.random(SIZES, dimension, seed)
    w = np.random.default_rng(seed).normal(size=dimension)
    found = measure_all_rows(task, w, directions=directions)
    p, gradients, curvatures = task.weights, task.gradients(w), task.curvatures()
    mean, curvature = p @ gradients, np.tensordot(p, curvatures, axes=1)
    size = min(dimension, directions)
    assert found.directions == size
    # The basis is that of the Krylov space up to signs, which the projections tell.
    basis = krylov_space(curvature, mean, size)
    values = np.linalg.eigvalsh(basis @ curvature @ basis.T)[::-1]
    np.testing.assert_allclose(found.spectrum, values, rtol=1e-4, atol=1e-6 * values[0])
    for i in range(len(SIZES)):
        spectrum = np.linalg.eigvalsh(basis @ curvatures[i] @ basis.T)[::-1]
        np.testing.assert_allclose(found.device_spectra[i], spectrum, rtol=1e-4, atol=1e-5 * spectrum[0])
        inside = basis @ gradients[i]
        np.testing.assert_allclose(found.gradients[i] @ found.gradients[i], inside @ inside, rtol=1e-4)
        covariance = basis @ task.covariances(w)[i] @ basis.T
        np.testing.assert_allclose(
            np.linalg.eigvalsh(found.covariances[i]),
            np.linalg.eigvalsh(covariance),
            rtol=1e-4,
            atol=1e-5 * np.trace(covariance),
        )
    np.testing.assert_allclose(found.noise, [np.trace(c) for c in task.covariances(w)], rtol=1e-9)
    np.testing.assert_allclose(found.divergence, np.linalg.norm(gradients - mean, axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.gradient_norm, np.linalg.norm(mean), rtol=1e-9)
    np.testing.assert_allclose(found.loss, p @ [task.gradient(w, c)[0] for c in task.clients])
    assert found.unseen < 1e-9
    assert found.curvature_kind == "gradient differences"


def test_the_forecast_of_the_projected_model_is_what_local_steps_do() -> None:
    """With as many directions as parameters the projected federation trains as the true one."""
    task = LeastSquares.random(SIZES, 6)
    w = np.ones(6)
    found = measure_all_rows(task, w)
    model, projected = np.zeros(6), np.zeros(6)
    for _ in range(5):
        ends = np.array([w + model] * 3)
        for _ in range(4):
            ends = ends - 0.05 * np.array(
                [task.gradient(e, c)[1] for e, c in zip(ends, task.clients, strict=True)]
            )
        model = task.weights @ ends - w
        ends = np.array([projected] * 3)
        for _ in range(4):
            ends = ends - 0.05 * (found.gradients + np.einsum("imn,in->im", found.curvatures, ends))
        projected = found.weights @ ends
    np.testing.assert_allclose(np.linalg.norm(projected), np.linalg.norm(model), rtol=1e-5)
    decrease = found.gradient @ projected + projected @ found.curvature @ projected / 2
    losses = [task.weights @ [task.gradient(v, c)[0] for c in task.clients] for v in (w, w + model)]
    np.testing.assert_allclose(decrease, losses[1] - losses[0], rtol=1e-5)


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_what_sampling_adds_is_subtracted() -> None:
    task = LeastSquares.random([400, 300, 500], 8)
    w = np.zeros(8)
    gradients, noise = task.gradients(w), [np.trace(c) for c in task.covariances(w)]
    mean = task.weights @ gradients
    found = [coopt.measure(task.gradient, w, task.clients, rows=8, directions=2, seed=s) for s in range(200)]
    average = np.mean([m.noise for m in found], axis=0)
    np.testing.assert_allclose(average, noise, rtol=0.05)
    truth = float(task.weights @ np.sum((gradients - mean) ** 2, axis=1))
    # The squares are cut at zero one by one, which the mean over seeds is allowed.
    measured = np.mean([m.weights @ m.divergence**2 for m in found])
    assert 0.95 * truth < measured < 1.15 * truth


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3))
def test_units_of_the_parameters_do_not_matter(seed: int, power: float) -> None:
    task, c = LeastSquares.random(SIZES, 5, seed), 10.0**power
    w = np.random.default_rng(seed).normal(size=5)

    def scaled(v: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        loss, gradient = task.gradient(v / c, batch)
        return loss, gradient / c

    plain = measure_all_rows(task, w, directions=4)
    other = coopt.measure(scaled, c * w, task.clients, rows=100, directions=4)
    np.testing.assert_allclose(other.spectrum, plain.spectrum / c**2, rtol=1e-4)
    np.testing.assert_allclose(other.noise, plain.noise / c**2, rtol=1e-9)
    np.testing.assert_allclose(other.divergence, plain.divergence / c, rtol=1e-9)


def test_single_precision_is_told_and_takes_a_longer_step() -> None:
    task = LeastSquares.random(SIZES, 8)

    def single(w: Any, batch: Any) -> tuple[Any, Any]:
        loss, gradient = task.gradient(np.asarray(w, np.float32), tuple(a.astype(np.float32) for a in batch))
        return np.float32(loss), gradient.astype(np.float32)

    w = np.zeros(8)
    exact = measure_all_rows(task, w)
    for start in (w, w.astype(np.float32)):
        found = coopt.measure(single, start, task.clients, rows=100)
        assert "float32" in found.curvature_reason
        assert found.spectrum[-1] > -1e-3 * found.spectrum[0]
        np.testing.assert_allclose(found.spectrum, exact.spectrum, rtol=1e-2, atol=1e-3 * exact.spectrum[0])


def test_parameters_in_single_precision_are_moved_by_more_than_their_rounding() -> None:
    task = LeastSquares.random(SIZES, 8)
    found = measure_all_rows(task, np.ones(8, np.float32))
    exact = measure_all_rows(task, np.ones(8))
    np.testing.assert_allclose(found.spectrum, exact.spectrum, atol=1e-2 * exact.spectrum[0])


def test_curvature_that_changes_within_the_first_step_is_measured_with_a_shorter_one() -> None:
    rng = np.random.default_rng(0)
    x = 1e5 * rng.normal(size=(50, 4)).astype(np.float32)
    y = np.sign(x @ np.array([1, -1, 2, 0.5], np.float32))

    def logistic(w: Any, rows: np.ndarray) -> tuple[Any, Any]:
        margin = np.clip(y[rows] * (x[rows] @ w.astype(np.float32)), -50, 50)
        pull = -y[rows] / (1 + np.exp(margin))
        gradient = (x[rows] * pull[:, None]).mean(axis=0, dtype=np.float32)
        return np.log1p(np.exp(-margin)).mean(), gradient

    found = coopt.measure(logistic, np.zeros(4), [np.arange(50)], rows=50)
    exact = np.linalg.eigvalsh(x.astype(float).T @ x / 4 / 50)[::-1]
    np.testing.assert_allclose(found.spectrum[: found.directions], exact[: found.directions], rtol=0.02)


def test_it_says_what_it_cost() -> None:
    task, calls = LeastSquares.random([100, 100], 30), 0

    def counting(w: Any, batch: Any) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += len(batch[1])
        return task.gradient(w, batch)

    found = coopt.measure(counting, np.zeros(30), task.clients, rows=10, directions=7)
    assert found.samples_used == calls
    # Rows once for the gradient, once more in the whole basis, once each direction, and three times singly;
    # the first device twice more to see whether calls repeat, and the first step taken again.
    assert calls <= 2 * 10 * (7 + 2 + 3 + 1) + 2 * 10


@pytest.mark.filterwarnings("ignore:.*(lies outside|fresh rows confirm):coopt.MeasurementWarning")
def test_a_small_budget_asks_for_less_and_warns() -> None:
    task = LeastSquares.random([200, 200], 30)
    with pytest.warns(MeasurementWarning, match="more than a twentieth of the budget of 5,000"):
        found = coopt.measure(task.gradient, np.zeros(30), task.clients, samples=5000)
    assert found.samples_used <= 270  # a twentieth, and the two calls that show whether they repeat
    assert (found.rows.max(), found.directions) == (8, 8)
    with pytest.warns(MeasurementWarning, match="still 40%"):
        found = coopt.measure(task.gradient, np.zeros(30), task.clients, samples=100)
    assert (found.rows.max(), found.directions) == (2, 4)


def test_few_rows_one_device_and_more_directions_than_parameters() -> None:
    task = LeastSquares.random([1, 2, 5], 3)
    found = coopt.measure(task.gradient, np.zeros(3), task.clients)
    assert found.rows.tolist() == [1, 2, 5]
    assert found.noise[0] == 0.0
    assert found.directions == 3
    single = coopt.measure(task.gradient, np.zeros(3), task.clients[2:])
    assert len(single) == 1
    assert single.divergence[0] < 1e-12


def test_identical_devices_do_not_diverge() -> None:
    task = LeastSquares.random([30], 4)
    clients = task.clients * 3
    found = coopt.measure(task.gradient, np.zeros(4), clients, rows=30)
    np.testing.assert_allclose(found.divergence, 0.0, atol=1e-6)
    np.testing.assert_allclose(found.curvatures[0], found.curvatures[2], atol=1e-6)


def test_a_zero_averaged_gradient_still_shows_what_devices_do() -> None:
    def gradient(w: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.5 * float(np.mean((w - x) ** 2)), (w - x).mean(axis=0)

    clients = [np.ones((20, 3)), -np.ones((20, 3))]
    found = coopt.measure(gradient, np.zeros(3), clients)
    assert found.directions == 1
    np.testing.assert_allclose(found.gradients[0], -found.gradients[1])
    assert abs(found.gradients[0, 0]) == pytest.approx(np.sqrt(3))
    with pytest.raises(InvalidProblemError, match="gradient is zero on the rows of every device"):
        coopt.measure(gradient, np.ones(3), [np.ones((20, 3))])


def test_a_device_that_is_not_finite_is_named() -> None:
    task = LeastSquares.random(SIZES, 3)
    task.clients[1][1][:] = np.nan
    with pytest.raises(InvalidProblemError, match=r"device 'phone b' has loss = nan on 16 of its rows"):
        coopt.measure(task.gradient, np.zeros(3), task.clients, names=["phone a", "phone b", "phone c"])
    found = coopt.measure(task.gradient, np.zeros(3), task.clients, left_out=[1])
    assert found.measured.tolist() == [True, False, True]


def test_wrong_callbacks_are_told_apart() -> None:
    task = LeastSquares.random(SIZES, 3)
    rng = np.random.default_rng(0)

    def noisy(w: Any, batch: Any) -> tuple[float, np.ndarray]:
        loss, gradient = task.gradient(w, batch)
        return loss, gradient * (1 + 1e-9 * rng.normal())

    def summed(w: Any, batch: Any) -> tuple[float, np.ndarray]:
        loss, gradient = task.gradient(w, batch)
        return loss * len(batch[1]), gradient * len(batch[1])

    with pytest.raises(InvalidProblemError, match="differs between two calls"):
        coopt.measure(noisy, np.zeros(3), task.clients)
    with pytest.raises(InvalidProblemError, match="is not the mean of the gradients on its single rows"):
        coopt.measure(summed, np.zeros(3), task.clients)
    with pytest.raises(InvalidProblemError, match=r"has shape \(2,\): must have \(3,\)"):
        coopt.measure(lambda w, b: (0.0, w[:2]), np.zeros(3), task.clients)
    with pytest.raises(InvalidProblemError, match="device 1 holds no rows"):
        coopt.measure(task.gradient, np.zeros(3), [task.clients[0], (np.zeros((0, 3)), np.zeros(0))])
    with pytest.raises(ZeroDivisionError) as caught:
        coopt.measure(lambda w, b: 1 / 0, np.zeros(3), task.clients)
    assert "device 0" in caught.value.__notes__[0]


def test_devices_left_out_take_the_weighted_mean_of_the_others() -> None:
    task = LeastSquares.random(SIZES, 4)
    found = measure_all_rows(task, np.zeros(4), left_out=[0])
    p = task.weights[1:] / task.weights[1:].sum()
    np.testing.assert_allclose(found.curvatures[0], np.tensordot(p, found.curvatures[1:], axes=1))
    np.testing.assert_allclose(found.noise[0], p @ found.noise[1:])
    assert found.rows[0] == 0
    np.testing.assert_allclose(found.gradient, p @ found.gradients[1:], atol=1e-12)
    assert ", 1 filled in" in repr(found)
    with pytest.raises(InvalidProblemError, match="no device of positive weight"):
        measure_all_rows(task, np.zeros(4), left_out=[0, 1, 2])


def test_thousands_of_devices_are_measured_by_some_of_each_stratum() -> None:
    kinds = LeastSquares.random([50, 50, 50], 4)
    kind = np.arange(2000) % 3
    clients = [kinds.clients[k] for k in kind]
    found = coopt.measure(kinds.gradient, np.zeros(4), clients, rows=50, devices=12, strata=kind.tolist())
    assert found.measured.sum() == 12
    truth = measure_all_rows(kinds, np.zeros(4))
    for i in (0, 1, 2, 1999):
        np.testing.assert_allclose(found.curvatures[i], found.curvatures[i % 3], atol=1e-6)
        np.testing.assert_allclose(found.noise[i], truth.noise[i % 3])
    with pytest.raises(InvalidProblemError, match="at least the 3 strata"):
        coopt.measure(kinds.gradient, np.zeros(4), clients, devices=2, strata=kind.tolist())


@pytest.mark.parametrize(
    ("clients", "options", "message"),
    [
        ([], {}, "clients is empty"),
        ([[np.ones((3, 2)), np.ones(3)]], {}, "device 0 is a list: give an array, a tuple of arrays"),
        ([(np.ones((3, 2)), np.ones(4))], {}, r"the arrays of device 0 have lengths \[3, 4\]"),
        ([7], {}, "device 0 is a int"),
        (None, {"rows": 0}, "rows = 0: must be an integer >= 1"),
        (None, {"directions": 1.5}, "directions = 1.5: must be an integer"),
        (None, {"weights": [0.5, 0.2, 0.2]}, "weights sum to"),
        (None, {"names": ["a"]}, "names has 1 entries"),
        (None, {"seed": -1}, "seed = -1"),
        (None, {"devices": 0}, "devices = 0"),
        (None, {"devices": 2, "strata": ["a"]}, "strata has 1 labels: must have 3"),
        (None, {"devices": 2, "strata": [["a"], ["b"], ["c"]]}, "strata holds what is no label"),
        (None, {"left_out": [3]}, r"left_out = \[3\]: must be indices of devices, 0 to 2"),
        (None, {"left_out": [0.5]}, "left_out"),
    ],
)
def test_bad_arguments_are_named(clients: Any, options: dict[str, Any], message: str) -> None:
    task = LeastSquares.random(SIZES, 2)
    with pytest.raises(InvalidProblemError, match=message):
        coopt.measure(task.gradient, np.zeros(2), task.clients if clients is None else clients, **options)


@pytest.mark.parametrize("parameters", [np.zeros((2, 2)), [], ["a"], [np.nan, 0.0], 1.0])
def test_parameters_must_be_a_flat_vector_of_finite_numbers(parameters: Any) -> None:
    task = LeastSquares.random(SIZES, 2)
    with pytest.raises(InvalidProblemError, match="parameters"):
        coopt.measure(task.gradient, parameters, task.clients)


def test_downward_curvature_is_warned_of() -> None:
    def saddle(w: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.0, np.array([1.0, -1.0]) * w + x.mean(axis=0)

    with pytest.warns(MeasurementWarning, match="curves downwards"):
        coopt.measure(saddle, np.ones(2), [np.random.default_rng(0).normal(size=(40, 2)) * 0.1])


def test_a_gradient_that_few_rows_do_not_show_is_warned_of() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 400))
    truth = np.ones(400)

    def gradient(w: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
        error = x[rows] @ (w - truth)
        return 0.5 * float(np.mean(error**2)), x[rows].T @ error / len(rows)

    with pytest.warns(MeasurementWarning, match="lies outside the 2 directions"):
        coopt.measure(gradient, np.zeros(400), [np.arange(3000)], rows=150, directions=2)


@pytest.mark.filterwarnings("ignore:.*(lies outside|curves downwards):coopt.MeasurementWarning")
def test_gradients_that_jump_within_a_step_are_told_by_products_that_contradict_each_other() -> None:
    rng = np.random.default_rng(0)
    hidden, x = 100, rng.normal(size=(200, 8))
    y = np.sin(3 * x[:, 0])

    def network(kind: type) -> Any:
        def gradient(w: np.ndarray, rows: np.ndarray) -> tuple[Any, np.ndarray]:
            first, last = w[: 8 * hidden].reshape(8, hidden).astype(kind), w[8 * hidden :].astype(kind)
            before = x[rows].astype(kind) @ first
            after = np.maximum(before, 0)
            error = after @ last - y[rows].astype(kind)
            back = np.outer(error, last) * (before > 0)
            pieces = [(x[rows].astype(kind).T @ back).ravel(), after.T @ error]
            return np.mean(error**2) / 2, (np.concatenate(pieces) / len(rows)).astype(kind)

        return gradient

    w = 0.3 * rng.normal(size=9 * hidden)
    clients = [np.arange(100), np.arange(100, 200)]
    with pytest.warns(MeasurementWarning, match="products with the curvature contradict each other by"):
        found = coopt.measure(network(np.float32), w, clients, rows=32)
    assert found.sample_curvature is None
    assert coopt.measure(network(np.float64), w, clients, rows=32).sample_curvature > 0.0


def test_the_curvature_of_single_rows_of_least_squares_is_the_square_of_their_features() -> None:
    task = LeastSquares.random([30, 20], 4)
    found = measure_all_rows(task, np.zeros(4))
    squares = [np.sum(x**2, axis=1) for x, _ in task.clients]
    mean = sum(p * np.mean(c) for p, c in zip(task.weights, squares, strict=True))
    square = sum(p * np.mean(c**2) for p, c in zip(task.weights, squares, strict=True))
    assert found.sample_curvature == pytest.approx(square / mean, rel=1e-5)
    assert found.model.sample_curvature == found.sample_curvature
    each = [np.mean(c**2) / np.mean(c) for c in squares]
    np.testing.assert_allclose(found.model.single, each, rtol=1e-5)


def test_seeds_choose_the_rows_and_nothing_else_is_random() -> None:
    task = LeastSquares.random([200, 300], 6)
    found = [coopt.measure(task.gradient, np.zeros(6), task.clients, seed=s) for s in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0].model.digest == found[1].model.digest != found[2].model.digest


def test_a_progress_bar_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    task = LeastSquares.random(SIZES, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coopt.measure(task.gradient, np.zeros(3), task.clients)
    assert capsys.readouterr().err == ""
    coopt.measure(task.gradient, np.zeros(3), task.clients, progress=True)
    assert "measuring" in capsys.readouterr().err


def test_what_is_no_gradient_function_no_clients_or_no_field_is_named():
    clients = [np.ones((4, 2)), np.zeros((4, 2))]
    with pytest.raises(InvalidProblemError, match=r"gradient of device 0 gives ndarray: must be a tuple"):
        coopt.measure(lambda w, x: w, np.zeros(2), clients)
    with pytest.raises(InvalidProblemError, match=r"clients = None: must be a sequence"):
        coopt.measure(lambda w, x: (0.0, w), np.zeros(2), None)
    measurement = coopt.measure(lambda w, x: (0.5 * float(w @ w), w + x.mean(axis=0)), np.ones(2), clients)
    with pytest.raises(InvalidProblemError, match=r"'througput' is unknown: did you mean 'throughput'"):
        measurement.fleet(througput=3.0)

"""The forecast: exact on quadratics, affine in 1 / s, and what it says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Fleet, Forecast, InvalidProblemError, LocalModel, Problem
from coopt.objectives.forecast.round_map import packed_places
from quadratics import at_fifty_digits, problem_of, random_model, simulated

RUNS = 10_000
plans = st.tuples(st.integers(1, 30), st.integers(1, 12))
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(
    "drawn",
    [
        Budget(),
        Budget(participants=2),
        Budget(participants=7),
        Budget(participants=2, distinct_participants=True),
        Budget(participants=4, distinct_participants=True),
    ],
    ids=["all", "two", "seven", "two distinct", "all distinct"],
)
def test_it_is_the_mean_of_many_runs(drawn: Budget, replacement: bool) -> None:
    model = random_model(3, 4, 3, unlike=0.5, noise=4.0)
    weights = np.full(4, 0.25) if drawn.distinct_participants else None
    problem = problem_of(model, drawn, weights=weights, replacement=replacement)
    forecast, batches = Forecast(model), np.array([1, 2, 5, 20])
    for k, tau in ((1, 1), (3, 6), (12, 2)):
        mean, error = simulated(forecast, problem, (k, tau, batches), RUNS, seed=17)
        assert forecast.value(problem, k, tau, batches) == pytest.approx(mean, abs=4.5 * error)


def test_drawing_some_devices_matters_where_they_pull_apart() -> None:
    model = random_model(3, 4, 3)
    values = [
        Forecast(model).value(problem_of(model, budget, weights=np.full(4, 0.25)), 10, 5, 10)
        for budget in (
            Budget(),
            Budget(participants=4, distinct_participants=True),
            Budget(participants=2, distinct_participants=True),
            Budget(participants=2),
        )
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-12)
    assert values[0] < values[2] < values[3]


@pytest.mark.parametrize("rate", [1e-9, 1e-4, 0.3, 1.9])
@pytest.mark.parametrize("replacement", [True, False])
def test_it_agrees_with_fifty_digits(rate: float, replacement: bool) -> None:
    model = random_model(5, 3, 3)
    problem = problem_of(model, Budget(), rate, replacement=replacement)
    for k, tau in ((1, 1), (1, 9), (40, 1), (25, 6)):
        offset, weights = Forecast(model).coefficients(problem, k, tau)
        wanted, wanted_weights = at_fifty_digits(model, problem, k, tau)
        assert offset == pytest.approx(float(wanted), rel=1e-10)
        np.testing.assert_allclose(weights, [float(w) for w in wanted_weights], rtol=1e-11)


def test_without_drift_it_stays_exact_far_below_the_initial_gap() -> None:
    one = random_model(8, 1, 4)
    twice = [np.repeat(x, 2, axis=0) for x in (one.gradients, one.curvatures, one.covariances)]
    model = LocalModel([0.5, 0.5], *twice, [50, 50])
    problem = problem_of(model, Budget(), 1.0)
    offset, _ = Forecast(model).coefficients(problem, 60, 60)
    wanted, _ = at_fifty_digits(model, problem, 60, 60)
    assert offset < 1e-12 * Forecast(model).initial_gap
    assert offset == pytest.approx(float(wanted), rel=1e-6)


@given(seeds, plans, st.booleans(), st.sampled_from([None, 1, 3]))
@settings(max_examples=40, deadline=None)
def test_it_is_affine_with_nonnegative_weights(seed, plan, replacement, participants) -> None:
    model = random_model(seed, 3, 4)
    problem = problem_of(model, Budget(participants=participants), replacement=replacement)
    forecast = Forecast(model)
    offset, weights = forecast.coefficients(problem, *plan)
    assert (weights >= 0.0).all()
    batches = np.random.default_rng(seed).integers(1, model.samples + 1)
    value = forecast.value(problem, *plan, batches)
    assert value == pytest.approx(offset + weights @ (1.0 / batches), rel=1e-9)
    assert value >= 0.0


@given(seeds, plans, st.sampled_from([None, 2]))
@settings(max_examples=40, deadline=None)
def test_noise_never_falls_with_rounds_and_in_part_with_steps(seed, plan, participants) -> None:
    model = random_model(seed, 3, 4)
    problem = problem_of(model, Budget(participants=participants))
    federation, (k, tau) = Forecast(model).federation(problem), plan
    now = federation.weights(np.array([k, k + 1, 2 * k]), tau)
    assert (np.diff(now, axis=1) >= -1e-12 * now[:, :1]).all()
    for fewer in range(1, tau):
        less = federation.weights(np.array([k]), tau, noise_of=fewer)
        assert (less[:, 0] <= now[:, 0] * (1.0 + 1e-12)).all()


@given(seeds, st.integers(1, 60), st.integers(0, 40), st.sampled_from([0.05, 1.0, 1.9]))
@settings(max_examples=40, deadline=None)
def test_ranges_of_steps_bound_the_mean_from_below(seed, first, more, rate) -> None:
    model = random_model(seed, 3, 4)
    federation = Forecast(model).federation(problem_of(model, Budget(), rate))
    bounds = federation.least(8, first, first + more)
    forever = federation.least(8, first, np.inf)
    for tau in {first, first + more // 2, first + more}:
        means = federation.mean(np.arange(1, 9), tau)
        assert (np.maximum(bounds, forever) <= means * (1.0 + 1e-9) + 1e-12).all()
    if rate <= 1.0:
        # Where no component changes its sign, one number of steps is no range.
        exact = federation.least(3, first, first)
        np.testing.assert_allclose(exact, federation.mean(np.arange(1, 4), first), rtol=1e-6, atol=1e-9)


def test_a_bound_over_a_wider_range_of_steps_may_be_the_larger_one() -> None:
    """The boxes are nested, but the tangents lie at their middles, and are not: both bounds hold."""
    model = random_model(281, 3, 4)
    federation = Forecast(model).federation(problem_of(model, Budget(), 1.9))
    bounds, forever = federation.least(8, 1, 24), federation.least(8, 1, np.inf)
    assert forever[5] > bounds[5]
    for tau in range(1, 25):
        means = federation.mean(np.arange(1, 9), tau)
        assert (np.maximum(bounds, forever) <= means * (1.0 + 1e-9) + 1e-12).all()


@given(seeds, plans)
@settings(max_examples=25, deadline=None)
def test_the_order_of_devices_and_directions_does_not_matter(seed, plan) -> None:
    model = random_model(seed, 4, 3)
    rng = np.random.default_rng(seed)
    order, turn = rng.permutation(4), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    other = LocalModel(
        model.weights[order],
        model.gradients[order] @ turn,
        turn.T @ model.curvatures[order] @ turn,
        turn.T @ model.covariances[order] @ turn,
        model.samples[order],
    )
    offset, weights = Forecast(model).coefficients(problem_of(model, Budget()), *plan)
    turned, permuted = Forecast(other).coefficients(problem_of(other, Budget()), *plan)
    assert turned == pytest.approx(offset, rel=1e-8)
    np.testing.assert_allclose(permuted, weights[order], rtol=1e-8)


@given(seeds, plans, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
@settings(max_examples=25, deadline=None)
def test_units_of_loss_and_model_do_not_matter(seed, plan, loss, length) -> None:
    model = random_model(seed, 2, 3)
    slope, bend = loss / length, loss / length**2
    other = LocalModel(
        model.weights,
        model.gradients * slope,
        model.curvatures * bend,
        model.covariances * slope**2,
        model.samples,
    )
    value = Forecast(model).value(problem_of(model, Budget(), 0.5), *plan, 3)
    scaled = Forecast(other).value(problem_of(other, Budget(), 0.5 / bend), *plan, 3)
    assert scaled == pytest.approx(loss * value, rel=1e-9)


def test_overestimated_curvature_of_one_device_does_not_explode() -> None:
    model = LocalModel([0.1, 0.9], [[1.0], [1.0]], [[[20.0]], [[0.1]]], [[[0.1]], [[0.1]]], [10, 90])
    problem = problem_of(model, Budget(), 0.5)
    assert Forecast(model).value(problem, 50, 100, 4) < 1e3


def test_negative_curvature_counts_as_none() -> None:
    flat = LocalModel([1.0], [[1.0, 1.0]], [np.diag([1.0, 0.0])], [np.eye(2)], [10])
    bent = LocalModel([1.0], [[1.0, 1.0]], [np.diag([1.0, -0.5])], [np.eye(2)], [10])
    problem = problem_of(flat, Budget(), 0.5)
    assert Forecast(bent).value(problem, 9, 3, 2) == Forecast(flat).value(problem, 9, 3, 2)
    # Along a direction without curvature there is no lowest value: the loss falls for ever.
    assert Forecast(flat).floor == pytest.approx(1e-4)
    assert Forecast(flat).value(problem, 900, 3, 2) < 0.0


@pytest.mark.parametrize("seed", range(6))
def test_rounding_along_a_flat_direction_is_no_slope(seed: int) -> None:
    """Nothing falls along it; what eigenvalue routines leave there, 1e-17 or zero, must not decide."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    curvature = axes @ np.diag([1.0, 0.5, 0.2, 0.0]) @ axes.T
    curvature = 0.5 * (curvature + curvature.T)
    gradients = rng.normal(size=(3, 4)) @ curvature
    model = LocalModel(np.full(3, 1 / 3), gradients, [curvature] * 3, [np.eye(4)] * 3, [10, 10, 10])
    assert not model.loss.slope.any()
    assert model.loss.lowest == 0.0


def test_the_curve_starts_at_the_initial_gap_and_ends_at_the_value() -> None:
    model = random_model(1, 3, 4)
    problem = problem_of(model, Budget(cost=1e6), replacement=False)

    class Given:
        rounds, local_steps, batch_sizes = 7, 3, np.array([2, 3, 4])

    plan = Given()
    plan.problem = problem
    forecast = Forecast(model)
    curve = forecast.curve(plan)
    assert curve.shape == (8,)
    assert curve[0] == forecast.initial_gap
    for k in (1, 4, 7):
        assert curve[k] == pytest.approx(forecast.value(problem, k, 3, plan.batch_sizes), rel=1e-12)


def test_devices_that_never_train_still_count_in_the_loss() -> None:
    model = random_model(2, 4, 3)
    forecast = Forecast(model)
    rest = forecast.restricted([3, 0])
    shares = model.samples[[3, 0]] / model.samples[[3, 0]].sum()
    fleet = Fleet(model.samples[[3, 0]], 1.0, 1.0)
    np.testing.assert_allclose(fleet.weights, shares)
    problem = Problem(fleet, problem_of(model, Budget()).constants, Budget())
    # As if the others were averaged with no weight.
    weights = np.zeros(4)
    weights[[3, 0]] = shares
    whole = problem_of(model, Budget(), weights=weights)
    value = forecast.value(whole, 5, 4, [7, 1, 1, 6])
    assert rest.value(problem, 5, 4, [6, 7]) == pytest.approx(value, rel=1e-10)
    assert rest.restricted([1]).trained == (0,)
    assert rest.initial_gap == forecast.initial_gap
    with pytest.raises(InvalidProblemError, match="devices = 2: must be below 2"):
        rest.restricted([2])


def test_its_own_learning_rate_comes_before_that_of_the_problem() -> None:
    model = random_model(2, 2, 3)
    slow, fast = problem_of(model, Budget(), 0.1), problem_of(model, Budget(), 0.9)
    forecast = Forecast(model, learning_rate=0.9)
    assert forecast.value(slow, 3, 3, 3) == Forecast(model).value(fast, 3, 3, 3)
    assert forecast.with_learning_rate(None) == Forecast(model)


def test_what_it_refuses() -> None:
    model = random_model(2, 2, 3)
    forecast = Forecast(model)
    with pytest.raises(InvalidProblemError, match="3 devices, and the forecast was measured for 2"):
        forecast.value(problem_of(random_model(1, 3, 3), Budget()), 1, 1, 1)
    with pytest.raises(InvalidProblemError, match="training is unstable from"):
        forecast.value(problem_of(model, Budget(), 1.01 * forecast.largest_rate), 1, 1, 1)
    good = [model.weights, model.gradients, model.curvatures, model.covariances, model.samples]
    for place, bad, message in (
        (0, [0.5, 0.6], "weights sum to 1.1"),
        (1, [[1.0, np.nan, 0.0]] * 2, r"gradients\[0, 1\] = nan|gradients\[0, 1\] = np.float64\(nan\)"),
        (1, [[1.0]], r"gradients has shape \(1, 1\): must have shape \(2, m\)"),
        (2, np.zeros((2, 3, 2)), r"curvatures has shape \(2, 3, 2\)"),
        (3, [np.triu(np.ones((3, 3)))] * 2, r"covariances\[0\] differs from its transpose"),
        (4, [1, 0], r"samples\[1\] = 0"),
    ):
        with pytest.raises(InvalidProblemError, match=message):
            LocalModel(*[bad if i == place else value for i, value in enumerate(good)])


def test_models_compare_by_value_and_tell_themselves_apart() -> None:
    one, same, other = random_model(1, 2, 3), random_model(1, 2, 3), random_model(2, 2, 3)
    assert one == same and one != other
    assert one.digest == same.digest != other.digest
    assert Forecast(one) == Forecast(same) != Forecast(other)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    assert repr(one) == "LocalModel(2 devices, 3 directions)"


def test_packed_matrices_have_the_product_of_whole_ones() -> None:
    rng = np.random.default_rng(0)
    a, b = (x + x.T for x in rng.normal(size=(2, 5, 5)))
    rows, columns, often = packed_places(5)
    assert a[rows, columns] @ (b[rows, columns] * often) == pytest.approx(np.sum(a * b))

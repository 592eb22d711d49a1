"""The solver for forecasts: as good as trying everything, and honest about what it proved."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Forecast,
    InfeasibleError,
    LocalModel,
    Optimiser,
    Problem,
    ServerSGD,
    solve_schedule,
)
from coopt.objectives.forecast.batch_floor import smallest_batch
from coopt.objectives.forecast.optimiser import AVERAGING
from coopt.solvers.contract import Found
from coopt.solvers.forecast import search as module
from coopt.solvers.forecast.priced import lower_bounds
from coopt.solvers.forecast.rates import at, best_rate, floors
from coopt.solvers.forecast.search import search
from coopt.solvers.forecast.smallest import Smallest, stable
from coopt.solvers.ranges import Ranges, feasible_ranges
from quadratics import problem_of, random_model

seeds = st.integers(0, 2**32 - 1)
MOST_ROUNDS, MOST_STEPS = 9, 7


MOMENTA = (
    Optimiser(ClientSGD(0.9)),
    Optimiser(server=ServerSGD(0.5, 0.9)),
    Optimiser(ClientSGD(0.5), ServerSGD(1.2, 0.7, nesterov=True)),
    Optimiser(ClientAdam(0.7)),
)


def instance(seed: int, how: Optimiser = AVERAGING, **chosen: object) -> tuple[Problem, Forecast]:
    """A problem small enough to try all of its plans, with limits that matter."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    model = random_model(seed, n, 3, unlike=rng.choice([0.0, 0.3, 1.0]), noise=10.0 ** rng.uniform(-2, 2))
    batch = int(rng.integers(3, 8))
    fleet = {
        "max_batch": np.minimum(batch, model.samples),
        "sample_cost": rng.integers(1, 4, n).astype(float) if rng.random() < 0.5 else 1.0,
        "throughput": rng.uniform(1.0, 10.0, n),
        "round_time": rng.uniform(0.0, 1.0, n),
        "replacement": bool(rng.random() < 0.7),
        "batch_multiple": int(rng.choice([1, 1, 2])),
        "sample_energy": rng.uniform(0.1, 2.0, n),
        "step_time": rng.choice([0.0, 0.3]),
        "step_cost": rng.choice([0.0, 0.5]),
    }
    if seed % 2 and not isinstance(how.client, ClientAdam):
        fleet["step_noise"] = rng.choice([0.0, 0.3, 3.0], n)
    drawn = int(rng.integers(1, 4)) if rng.random() < 0.2 else None
    budget = Budget(
        cost=float(rng.uniform(20.0, 400.0)),
        time=float(rng.uniform(5.0, 60.0)) if rng.random() < 0.5 else math.inf,
        round_cost=float(rng.choice([0.0, 3.0])),
        max_rounds=MOST_ROUNDS,
        max_local_steps=MOST_STEPS,
        participants=drawn,
        energy=float(rng.uniform(20.0, 400.0)) if rng.random() < 0.3 else math.inf,
    )
    problem = problem_of(model, replace(budget, **chosen), rate=rng.choice([0.2, 0.7, 1.5]), **fleet)
    return problem, Forecast(model, optimiser=how)


def every_plan(problem: Problem, forecast: Forecast) -> float:
    """The smallest forecast of all plans that keep training stable, or of all, tried one by one."""
    least, _ = problem.fleet.batch_range()
    smallest, best = stable(problem, forecast), math.inf
    for floor in (smallest, lambda _: least):
        if best == math.inf:
            best = smallest_forecast(problem, forecast, floor)
    return best


def smallest_forecast(problem: Problem, forecast: Forecast, floor: Smallest) -> float:
    """The same, of all plans whose batches are not below some floor."""
    least, most = problem.fleet.batch_range()
    ranges = zip(least.tolist(), most.tolist(), problem.fleet.batch_multiple.tolist(), strict=True)
    batches = np.array(list(itertools.product(*(range(a, b + 1, step) for a, b, step in ranges))))
    best = math.inf
    for k in range(1, MOST_ROUNDS + 1):
        for tau in range(1, MOST_STEPS + 1):
            own = floor(tau)
            if own is None:
                continue
            offset, weights = forecast.coefficients(problem, k, tau)
            values = offset + (weights / batches).sum(axis=1)
            values[(batches < own).any(axis=1)] = math.inf
            for place in np.argsort(values):
                if values[place] >= best:
                    break
                if not problem.violations(k, tau, batches[place]):
                    best = float(values[place])
                    break
    return best


def solved(problem: Problem, forecast: Forecast, tolerance: float = 0.0, **options: object) -> Found:
    ranges = feasible_ranges(problem, None, None)
    return search(problem, forecast, ranges, tolerance, options.pop("seconds", None), **options)


@given(seeds, st.sampled_from([AVERAGING, AVERAGING, *MOMENTA]))
@settings(max_examples=60, deadline=None)
def test_it_is_as_good_as_trying_every_plan(seed: int, how: Optimiser) -> None:
    problem, forecast = instance(seed, how)
    wanted = every_plan(problem, forecast)
    if wanted == math.inf:
        with pytest.raises(InfeasibleError):
            solved(problem, forecast)
        return
    found = solved(problem, forecast)
    best = found.best
    assert best.value == pytest.approx(wanted, rel=1e-9)
    assert found.finished
    assert found.lower_bound <= best.value
    assert found.lower_bound == pytest.approx(wanted, rel=1e-9)
    assert not problem.violations(best.rounds, best.local_steps, best.batch_sizes)
    value = forecast.value(problem, best.rounds, best.local_steps, best.batch_sizes)
    assert best.value == pytest.approx(value, rel=1e-12)


@given(seeds, st.sampled_from([0.0, 1e-3, 0.1]), st.sampled_from([0.0, None]))
@settings(max_examples=25, deadline=None)
def test_its_gap_is_honest(seed: int, tolerance: float, seconds: float | None) -> None:
    how = (AVERAGING, *MOMENTA)[seed % 5]
    problem, forecast = instance(seed, how, time=math.inf, energy=math.inf, cost=300.0)
    found = solved(problem, forecast, tolerance, seconds=seconds)
    exact = solved(problem, forecast)
    assert found.lower_bound <= exact.best.value * (1.0 + 1e-9)
    assert found.best.value >= exact.best.value * (1.0 - 1e-9)
    if seconds is None:
        assert found.lower_bound >= found.best.value * (1.0 - max(tolerance, 1e-9) - 1e-9)
    else:
        assert not found.finished


@given(seeds, st.floats(1.0, 3.0))
@settings(max_examples=25, deadline=None)
def test_more_budget_is_never_worse(seed: int, factor: float) -> None:
    problem, forecast = instance(seed, cost=100.0, time=math.inf, energy=math.inf)
    more = replace(problem, budget=replace(problem.budget, cost=100.0 * factor))
    before, after = solved(problem, forecast), solved(more, forecast)
    assert after.best.value <= before.best.value * (1.0 + 1e-9)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_devices_does_not_matter(seed: int) -> None:
    model = random_model(seed, 4, 3)
    order = np.random.default_rng(seed).permutation(4)
    other = LocalModel(
        model.weights[order],
        model.gradients[order],
        model.curvatures[order],
        model.covariances[order],
        model.samples[order],
    )
    budget = Budget(cost=900.0, max_local_steps=20)
    one, two = (solved(problem_of(m, budget), Forecast(m)) for m in (model, other))
    assert two.best.value == pytest.approx(one.best.value, rel=1e-9)


@given(seeds, st.integers(1, 6), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_prices_bound_whole_units_from_below(seed: int, n: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    gains = np.where(rng.random((n, columns)) < 0.2, 0.0, 10.0 ** rng.uniform(-6, 6, (n, columns)))
    costs = np.where(rng.random((n, 1)) < 0.2, 0.0, 10.0 ** rng.uniform(-1, 1, (n, 1)))
    least, most = np.full((n, 1), 1.0), rng.integers(1, 5, (n, columns)).astype(float)
    budgets = (costs * least).sum(axis=0) + 10.0 ** rng.uniform(-2, 2, columns)
    budgets[rng.random(columns) < 0.2] = math.inf
    bounds = lower_bounds(gains, costs, budgets, least, most)
    for j in range(columns):
        options = itertools.product(*(range(1, int(u) + 1) for u in most[:, j]))
        values = [
            float(np.sum(gains[:, j] / np.array(units)))
            for units in options
            if float(np.sum(costs[:, 0] * np.array(units))) <= budgets[j]
        ]
        assert bounds[j] <= min(values) * (1.0 + 1e-12)
        # Without a limit the bound is the optimum.
        if budgets[j] == math.inf:
            assert bounds[j] == pytest.approx(min(values), rel=1e-12)


@given(seeds, st.integers(1, 200), st.integers(0, 300), st.sampled_from([0.05, 1.0, 1.9]))
@settings(max_examples=60, deadline=None)
def test_ranges_of_rounds_are_bounded_from_below(seed: int, first: int, length: int, rate: float) -> None:
    model = random_model(seed, 3, 4)
    federation = Forecast(model).federation(problem_of(model, Budget(), rate))
    swinging = Forecast(model, optimiser=MOMENTA[2]).federation(problem_of(model, Budget(), rate / 4))
    for tau, own in itertools.product((1, 2, 9), (federation, swinging)):
        rounds = own.rounds(tau)
        bound = rounds.least(np.array([first]), np.array([first + length]))[0]
        values = rounds.mean(np.arange(first, first + length + 1))
        assert bound <= values.min() + 1e-12 * values.max()


def test_many_rounds_are_looked_at_in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(4, 2, 3, noise=0.01)
    problem = problem_of(model, Budget(cost=3000.0, max_local_steps=4), 0.3)
    whole = solved(problem, Forecast(model))
    monkeypatch.setattr(module, "SINGLE_ROUNDS", 8)
    parts = solved(problem, Forecast(model))
    assert parts.trace["boxes"] > 0 == whole.trace["boxes"]
    assert parts.best.value == pytest.approx(whole.best.value, rel=1e-12)
    assert parts.lower_bound == pytest.approx(whole.lower_bound, rel=1e-9)


@pytest.mark.parametrize(
    "budget", [Budget(participants=2), Budget(participants=2, distinct_participants=True)]
)
def test_drawing_devices_changes_the_plan(budget: Budget) -> None:
    model = random_model(6, 4, 3)
    some = replace(budget, cost=2000.0, max_local_steps=30)
    problem = problem_of(model, some, weights=np.full(4, 0.25))
    found = solved(problem, Forecast(model), 1e-9)
    everyone = solved(
        problem_of(model, Budget(cost=2000.0, max_local_steps=30), weights=np.full(4, 0.25)),
        Forecast(model),
        1e-9,
    )
    # Devices that pull apart had better not run far alone where few of them are drawn.
    assert found.best.local_steps < everyone.best.local_steps or found.best.rounds > everyone.best.rounds
    assert found.lower_bound == pytest.approx(found.best.value, rel=1e-8)


def test_fixed_rounds_and_steps_are_kept() -> None:
    model = random_model(7, 3, 3)
    problem = problem_of(model, Budget(cost=900.0))
    for k, tau in ((5, None), (None, 4), (6, 7)):
        ranges: Ranges = feasible_ranges(problem, k, tau)
        best = search(problem, Forecast(model), ranges, 0.0, None).best
        assert best.rounds == k or k is None
        assert best.local_steps == tau or tau is None


def test_a_start_that_is_better_is_kept() -> None:
    model = random_model(7, 3, 3)
    problem = problem_of(model, Budget(cost=900.0))
    best = solved(problem, Forecast(model)).best
    start = (best.rounds, best.local_steps, best.batch_sizes)
    again = solved(problem, Forecast(model), seconds=0.0, start=start)
    assert again.best.value <= best.value


def test_two_plans_of_the_same_value_go_to_fewer_rounds() -> None:
    # Without noise and with one device, K rounds of tau steps are one round of K tau.
    model = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[0.0]]], [50])
    problem = problem_of(model, Budget(max_rounds=6, max_local_steps=6), 0.1)
    best = solved(problem, Forecast(model)).best
    assert (best.rounds, best.local_steps) == (6, 6)
    stopped = problem_of(model, Budget(cost=12.0, max_rounds=12, max_local_steps=12), 0.1)
    found = solved(stopped, Forecast(model)).best
    assert found.rounds * found.local_steps == 12


def test_momentum_asks_for_the_batch_of_the_rate_that_it_comes_to() -> None:
    model, shares = random_model(3, 4, 3), np.full(4, 0.25)
    rate = 0.1 / model.loss.largest
    heavy = Optimiser(ClientSGD(0.9)).linear
    assert heavy.reach(1) == 1.0
    assert smallest_batch(model, shares, rate, 200, heavy) == smallest_batch(model, shares, 10 * rate, 200)
    fed = Optimiser(server=ServerSGD(0.5, 0.9)).linear
    assert smallest_batch(model, shares, rate, 1, fed) == smallest_batch(model, shares, 5 * rate, 1)
    assert smallest_batch(model, shares, 19 * rate, 1, fed) == smallest_batch(model, shares, 19 * rate, 1)


@pytest.mark.parametrize("local_steps", [1, 2, 30])
def test_a_learning_rate_asks_for_a_batch(local_steps: int) -> None:
    model = random_model(3, 4, 3)
    largest = 1.9 / model.loss.largest
    shares = np.full(4, 0.25)
    sizes = [smallest_batch(model, shares, largest / 2**j, local_steps) for j in range(8)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1 == sizes[-1]
    # One curvature for all samples: batches see what the average has.
    alike = LocalModel([1.0], [[1.0]], [[[2.0]]], [[[1.0]]], [100], sample_curvature=2.0)
    assert smallest_batch(alike, np.ones(1), 0.9, local_steps) == 1


def test_the_batch_of_a_rate_keeps_half_of_the_contraction() -> None:
    # One direction: the square of the error is multiplied by a^2 + eta^2 lambda (beta - lambda) / s a step.
    model = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[1.0]]], [10_000], sample_curvature=30.0)
    for rate in (1.9, 1.0, 0.1):
        for tau in (1, 5, 40):
            s = smallest_batch(model, np.ones(1), rate, tau)
            a = (1.0 - rate) ** 2
            for size, enough in ((s, True), (s - 1, False)):
                if size > 0:
                    kept = (a + rate**2 * 29.0 / size) ** tau
                    assert (1.0 - kept >= 0.5 * (1.0 - a**tau) * (1.0 - 1e-9)) == enough


@pytest.mark.parametrize("growth", [0.5, 1.0, 1.5, math.inf])
def test_no_rate_is_chosen_that_grows_too_much(growth: float) -> None:
    model = random_model(9, 4, 4, unlike=0.3, noise=3.0)
    usual = 0.02 / model.loss.largest
    problem = problem_of(model, Budget(cost=2000.0, round_cost=20.0), usual)
    forecast = Forecast(model, rate_growth=growth)
    assert forecast.largest_choice(problem) == min(growth * usual, 0.95 * forecast.largest_rate)
    one = best_rate(problem, forecast, feasible_ranges(problem, None, None), 1e-3, None)
    two = solve_schedule(problem, forecast, phases=2, learning_rate="auto")
    rates = [one.best.learning_rate, *(phase.learning_rate for phase in two.phases)]
    assert max(rates) <= forecast.largest_choice(problem) * (1.0 + 1e-12)
    # The limit is one: without it the rate would be larger.
    assert (one.best.learning_rate > 1.5 * usual) == (growth == math.inf)


def test_the_best_rate_is_no_worse_than_any_of_a_grid() -> None:
    model = random_model(9, 4, 4, unlike=0.3, noise=3.0)
    problem, forecast = problem_of(model, Budget(cost=2000.0, round_cost=20.0)), Forecast(model)
    ranges = feasible_ranges(problem, None, None)
    chosen = best_rate(problem, forecast, ranges, 1e-6, None)
    assert 0.0 < chosen.best.learning_rate <= 0.95 * forecast.largest_rate * (1.0 + 1e-12)
    for share in (0.9, 0.5, 0.2, 0.05, 0.02):
        other = at(problem, share * forecast.largest_rate)
        own = forecast.with_learning_rate(None)
        found = search(other, own, ranges, 1e-6, None, smallest=floors(other, own))
        assert chosen.best.value <= found.best.value * (1.0 + 1e-3)
    smallest = floors(at(problem, chosen.best.learning_rate), forecast)(chosen.best.local_steps)
    assert (chosen.best.batch_sizes >= smallest).all()

"""The search for schedules: next to trying everything, within all limits, never worse with more phases."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from coopt import Budget, ClientSGD, Forecast, Optimiser, Problem, ServerSGD, solve_schedule
from coopt.objectives.forecast.phases import Phases, Setting
from coopt.problem.limits import within
from coopt.solvers.forecast.rates import at, floors
from coopt.solvers.schedule.batches import Batches
from coopt.solvers.schedule.round_times import RoundTimes
from quadratics import problem_of, random_model

seeds = st.integers(0, 2**32 - 1)
MOST_ROUNDS, MOST_STEPS, MOST_BATCH = 5, 3, 4


def instance(seed: int, **chosen: object) -> tuple[Problem, Forecast]:
    """A problem of one or two devices with few plans, and limits that matter."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 3))
    model = random_model(seed, n, 3, unlike=rng.choice([0.0, 0.3, 1.0]), noise=10.0 ** rng.uniform(-1, 2))
    fleet = {
        "max_batch": np.minimum(MOST_BATCH, model.samples),
        "sample_cost": rng.integers(1, 4, n).astype(float) if rng.random() < 0.5 else 1.0,
        "throughput": rng.uniform(1.0, 10.0, n),
        "round_time": rng.uniform(0.0, 1.0, n),
        "step_time": rng.uniform(0.0, 0.2, n),
        "replacement": bool(rng.random() < 0.7),
        "sample_energy": rng.uniform(0.1, 2.0, n),
    }
    budget = Budget(
        cost=float(rng.uniform(10.0, 60.0) * n),
        time=float(rng.uniform(4.0, 20.0)) if rng.random() < 0.5 else math.inf,
        round_cost=float(rng.choice([0.0, 2.0])),
        max_rounds=MOST_ROUNDS,
        max_local_steps=MOST_STEPS,
        energy=float(rng.uniform(10.0, 60.0)) if rng.random() < 0.3 else math.inf,
    )
    problem = problem_of(model, replace(budget, **chosen), rate=rng.choice([0.2, 0.7, 1.5]), **fleet)
    return problem, Forecast(model)


def used(problem: Problem, several, batches) -> tuple[float, float, float]:
    """Cost, time and energy of all phases."""
    each = [(s.rounds, s.local_steps, b) for s, b in zip(several, batches, strict=True)]
    return tuple(sum(of(*one) for one in each) for of in (problem.cost, problem.time, problem.energy))


def every_pair(problem: Problem, forecast: Forecast) -> float:
    """The smallest forecast of all plans of two phases, tried one by one."""
    n, rate = len(problem.fleet), problem.constants.learning_rate
    phases, budget = Phases(forecast, problem), problem.budget
    batches = np.array(list(itertools.product(range(1, MOST_BATCH + 1), repeat=2 * n))).reshape(-1, 2, n)
    best = math.inf
    for k1, k2 in itertools.product(range(1, MOST_ROUNDS), repeat=2):
        if k1 + k2 > MOST_ROUNDS:
            continue
        for tau1, tau2 in itertools.product(range(1, MOST_STEPS + 1), repeat=2):
            several = (Setting(k1, tau1, rate), Setting(k2, tau2, rate))
            offset, weights = phases.coefficients(several)
            values = offset + (weights / batches).sum(axis=(1, 2))
            for place in np.argsort(values):
                if values[place] >= best:
                    break
                cost, seconds, energy = used(problem, several, batches[place])
                if (
                    within(cost, budget.cost)
                    and within(seconds, budget.time)
                    and within(energy, budget.energy)
                ):
                    best = float(values[place])
                    break
    return best


def test_it_is_next_to_trying_every_pair_of_phases() -> None:
    ratios = []
    for seed in range(16):
        problem, forecast = instance(seed)
        wanted = every_pair(problem, forecast)
        if wanted == math.inf or problem.violations(1, 1, np.ones(len(problem.fleet))):
            continue
        found = solve_schedule(problem, forecast, phases=2)
        found.certify()
        ratios.append(found.predicted_error / min(wanted, found.predicted_error))
    assert len(ratios) > 9
    assert np.median(ratios) == 1.0
    assert np.mean(ratios) < 1.002
    assert max(ratios) < 1.05


@given(seeds, st.sampled_from([None, 0.2, "auto"]))
@settings(max_examples=5, deadline=None)
def test_more_phases_are_never_worse_and_always_fit(seed: int, rate: float | str | None) -> None:
    problem, forecast = instance(seed, cost=60.0, time=30.0)
    if problem.violations(1, 1, np.ones(len(problem.fleet))):
        return
    before = math.inf
    for phases in (1, 2, 3):
        found = solve_schedule(problem, forecast, phases=phases, learning_rate=rate)
        assert 1 <= len(found.phases) <= phases
        assert found.predicted_error <= before * (1.0 + 1e-12)
        assert found.certify().relative_difference < 1e-6
        before = found.predicted_error


@pytest.mark.parametrize("rate", [0.2, "auto"])
def test_phases_with_momentum_on_the_server_fit_and_certify_themselves(rate: float | str) -> None:
    problem, plain = instance(3, cost=60.0, time=30.0)
    how = Optimiser(ClientSGD(0.5), ServerSGD(0.7, 0.9, nesterov=True))
    forecast, before = Forecast(plain.model, optimiser=how), math.inf
    for phases in (1, 2):
        found = solve_schedule(problem, forecast, phases=phases, learning_rate=rate)
        assert found.predicted_error <= before * (1.0 + 1e-12)
        assert found.certify().relative_difference < 1e-6
        assert found.source.optimiser == how
        before = found.predicted_error


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_batches_of_all_phases_are_the_best_ones(seed: int) -> None:
    problem, forecast = instance(seed, time=math.inf)
    rng = np.random.default_rng(seed)
    several = tuple(
        Setting(int(rng.integers(1, 3)), int(rng.integers(1, 4)), float(rng.choice([0.2, 0.7])))
        for _ in range(2)
    )
    inner = Batches(problem, forecast)
    found = inner.whole(several, math.inf)
    phases, n = Phases(forecast, problem), len(problem.fleet)
    wanted = math.inf
    for flat in itertools.product(range(1, MOST_BATCH + 1), repeat=2 * n):
        batches = np.array(flat).reshape(2, n)
        cost, _, energy = used(problem, several, batches)
        if within(cost, problem.budget.cost) and within(energy, problem.budget.energy):
            wanted = min(wanted, phases.value(several, batches))
    if found is None:
        assert wanted == math.inf
        return
    assert found.value == pytest.approx(wanted, rel=1e-9)
    assert phases.value(several, found.batch_sizes) == pytest.approx(found.value, rel=1e-9)
    assert inner.relaxed(several) <= found.value * (1.0 + 1e-9)


@given(seeds, st.integers(2, 3))
@settings(max_examples=5, deadline=None)
def test_time_is_shared_as_a_general_solver_shares_it(seed: int, phases: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(seed, 3, 3, noise=10.0)
    fleet = {"throughput": rng.uniform(5.0, 50.0, 3), "round_time": rng.uniform(0.0, 0.5, 3)}
    problem = problem_of(model, Budget(cost=4000.0, time=60.0), **fleet)
    several = [Setting(int(rng.integers(2, 9)), int(rng.integers(1, 5)), 0.3) for _ in range(phases)]
    _, weights = Phases(Forecast(model), problem).coefficients(several)
    steps = np.array([[each.rounds * each.local_steps] for each in several])
    costs, least = steps * np.ones(3), np.ones((phases, 3), dtype=np.int64)
    times = RoundTimes(problem)
    seconds = times.split(weights, several, costs, 4000.0, least)
    rounds = np.array([each.rounds for each in several])
    assert rounds @ seconds <= 60.0 * (1.0 + 1e-9)
    scale = weights.max()
    taus = np.array([[each.local_steps] for each in several])

    def value(share: np.ndarray) -> float:
        """The best value at round times, each batch at the smaller of its cap and what its price pays for."""
        caps = np.clip(
            fleet["throughput"] * ((share[:, None] - fleet["round_time"]) / taus), 1, model.samples
        )
        low, high = 1e-12, 1e12
        for _ in range(60):
            level = math.sqrt(low * high)
            batches = np.clip(level * np.sqrt(weights / costs), 1.0, caps)
            low, high = (level, high) if np.sum(costs * batches) <= 4000.0 else (low, level)
        return float(np.sum(weights / np.clip(low * np.sqrt(weights / costs), 1.0, caps)))

    fewest = times.of_rounds(several, least)
    spare = 60.0 - rounds @ fewest
    best = value(seconds)
    for start in np.random.default_rng(seed).dirichlet(np.ones(phases), 2):
        found = minimize(
            lambda x: value(fewest + np.abs(x) / np.abs(x).sum() * spare / rounds) / scale,
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-3, "fatol": 1e-6},
        )
        assert best <= found.fun * scale * (1.0 + 2e-3)


def test_a_free_rate_keeps_its_smallest_batch() -> None:
    model = random_model(3, 4, 6, noise=1.0)
    problem = problem_of(model, Budget(cost=3000.0, max_local_steps=20))
    found = solve_schedule(problem, Forecast(model), phases=2, learning_rate="auto")
    for phase in found.phases:
        smallest = floors(at(problem, phase.learning_rate), Forecast(model))(phase.local_steps)
        assert (phase.batch_sizes >= smallest).all()
        assert phase.learning_rate < Forecast(model).largest_rate


def test_it_stops_in_time_with_a_plan() -> None:
    model = random_model(3, 4, 6)
    problem = problem_of(model, Budget(cost=30_000.0))
    found = solve_schedule(problem, Forecast(model), phases=3, time_limit=0.0)
    found.certify()
    assert len(found.phases) == 1

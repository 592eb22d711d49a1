"""The trade-off bound: never above the certified one, affine, and in agreement with its theorem."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Allocation,
    Bound,
    BoundWarning,
    Budget,
    Certified,
    Constants,
    Fleet,
    InvalidProblemError,
    Problem,
    TradeOff,
    evaluate,
    solve_allocation,
)
from coopt.objectives.monotone import MonotoneBound
from coopt.objectives.registry import resolve_bound
from coopt.objectives.tradeoff import GAMMAS, RATIOS, drift_costs
from coopt_bounds import tradeoff as theory
from problems import constants, fleets

gammas = st.one_of(st.sampled_from(GAMMAS), st.floats(1e-3, 1.0))
ratios = st.one_of(st.sampled_from([0.0, *RATIOS]), st.floats(0.0, 1e6))


@st.composite
def plans(draw):
    """A problem with K, tau and batch sizes."""
    problem = Problem(draw(fleets()), draw(constants()), Budget())
    lower, upper = problem.fleet.batch_range()
    batches = [draw(st.integers(int(a), int(b))) for a, b in zip(lower, upper, strict=True)]
    return problem, draw(st.integers(1, 50)), draw(st.integers(1, 12)), batches


def example() -> Problem:
    fleet = Fleet([60, 30], gradient_noise=4.0, divergence=0.05)
    known = Constants(0.05, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0)
    return Problem(fleet, known, Budget(cost=2000, round_cost=40, max_local_steps=6))


# Against the certified bound -------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(plan=plans(), gamma=gammas, z=st.one_of(st.just(0.0), st.just(math.inf), st.floats(1e-6, 1e6)))
def test_it_is_never_above_certified_with_the_same_gamma(plan, gamma, z):
    problem, *rest = plan
    value = TradeOff(gamma).value(problem, *rest)
    assert value <= Certified(gamma, z).value(problem, *rest) * (1.0 + 1e-9)


@settings(deadline=None, max_examples=80)
@given(plan=plans())
def test_one_local_step_is_certified_without_drift(plan):
    problem, rounds, _, batches = plan
    expected = Certified(0.0, 1.0).value(problem, rounds, 1, batches)
    assert TradeOff().value(problem, rounds, 1, batches) == pytest.approx(expected, rel=1e-12)


def test_a_long_round_is_beyond_float64_and_not_small():
    problem = Problem(Fleet([5, 5], 1.0, 0.1), Constants(0.5, 2.0, 1.0, pl_constant=0.1), Budget())
    for bound in (TradeOff(), TradeOff(0.5, 1.0), TradeOff(0.5, 0.0)):
        assert bound.value(problem, 3, 1200, [2, 2]) == math.inf
    assert math.isfinite(TradeOff().value(problem, 3, 40, [2, 2]))


# The form that solvers rely on -----------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(plan=plans(), gamma=gammas, ratio=ratios)
def test_numbers_make_it_affine_in_inverse_batches(plan, gamma, ratio):
    problem, rounds, steps, batches = plan
    bound = TradeOff(gamma, ratio)
    offset, weights = bound.coefficients(problem, rounds, steps)
    value = bound.value(problem, rounds, steps, batches)
    assert np.all(weights >= 0.0)
    total = offset + float(np.sum(weights / batches))
    # Drawn without replacement, the offset holds a part that cancels.
    slack = 1e-12 * float(np.sum(weights))
    assert value == pytest.approx(total, rel=1e-9, abs=slack)
    parts = bound.parts(problem, rounds, steps, batches)
    assert parts.transient + parts.noise + parts.drift == pytest.approx(value, rel=1e-12)
    # The plan's own ratio is the best one, up to what the sweeps leave.
    assert TradeOff(gamma).value(problem, rounds, steps, batches) <= value * 1.05


@settings(deadline=None, max_examples=80)
@given(plan=plans())
def test_the_best_member_has_the_value(plan):
    problem, *rest = plan
    value, member = TradeOff().best_member(problem, *rest)
    assert value == TradeOff().value(problem, *rest)
    assert member.gamma in GAMMAS
    assert member.value(problem, *rest) == pytest.approx(value, rel=1e-12)


def test_infinite_ratio_says_nothing_where_devices_diverge():
    problem = example()
    assert TradeOff(0.5, math.inf).value(problem, 10, 3, [5, 5]) == math.inf
    assert math.isfinite(TradeOff(0.5, math.inf).value(problem, 10, 2, [5, 5]))
    same = Problem(replace(problem.fleet, divergence=0.0), problem.constants, problem.budget)
    assert TradeOff(0.5, math.inf).value(same, 10, 3, [5, 5]) == TradeOff(0.5).value(same, 10, 3, [5, 5])


# The theorem -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    step=st.floats(0.01, 1.0),
    low=st.floats(-1.0, 1.0),
    coupling=st.floats(0.0, 1.0),
    ratio=st.one_of(st.just(0.0), st.just(math.inf), st.floats(1e-3, 1e3)),
    seed=st.integers(0, 2**32 - 1),
)
def test_storage_weights_dominate_every_adversary(step, low, coupling, ratio, seed):
    """Simulate the drift recursion with random shares of curvature: the costs cover it."""
    rng = np.random.default_rng(seed)
    steps, high = int(rng.integers(1, 12)), 1.0
    weights = rng.uniform(0.1, 1.0, (steps, 1))
    divergence, spread = drift_costs(weights, step=step, low=low, high=high, coupling=coupling, ratio=ratio)
    d, nu2 = (0.0, 1.0) if math.isinf(ratio) else (1.0, ratio)
    drift2, paid = 0.0, 0.0
    for j in range(steps):
        share = rng.uniform(0.0, 1.0) if rng.random() < 0.7 else 1.0
        paid += weights[j, 0] * drift2 * min((1.0 - share**2) * (high - low) ** 2 / 4.0, coupling**2)
        growth = 1.0 - step * (low + high) / 2.0 + step * (high - low) / 2.0 * share
        drift2 = (growth * math.sqrt(drift2) + step * d) ** 2 + step**2 * nu2
    promised = (divergence[0] * d**2 if d else 0.0) + spread[0] * nu2
    assert paid <= promised * (1.0 + 1e-9)


@settings(deadline=None, max_examples=60)
@given(step=st.floats(0.05, 1.0), low=st.floats(-1.0, 0.9), q=st.floats(0.5, 1.0), steps=st.integers(1, 15))
def test_the_first_sweep_is_the_theorem(step, low, q, steps):
    """Young's parameters for drift that grows by g = 1 - eta ell, where there is no noise."""
    factor, high = 0.3, 1.0
    weights = factor * q ** np.arange(steps - 1.0, -1.0, -1.0)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coopt.objectives.tradeoff.SWEEPS", 1)
        found = drift_costs(weights, step=step, low=low, high=high, coupling=high, ratio=0.0)
    best = drift_costs(weights, step=step, low=low, high=high, coupling=high, ratio=0.0)
    with mpmath.workdps(50):
        rho, eta = (mpmath.mpf(high) - low) / 2, mpmath.mpf(step)
        alpha, growth = 1 - eta * (mpmath.mpf(low) + high) / 2, 1 - eta * mpmath.mpf(low)
        storage = theory.storage(mpmath.mpf(q), mpmath.mpf(factor), alpha, eta * rho, rho, growth, steps)
        splits = theory.inverse_splits(growth, steps)
        exact = eta**2 * mpmath.fsum((1 + a) * b for a, b in zip(splits, storage, strict=True))
        expected = float(exact), float(eta**2 * mpmath.fsum(storage))
    assert [float(cost[0]) for cost in found] == pytest.approx(expected, rel=1e-10)
    assert best[0][0] <= found[0][0]


def test_it_evaluates_to_the_theorem_at_its_growth(monkeypatch):
    """The whole bound, at 50 digits from its symbolic statement."""
    monkeypatch.setattr("coopt.objectives.tradeoff.SWEEPS", 1)
    fleet = Fleet([4, 4], gradient_noise=[1.0, 2.0], divergence=[0.1, 0.3])
    known = Constants(0.37, 1.0, 2.0, pl_constant=0.11, curvature_floor=-0.2, mean_smoothness=0.8)
    values = {
        "K": 7,
        "tau": 5,
        "eta": 0.37,
        "beta": 1.0,
        "beta_F": 0.8,
        "ell": -0.2,
        "c": 0.11,
        "gamma": 0.41,
    }
    values |= {"D_0": 2.0, "g": 1.0 + 0.37 * 0.2, "sigma2": 0.5, "nu2": 0.5, "d_h": math.sqrt(0.05)}
    plan = Problem(fleet, known, Budget()), 7, 5
    # sigma^2 = (1/4)(1/s_1 + 2/s_2) = nu^2: one half at batches (1, 2)
    value = TradeOff(0.41, 0.0).value(*plan, [1, 2])
    assert value == pytest.approx(float(theory.theorem.evaluate(values, 50)), rel=1e-12)


# Names, files, errors --------------------------------------------------------------------------------


@given(
    gamma=st.one_of(st.just("auto"), st.floats(1e-9, 1.0)), ratio=st.one_of(st.just("auto"), st.floats(0.0))
)
def test_a_name_stands_for_its_bound(gamma, ratio):
    bound = TradeOff(gamma, ratio)
    assert resolve_bound(bound.name) == bound
    assert isinstance(bound, Bound) and not isinstance(bound, MonotoneBound)


def test_auto_has_a_member_for_every_pair():
    assert len(TradeOff().members()) == len(GAMMAS) * len(RATIOS)
    assert TradeOff(0.5, 2.0).members() == (TradeOff(0.5, 2.0),)


def test_a_judged_plan_is_certified_and_survives_json():
    problem = example()
    plan = solve_allocation(problem)
    judged = evaluate(problem, plan.rounds, plan.local_steps, plan.batch_sizes, bound=TradeOff())
    assert judged.error_bound < plan.error_bound
    again = Allocation.from_json(judged.to_json())
    assert again == judged and again.bound_object == judged.bound_object
    assert again.certify().error_bound == pytest.approx(judged.error_bound, rel=1e-12)


def test_solving_with_its_numbers_is_no_worse():
    problem = example()
    plan = solve_allocation(problem)
    judged = evaluate(problem, plan.rounds, plan.local_steps, plan.batch_sizes, bound="tradeoff")
    best = solve_allocation(problem, bound=judged.bound)
    assert best.gap <= 1e-9 and best.error_bound <= judged.error_bound * (1.0 + 1e-12)
    assert best.certify().cost == best.cost


@pytest.mark.parametrize("bound", [TradeOff(), TradeOff(gamma=0.5), TradeOff(ratio=1.0)])
def test_auto_has_no_coefficients(bound):
    with pytest.raises(InvalidProblemError, match="no single set of coefficients"):
        bound.coefficients(example(), 3, 2)
    with pytest.raises(InvalidProblemError, match="no single set of coefficients"):
        solve_allocation(example(), bound=bound)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gamma": 0.0}, "gamma = 0.0"),
        ({"gamma": 1.5}, r"gamma = 1.5: must lie in \(0, 1\], or be 'auto'"),
        ({"gamma": "best"}, "gamma = 'best'"),
        ({"ratio": -1.0}, "ratio = -1.0"),
        ({"ratio": math.nan}, "ratio = nan"),
    ],
)
def test_parameters_are_checked(fields, message):
    with pytest.raises(InvalidProblemError, match=message):
        TradeOff(**fields)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (Constants(0.1, 1.0, 1.0), "pl_constant is missing: the trade-off bound needs it"),
        (Constants(1.1, 1.0, 1.0, pl_constant=0.1), "learning_rate = 1.1: .* 1 / mean_smoothness"),
        (
            Constants(1.3, 1.0, 1.0, pl_constant=0.1, mean_smoothness=0.5, curvature_floor=0.6),
            r"learning_rate = 1.3: .* 2 / \(smoothness \+ curvature_floor\)",
        ),
    ],
)
def test_constants_are_checked(known, message):
    problem = Problem(Fleet([1, 1], 1.0, 1.0), known, Budget())
    with pytest.raises(InvalidProblemError, match=message):
        TradeOff().value(problem, 3, 2, [1, 1])
    with pytest.raises(InvalidProblemError, match=message):
        TradeOff(0.5, 1.0).coefficients(problem, 3, 2)


def test_growing_drift_is_cautioned_about():
    problem = Problem(Fleet([5, 5], 1.0, 0.1), Constants(0.5, 2.0, 1.0, pl_constant=0.1), Budget())
    with pytest.warns(BoundWarning, match="curvature_floor"):
        evaluate(problem, 3, 4, [2, 2], bound=TradeOff())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(example(), 3, 4, [2, 2], bound=TradeOff())


@pytest.mark.parametrize("energy", [math.inf, 700.0])
def test_the_best_plan_is_proved_at_unequal_costs_and_under_a_limit_on_energy(energy):
    problem = Problem(
        Fleet([90, 40, 60], [4.0, 1.0, 9.0], 0.3, sample_cost=[1.0, 2.7, 0.6], sample_energy=[0.5, 1.9, 1.1]),
        Constants(0.05, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0),
        Budget(cost=900, round_cost=20, energy=energy, max_rounds=12, max_local_steps=4),
    )
    bound = TradeOff(0.5, 1.0)
    plan = solve_allocation(problem, bound=bound)
    assert plan.gap <= 1e-12
    # No neighbour with one unit moved from one device to another, or added, is better.
    rng = np.random.default_rng(0)
    for _ in range(300):
        batches = np.maximum(plan.batch_sizes + rng.integers(-2, 3, 3), 1)
        rounds, steps = int(rng.integers(1, 13)), int(rng.integers(1, 5))
        if problem.violations(rounds, steps, batches):
            continue
        assert bound.value(problem, rounds, steps, batches) >= plan.error_bound * (1 - 1e-12)

"""The evidence scripts run, and what they rest on holds: families, trade-off bound, published formulas."""

from __future__ import annotations

import importlib
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.theory import local_sgd_bounds, tradeoff
from benchmarks.theory.counterexample import CASES
from benchmarks.theory.instances import FAMILIES, Instance, draw
from benchmarks.theory.regret import device_gradients
from benchmarks.theory.simulate import simulate
from benchmarks.theory.tradeoff_family import TradeOffFamily
from coopt import (
    Bound,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    NonConvex,
    Problem,
    TradeOff,
    solve_allocation,
)

SCRIPTS = (
    "cohort",
    "counterexample",
    "estimators",
    "hardest",
    "participants",
    "regret",
    "side_by_side",
    "streams",
    "validity",
)


def instances() -> st.SearchStrategy[Instance]:
    def build(family: str, seed: int) -> Instance:
        return draw(family, np.random.default_rng(seed))

    return st.builds(build, st.sampled_from(FAMILIES), st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_writes_its_tables(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = importlib.import_module(f"benchmarks.theory.{name}").run(True, tmp_path)
    assert rows
    written = {path.suffix for path in tmp_path.iterdir()}
    assert written == {".csv", ".md", ".png"}
    for row in rows:
        certified = str(row.get("bound", "")).startswith(("certified", "trade-off", "nonconvex"))
        assert not certified or row["violations"] == 0
    capsys.readouterr()


@settings(deadline=None, max_examples=60)
@given(instance=instances(), seed=st.integers(0, 2**32 - 1))
def test_constants_of_the_families_are_true(instance: Instance, seed: int) -> None:
    """Curvature, divergence, PL constant and minimum, at random models and by finite differences."""
    rng = np.random.default_rng(seed)
    low, high = instance.curvature_range()
    p, best = instance.weights, instance.minimiser()
    models = instance.centre + 3.0 * instance.width * rng.normal(size=(50, 1, len(best)))
    step = 1e-6 * instance.width * rng.choice([-1.0, 1.0], size=models.shape)
    slope = (device_gradients(instance, models + step) - device_gradients(instance, models)) / step
    assert np.all(slope >= low - 1e-4) and np.all(slope <= high + 1e-4)
    gradients = device_gradients(instance, models)
    full = np.sum(p[:, None] * gradients, axis=1, keepdims=True)
    assert np.all(np.linalg.norm(gradients - full, axis=2) <= instance.divergence() + 1e-9)
    gap = instance.mean_loss(models[:, 0]) - instance.mean_loss(best)
    square = np.sum(full[:, 0] ** 2, axis=1)
    assert np.all(gap >= -1e-12)
    assert np.all(square >= 2.0 * instance.pl_constant() * gap - 1e-9)
    assert np.all(square <= 2.0 * instance.mean_smoothness() * gap + 1e-9)


def test_simulation_agrees_with_the_exact_recursion_of_a_quadratic() -> None:
    """One device, quadratic loss: mean and variance of SGD in closed form."""
    size, eta, steps, variance = 2, 0.3, 12, 0.5
    curvature = np.array([0.4, 1.0])
    instance = Instance(
        family="sines",
        weights=np.array([0.5, 0.5]),
        noise=np.full(2, variance),
        quadratic=curvature,
        amplitude=np.zeros((2, size)),
        tilt=np.zeros((2, size)),
        centre=np.zeros(size),
        width=np.ones(size),
        start=np.array([1.0, -2.0]),
        learning_rate=eta,
        rounds=4,
        local_steps=3,
        batch_sizes=np.ones(2, dtype=np.int64),
    )
    [truth] = simulate([instance], replicas=20_000, seed=0)
    left = (1.0 - eta * curvature) ** (2 * steps)
    spread = eta**2 * variance / 2.0 / size * (1.0 - left) / (1.0 - (1.0 - eta * curvature) ** 2)
    expected = float(np.sum(curvature / 2.0 * (left * instance.start**2 + spread)))
    assert abs(truth.error - expected) < 5.0 * truth.error_se
    assert truth.coupling < 1e-6


@settings(deadline=None, max_examples=80)
@given(instance=instances(), known=st.booleans())
def test_trade_off_is_never_above_certified(instance: Instance, known: bool) -> None:
    low, high = instance.curvature_range()
    problem = instance.problem(
        floor=max(low, -high) if known else None,
        mean_smoothness=instance.mean_smoothness() if known else None,
    )
    plan = instance.rounds, instance.local_steps, instance.batch_sizes
    assert TradeOff().value(problem, *plan) <= Certified().value(problem, *plan) * (1.0 + 1e-9)
    assert tradeoff.best_gradient_value(problem, *plan) <= NonConvex().value(problem, *plan) * (1.0 + 1e-9)


@settings(deadline=None, max_examples=25)
@given(instance=instances())
def test_monotone_family_is_a_looser_trade_off_bound(instance: Instance) -> None:
    problem = instance.problem(floor=0.0 if instance.family != "sines" else None)
    family = TradeOffFamily(((0.455, 0.1), (0.455, 10.0), (0.0, 1.0)))
    plan = instance.rounds, instance.local_steps, instance.batch_sizes
    # TradeOff() takes the plan's own ratio, which is the best one up to a per cent.
    assert family.value(problem, *plan) >= 0.98 * TradeOff().value(problem, *plan)
    form, everyone = family.monotone_form(problem), np.arange(3)
    floors = [form.floor(tau, everyone) for tau in range(1, 12)]
    for shorter, longer in itertools.pairwise(floors):
        assert np.all(longer.offsets >= shorter.offsets) and np.all(longer.shares >= shorter.shares)


def test_exact_solver_agrees_with_trying_every_plan() -> None:
    fleet = Fleet([9, 5], gradient_noise=4.0, divergence=0.1)
    constants = Constants(0.1, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0)
    problem = Problem(fleet, constants, Budget(cost=150, round_cost=12, max_local_steps=4))
    family = TradeOffFamily(tuple(itertools.product((1.0, 0.455, 0.0), (0.1, 10.0))))
    tried = [
        family.value(problem, rounds, tau, (a, b))
        for rounds in range(1, 13)
        for tau in range(1, 5)
        for a in range(1, 10)
        for b in range(1, 6)
        if not problem.violations(rounds, tau, (a, b))
    ]
    plan = solve_allocation(problem, bound=family)
    assert plan.gap <= 1e-9
    assert plan.error_bound == pytest.approx(min(tried), rel=1e-12)


def test_counterexample_reproduces() -> None:
    case = CASES[0]
    rounds, error = case.settled()
    assert error == pytest.approx(1.101e-4, rel=1e-3)
    value = Dynamite().value(case.problem(rho=0.5), rounds, 2, [1, 1])
    assert value == pytest.approx(3.57e-6, rel=1e-2)
    for known in (False, True):
        assert error < Certified().value(case.problem(known=known), rounds, 2, [1, 1])


def test_published_formulas_check_their_step_size() -> None:
    common = {"steps": 100, "tau": 4, "devices": 3, "beta": 1.0, "distance2": 1.0}
    assert local_sgd_bounds.khaled_heterogeneous(eta=1 / 24, sigma2_opt=1.0, **common) is not None
    assert local_sgd_bounds.khaled_heterogeneous(eta=1 / 23, sigma2_opt=1.0, **common) is None
    assert local_sgd_bounds.khaled_identical_loss(eta=0.26, sigma2=1.0, **common) is None
    problem = Problem(Fleet([5, 5], 2.0, 0.5), Constants(0.02, 1.0, 1.0), Budget())
    bound = local_sgd_bounds.ConvexAverage(distance=2.0)
    assert isinstance(bound, Bound)
    by_hand = 4 * 4 / (0.02 * 80) + (20 * 0.02 / 2 + 16 * 0.02**2 * 9) * (0.25 + 2.0 / 4)
    assert bound.value(problem, 20, 4, [4, 4]) == pytest.approx(by_hand)
    above = Problem(problem.fleet, replace(problem.constants, learning_rate=0.5), Budget())
    assert bound.value(above, 20, 4, [4, 4]) == math.inf

"""The bound on many cohorts at once is below every plan of each of them, whatever the prices."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coopt import Certified, NonConvex, Problem, leave_out
from coopt.solvers.cohort.effects import Effects
from coopt.solvers.cohort.first_prices import first_prices
from coopt.solvers.cohort.lower_bound import CohortBound
from coopt.solvers.cohort.nodes import IN, OPEN, OUT, CohortNodes
from fleets import random_problem
from problems import problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

bounds = st.sampled_from([Certified(), Certified(1.0, 1.0), NonConvex(), NonConvex(0.5, 0.4)])


def node(
    relaxed: CohortBound, kept: np.ndarray, rng: np.random.Generator, rounds: int, steps: int
) -> CohortNodes:
    """A node that holds the cohort and the plan, with prices from nowhere."""
    effects, share = relaxed.effects, float(relaxed.weights[kept].sum())
    state = np.where(rng.random(kept.size) < 0.5, OPEN, np.where(kept, IN, OUT)).astype(np.int8)
    disturbing = relaxed.disturbing
    around = 1.0 + rng.uniform(0.0, 1.0, 2)
    prices = np.where(rng.random(5) < 0.2, 0.0, 10.0 ** rng.uniform(-6.0, 2.0, 5))
    prices[:2] *= relaxed.limited
    prices[2:4] *= rng.choice([-1.0, 1.0], 2)
    return CohortNodes(
        rounds=np.array([[int(rng.integers(1, rounds + 1)), rounds + int(rng.integers(0, 3))]]),
        local_steps=np.array([[int(rng.integers(1, steps + 1)), steps + int(rng.integers(0, 3))]]),
        gammas=np.array([[0, effects.gammas.size - 1]]),
        zs=np.array([[0, effects.zs.size - 1]]),
        share=np.array([[share / around[0], share * around[1]]]),
        outside=np.array([bool(disturbing[~kept].sum() <= disturbing[kept].sum())]),
        state=state[None],
        prices=prices[None],
        trained=kept[None].astype(float),
        bound=np.zeros(1),
    )


def feasible(problem: Problem, rounds: int, steps: int) -> bool:
    return not problem.violations(rounds, steps, problem.fleet.batch_range()[0])


@settings(max_examples=80, deadline=None)
@given(problem=st.one_of(problems(), problems(equal_costs=False)), bound=bounds, seed=st.integers(0, 10**6))
def test_no_plan_of_a_cohort_is_below_its_node(problem, bound, seed):
    rng = np.random.default_rng(seed)
    size = len(problem.fleet)
    kept = rng.random(size) < 0.6
    assume(kept.any())
    rest = leave_out(problem, np.flatnonzero(~kept))
    rounds, steps = int(rng.integers(1, 9)), int(rng.integers(1, 6))
    assume(feasible(rest, rounds, steps))
    lower, upper = rest.fleet.batch_range()
    batches = np.minimum(lower + rest.fleet.batch_multiple * rng.integers(0, 3, lower.size), upper)
    batches = batches if not rest.violations(rounds, steps, batches) else lower
    value = bound.value(rest, rounds, steps, batches)
    relaxed = CohortBound(problem, bound, int(kept.sum()) + int(rng.integers(0, 2)))
    found = node(relaxed, kept, rng, rounds, steps)
    for prices in (found.prices, first_prices(relaxed, found)[0]):
        look = relaxed.evaluate(replace(found, prices=prices), value)
        assert look.bound[0] <= value * (1 + 1e-11)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), bound=bounds, tau=st.integers(1, 60))
def test_effects_are_those_of_the_bound(seed, bound, tau):
    """The floor that the coefficients give is that of the bound, for each of its members."""
    problem = random_problem(seed)
    rest = replace(problem, constants=replace(problem.constants, gradient_bias=0.03))
    effects, form = Effects(problem, bound), bound.monotone_form(rest)
    everyone = np.arange(len(form.members))
    floor = form.floor(tau, everyone)
    place = {gamma: i for i, gamma in enumerate(effects.gammas.tolist())}
    root = problem.fleet.root_divergence
    for i, member in enumerate(form.members):
        gamma, z = place[member.gamma], int(np.flatnonzero(effects.zs == member.z)[0])
        alpha, kappa, kdd, kde, kee = effects.smallest(
            np.array([tau]), np.array([[gamma, gamma]]), np.array([[z, z]])
        )[0]
        if not math.isfinite(floor.offsets[i] + floor.shares[i].sum()):
            continue
        offset = kdd * root**2 + 2.0 * kde * root * 0.03 + kee * 0.03**2
        assert offset == pytest.approx(floor.offsets[i], rel=1e-11)
        assert (alpha, kappa) == pytest.approx(tuple(floor.shares[i]), rel=1e-11)

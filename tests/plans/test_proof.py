"""Proofs that nothing is better: the checker's bounds are bounds, and tampered proofs fail."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coopt import (
    Allocation,
    Budget,
    CertificateError,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InfeasibleError,
    NonConvex,
    Problem,
    Status,
    TradeOff,
    evaluate,
    solve_allocation,
)
from coopt.plans.proof import Checker, Leaf, Proof, Support
from coopt.plans.prover import prove
from problems import MOST_ROUNDS, MOST_STEPS, family_bounds, numeric_bounds, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def solve(problem, bound, **options):
    try:
        return solve_allocation(problem, bound=bound, **options)
    except InfeasibleError:
        return None


def proved_and_no_more(found: Allocation) -> None:
    """The lower bound is proved, and one that is a little higher is refuted."""
    proof = found.certify(deep=True).proof
    assert proof is not None
    assert proof.leaves
    if found.lower_bound > 1e-9 * found.problem.constants.initial_gap:
        higher = replace(found, lower_bound=found.lower_bound * (1 + 1e-7), predicted_error=found.error_bound)
        with pytest.raises(CertificateError):
            higher.certify(deep=True)


@settings(max_examples=50, deadline=None)
@given(problem=problems(), bound=numeric_bounds)
def test_optima_are_proved_again(problem, bound):
    found = solve(problem, bound)
    assume(found is not None)
    proved_and_no_more(found)


@settings(max_examples=60, deadline=None)
@given(problem=problems(equal_costs=False), bound=numeric_bounds)
def test_optima_at_unequal_costs_are_proved_again(problem, bound):
    found = solve(problem, bound)
    assume(found is not None)
    proved_and_no_more(found)


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(equal_costs=False, most_samples=6), bound=numeric_bounds, tightness=st.floats(0.0, 1.0)
)
def test_lower_bounds_under_a_limit_on_energy_are_proved_again(problem, bound, tightness):
    size = len(problem.fleet)
    fleet = replace(problem.fleet, sample_energy=np.linspace(0.5, 2.0, size), round_energy=np.full(size, 0.3))
    lower, upper = fleet.batch_range()
    free = replace(problem, fleet=fleet)
    least, most = free.energy(1, 1, lower), free.energy(20, 4, upper)
    limit = float(least ** (1 - tightness) * most**tightness)
    found = solve(replace(free, budget=replace(problem.budget, energy=limit)), bound)
    assume(found is not None)
    found.certify(deep=True)


@settings(max_examples=25, deadline=None)
@given(problem=problems(), bound=family_bounds)
def test_every_member_of_a_family_is_ruled_out(problem, bound):
    found = solve(problem, bound)
    assume(found is not None)
    found.certify(deep=True)


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(most_samples=40),
    objective=st.sampled_from(["cost", "time"]),
    bound=st.sampled_from([Certified(1, 1), Dynamite()]),
    share=st.floats(1.0, 2.0),
)
def test_the_cheapest_and_the_fastest_are_proved_again(problem, objective, bound, share):
    best = solve(problem, bound)
    assume(best is not None)
    found = solve(problem, bound, objective=objective, target_error=best.error_bound * share)
    assume(found is not None)
    assume(found.objective_value > 0.0)
    found.certify(deep=True)
    more = replace(found, lower_bound=found.lower_bound * 1.001, objective_value=found.objective_value)
    if more.lower_bound > found.objective_value * (1 + 1e-6):
        with pytest.raises(CertificateError):
            more.certify(deep=True)


@settings(max_examples=80, deadline=None)
@given(
    problem=problems(equal_costs=False, most_devices=3, most_samples=5),
    bound=numeric_bounds,
    data=st.data(),
)
def test_any_multipliers_give_a_lower_bound(problem, bound, data):
    """Weak duality, leaf by leaf, against enumeration of the leaf's plans."""
    form, problem = bound.monotone_form(problem), problem.plain
    fleet = problem.fleet
    checker = Checker(problem, form)
    k1, t1 = data.draw(st.integers(1, MOST_ROUNDS)), data.draw(st.integers(1, MOST_STEPS))
    k2, t2 = data.draw(st.integers(k1, MOST_ROUNDS)), data.draw(st.integers(t1, MOST_STEPS))
    multiplier = st.one_of(st.just(0.0), st.floats(-4.0, 2.0).map(lambda exponent: 10.0**exponent))
    timed = np.flatnonzero(np.isfinite(fleet.throughput)) if problem.budget.time < math.inf else np.zeros(0)
    held = timed.astype(np.int64)
    push = np.array([data.draw(multiplier) for _ in held])
    price = data.draw(multiplier) if problem.budget.cost < math.inf else 0.0
    kinds = len(form.floor(1, np.zeros(1, dtype=np.intp)).basis)
    supports = tuple(
        Support(tuple(data.draw(st.floats(0.1, 3.0)) for _ in range(kinds)), price, held, push)
        for _ in range(data.draw(st.integers(1, 3)))
    )
    judged = checker.judge(Leaf((k1, k2), (t1, t2), supports))
    grids = np.meshgrid(
        *(
            np.arange(low, high + 1, step)
            for low, high, step in zip(checker.lower, checker.upper, checker.multiple, strict=True)
        )
    )
    plans = np.column_stack([grid.ravel() for grid in grids]).astype(float)
    for rounds, steps in itertools.product(range(k1, k2 + 1), range(t1, t2 + 1)):
        work = (plans * fleet.sample_cost).sum(axis=1) + fleet.step_cost.sum()
        cost = rounds * (steps * work + problem.budget.round_cost)
        parts = 1 if fleet.micro_batch is None else -(-plans // fleet.micro_batch)
        step = plans / fleet.throughput + fleet.step_time * parts
        seconds = (rounds * (steps * step + fleet.round_time)).max(axis=1)
        fits = (cost <= problem.budget.cost * (1 + 1e-9)) & (seconds <= problem.budget.time * (1 + 1e-9))
        offset, weights = bound.coefficients(problem, rounds, steps)
        values = offset + (weights / plans[fits]).sum(axis=1)
        slack = 1e-12 * (abs(offset) + float(np.sum(weights)))
        assert judged.bound <= np.min(values, initial=math.inf) * (1 + 1e-12) + slack


PROBLEM = Problem(
    Fleet(
        samples=[40, 90, 60, 30],
        gradient_noise=[4.0, 1.0, 9.0, 2.0],
        divergence=0.1,
        throughput=[20.0, 60.0, 40.0, 90.0],
        round_time=[0.5, 0.1, 1.0, 0.2],
    ),
    Constants(learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.1),
    Budget(cost=6000, time=400, round_cost=20),
)
UNEQUAL = replace(
    PROBLEM,
    fleet=Fleet(
        samples=[40, 90, 60, 30],
        gradient_noise=[4.0, 1.0, 9.0, 2.0],
        divergence=0.1,
        sample_cost=[0.7, 1.1, 1.9, 0.6],
    ),
    budget=Budget(cost=6000, round_cost=20),
)
BOUND = Certified(1, 1)


def checked(proof: Proof, problem: Problem = PROBLEM) -> None:
    Checker(problem, BOUND.monotone_form(problem)).check(proof)


def a_proof(problem: Problem = PROBLEM) -> Proof:
    proof = solve_allocation(problem, bound=BOUND).certify(deep=True).proof
    assert proof is not None
    return proof


@pytest.mark.parametrize("problem", [PROBLEM, UNEQUAL], ids=["equal costs", "unequal costs"])
def test_tampered_coverage_is_refused(problem):
    proof = a_proof(problem)
    checked(proof, problem)
    leaves = proof.leaves
    for place in range(len(leaves)):
        with pytest.raises(CertificateError, match="do not fill"):
            checked(replace(proof, leaves=leaves[:place] + leaves[place + 1 :]), problem)
    with pytest.raises(CertificateError, match=r"do not fill|overlap"):
        checked(replace(proof, leaves=(*leaves, leaves[0])), problem)
    inner = replace(proof, rounds=(1, proof.rounds[1] - 1))
    with pytest.raises(CertificateError, match=r"says nothing about K|outside"):
        checked(inner, problem)
    with pytest.raises(CertificateError, match=r"says nothing about tau|outside"):
        checked(replace(proof, local_steps=(1, proof.local_steps[1] - 1)), problem)
    with pytest.raises(CertificateError, match="starts at"):
        checked(replace(proof, rounds=(2, proof.rounds[1])), problem)


def test_leaves_that_overlap_and_leave_a_gap_of_the_same_size_are_refused():
    proof = a_proof()
    areas = [
        (leaf.rounds[1] - leaf.rounds[0] + 1) * (leaf.local_steps[1] - leaf.local_steps[0] + 1)
        for leaf in proof.leaves
    ]
    one, other = next((i, j) for i, j in itertools.combinations(range(len(areas)), 2) if areas[i] == areas[j])
    leaves = list(proof.leaves)
    leaves[other] = leaves[one]
    with pytest.raises(CertificateError, match="overlap"):
        checked(replace(proof, leaves=tuple(leaves)))


@pytest.mark.parametrize("problem", [PROBLEM, UNEQUAL], ids=["equal costs", "unequal costs"])
def test_tampered_cuts_are_refused(problem):
    """Other multipliers prove less; claims that rest on none, or on negative ones, are refused."""
    proof = a_proof(problem)
    bare = tuple(replace(leaf, supports=()) for leaf in proof.leaves)
    with pytest.raises(CertificateError, match="may hold"):
        checked(replace(proof, leaves=bare), problem)
    supported = [place for place, leaf in enumerate(proof.leaves) if leaf.supports]
    for place in (supported[0], supported[len(supported) // 2], supported[-1]):
        leaf = proof.leaves[place]
        for change, message in (
            (replace(leaf, supports=tuple(replace(s, price=-1.0) for s in leaf.supports)), ">= 0"),
            (
                replace(leaf, supports=tuple(replace(s, direction=(math.nan, 1.0)) for s in leaf.supports)),
                ">= 0",
            ),
            (replace(leaf, supports=tuple(replace(s, push=np.ones(2)) for s in leaf.supports)), "devices"),
            (replace(leaf, matched=True), "not matched"),
        ):
            leaves = (*proof.leaves[:place], change, *proof.leaves[place + 1 :])
            with pytest.raises(CertificateError, match=message):
                checked(replace(proof, leaves=leaves), problem)


def test_a_claimed_level_is_recomputed():
    """A level above the true optimum of a single (K, tau) proves no more than the optimum."""
    proof = a_proof(UNEQUAL)
    single = next(leaf for leaf in proof.leaves if any(each.level is not None for each in leaf.supports))
    checker = Checker(UNEQUAL, BOUND.monotone_form(UNEQUAL))
    higher = replace(
        single, supports=tuple(replace(s, level=s.level and 2.0 * s.level) for s in single.supports)
    )
    assert checker.judge(higher).bound == pytest.approx(checker.judge(single).bound, rel=1e-6)


@pytest.mark.parametrize("objective", ["error", "cost", "time"])
def test_a_false_lower_bound_is_refuted(objective):
    """A claim that was true for a smaller budget, or for more expensive training."""
    target = None if objective == "error" else 0.6
    options = {"bound": BOUND, "objective": objective, "target_error": target}
    tight = replace(PROBLEM, budget=replace(PROBLEM.budget, cost=5500, time=300, round_cost=25))
    slow = replace(tight, fleet=replace(PROBLEM.fleet, throughput=PROBLEM.fleet.throughput / 1.5))
    true, harder = solve_allocation(PROBLEM, **options), solve_allocation(slow, **options)
    assert true.certify(deep=True).proof is not None
    assert harder.certify(deep=True).proof is not None
    assert harder.lower_bound > true.objective_value
    # The harder problem's plan in the easier problem: as feasible, and no longer the best.
    harder_plan = evaluate(PROBLEM, harder.rounds, harder.local_steps, harder.batch_sizes, bound=BOUND)
    values = {"error": harder_plan.error_bound, "cost": harder_plan.cost, "time": harder_plan.time}
    false = replace(
        harder_plan,
        objective=objective,
        target_error=target,
        objective_value=values[objective],
        lower_bound=values[objective] * (1 - 1e-6),
        status=Status.HEURISTIC,
        claim=true.claim,
    )
    false.certify()
    with pytest.raises(CertificateError, match=r"refuted|only|not proved"):
        false.certify(deep=True)


def test_what_was_fixed_is_part_of_the_claim():
    for fixed in ({"rounds": 7}, {"local_steps": 5}, {"rounds": 9, "local_steps": 4}):
        found = solve_allocation(PROBLEM, bound=BOUND, **fixed)
        assert found.certify(deep=True).proof is not None
        free = replace(found, claim=replace(found.claim, rounds=None, local_steps=None))
        with pytest.raises(CertificateError, match=r"refuted|only"):
            free.certify(deep=True)


def test_files_keep_the_claim():
    found = solve_allocation(PROBLEM, bound=BOUND, rounds=7)
    again = Allocation.from_json(found.to_json())
    assert again.claim == found.claim
    assert again.certify(deep=True).proof is not None


def test_proofs_of_degenerate_problems_are_short():
    """Millions of plans that match one another are one leaf each way."""
    for divergence, round_cost in ((0.0, 5.0), (0.1, 0.0)):
        problem = Problem(
            Fleet(samples=[4, 9], gradient_noise=1.0, divergence=divergence),
            Constants(learning_rate=1e-6, smoothness=1.0, initial_gap=1.0, pl_constant=0.5),
            Budget(cost=1e8, round_cost=round_cost),
        )
        proof = solve_allocation(problem, bound=Dynamite()).certify(deep=True).proof
        assert len(proof.leaves) <= 60
        assert any(leaf.matched for leaf in proof.leaves)


@dataclass(frozen=True)
class _Falling:
    """A form whose floor falls in tau, although forms must not."""

    form: object

    def __getattr__(self, name):
        return getattr(self.form, name)

    def floor(self, local_steps, active):
        floor = self.form.floor(local_steps, active)
        return replace(floor, offsets=floor.offsets - 0.1 * local_steps)


def test_a_bound_that_declares_a_monotone_form_it_has_not_is_found_out():
    checker = Checker(PROBLEM, _Falling(BOUND.monotone_form(PROBLEM)))
    with pytest.raises(CertificateError, match="falls in tau"):
        checker.judge(Leaf((1, 1), (1, 20)))


def test_claims_that_cannot_be_proved_from_the_limits_say_so():
    given_plan = evaluate(PROBLEM, 5, 4, [4, 4, 4, 4], bound=BOUND)
    with pytest.raises(CertificateError, match="no claim about all plans"):
        given_plan.certify(deep=True)
    short = replace(PROBLEM, budget=replace(PROBLEM.budget, max_rounds=3, max_local_steps=3))
    own = solve_allocation(short, bound=TradeOff(0.5, 1.0))
    with pytest.raises(CertificateError, match="no monotone form"):
        own.certify(deep=True)


def test_a_proof_needs_no_search():
    """From the claim alone; nothing about the plan is known to it."""
    found = solve_allocation(PROBLEM, bound=NonConvex(1, 1))
    form = NonConvex(1, 1).monotone_form(PROBLEM)
    proof = prove(PROBLEM, form, found.lower_bound * 0.9)
    Checker(PROBLEM, form).check(proof)
    assert len(proof.leaves) < len(prove(PROBLEM, form, found.lower_bound).leaves)

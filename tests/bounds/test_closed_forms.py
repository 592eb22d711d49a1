"""The closed forms: caught when broken, never above the bound, and the numbers that the solver returns."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Dynamite, NonConvex
from coopt.objectives.progress import ExponentialProgress
from coopt.solvers.proposers.closed_form import co_optimised, relaxation
from coopt.solvers.proposers.progress import best_steps, lambert_steps
from coopt_bounds import ProofError, best_batches, closed_forms
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.proof import Combine
from fleets import random_problem

forms = {theorem.name: theorem for theorem in closed_forms.THEOREMS}


def mutants():
    """(what is wrong, lemma) with one thing wrong in each."""

    def with_claim(lemma, claim):
        *before, last = lemma.steps
        return dataclasses.replace(lemma, steps=(*before, dataclasses.replace(last, conclusion=claim)))

    def without(lemma, words):
        kept = tuple(a for a in lemma.hypotheses if words not in a.words)
        assert len(kept) == len(lemma.hypotheses) - 1
        return dataclasses.replace(lemma, hypotheses=kept)

    def scaled(lemma, factor):
        claim = lemma.claim
        return with_claim(lemma, claim.func(factor * claim.lhs, claim.rhs, evaluate=False))

    bb, cf = best_batches, closed_forms
    yield "less noise than Cauchy-Schwarz allows", scaled(bb.HETEROGENEOUS, 2)
    yield "batches that nobody pays for", without(bb.HETEROGENEOUS, "may cost")
    yield "noise of the best batches halved", scaled(bb.ATTAINED, sp.Rational(1, 2))
    yield "the same batch, at no price", without(bb.HOMOGENEOUS, "the same batch")
    yield (
        "the same batch beats fitted ones",
        with_claim(bb.SAME_COSTS_MORE, at_least(bb.root_sum**2, bb.weight * bb.prices)),
    )
    yield "late devices", without(bb.DEADLINE, "meets the deadline")
    yield "a round time below the shortest", without(bb.DEADLINE, "beyond its samples")
    yield "steps that are not the root", without(cf.LAMBERT, "kappa")
    yield "one tangent for both signs", without(cf.LAMBERT, "the same at -d")
    yield (
        "value of half a time constant more",
        with_claim(cf.LAMBERT, at_most(cf.lambert_value + cf.amount / cf.rate / 2, cf.geometric_value)),
    )
    yield (
        "the value left out of the drift",
        with_claim(
            cf.LAMBERT_ATTAINED,
            equal(cf.geometric_value.subs(cf.length, cf.y / cf.rate), cf.lambert_value - cf.floor),
        ),
    )
    yield "costly rounds away from the stationary point", without(cf.COSTLY, "e^y_o")
    yield "costly rounds where the floor is above D_0", without(cf.COSTLY, "at most D_0")
    yield "an optimum above D_0", without(cf.BEYOND, "optimum")
    yield "more rounds than the limit admits", without(cf.ONE_ROOT, "room for the steps")
    yield (
        "square-root law without the root",
        with_claim(cf.RECIPROCAL, at_most(cf.r * cf.share + 2 * cf.amount * cf.r, cf.reciprocal_value)),
    )
    yield "given rounds with other steps", without(cf.CO_OPTIMISED, "kappa")
    yield "the range of tau with the drift of its high end", without(cf.WITH_DRIFT, "drift is smallest")
    yield (
        "e^x below 1 + x",
        dataclasses.replace(
            cf.EXPONENTIAL_ABOVE,
            steps=(
                cf.EXPONENTIAL_ABOVE.steps[0],
                dataclasses.replace(
                    cf.EXPONENTIAL_ABOVE.steps[1], conclusion=at_least(1 + cf.x - sp.exp(cf.x), 0)
                ),
            ),
        ),
    )


@pytest.mark.parametrize(("what", "lemma"), list(mutants()), ids=[what for what, _ in mutants()])
def test_broken_lemma_is_caught(what, lemma):
    with pytest.raises(ProofError):
        lemma.check()


def test_a_term_left_out_is_caught():
    *before, last = closed_forms.COSTLY.steps
    for missing in last.terms:
        kept = tuple(term for term in last.terms if term is not missing)
        shorter = (*before, Combine(last.conclusion, kept))
        with pytest.raises(ProofError):
            dataclasses.replace(closed_forms.COSTLY, steps=shorter).check()


def numbers(expression, **values):
    return float(expression.subs({atom: values[str(atom)] for atom in expression.free_symbols}))


positive = st.floats(-3.0, 3.0).map(lambda exponent: 10.0**exponent)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.001, 1.0), gap=positive, amount=positive, drift=st.floats(0.0, 0.9), elsewhere=positive
)
def test_no_number_of_steps_beats_lambert(rate, gap, amount, drift, elsewhere):
    theorem, phi = forms["best-steps"], drift * gap
    y = lambert_steps(rate * (gap - phi) / amount)
    known = {"c_q": rate, "A": amount, "D_0": gap, "phi": phi, "y": y}
    least = numbers(theorem.left, **known)
    at_root = float(theorem.evaluate({**known, "T": y / rate}, digits=20))
    assert at_root == pytest.approx(least, rel=1e-9)
    assert float(theorem.evaluate({**known, "T": elsewhere}, digits=20)) >= least * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(rate=positive, amount=positive, share=st.floats(0.0, 2.0), elsewhere=positive)
def test_no_number_of_steps_beats_the_square_root_law(rate, amount, share, elsewhere):
    theorem = forms["best-steps-reciprocal"]
    known = {"r": rate, "A": amount, "varrho": share}
    least = numbers(theorem.left, **known)
    at_best = float(theorem.evaluate({**known, "X": math.sqrt(rate / amount)}, digits=20))
    assert at_best == pytest.approx(least, rel=1e-12)
    assert float(theorem.evaluate({**known, "X": elsewhere}, digits=20)) >= least * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("time", [math.inf, 300.0])
def test_the_solver_returns_the_theorem_for_given_rounds(seed, time):
    problem, rounds = random_problem(seed, time=time), 17.0
    if time < math.inf:
        problem = dataclasses.replace(problem, budget=dataclasses.replace(problem.budget, cost=math.inf))
    plan = co_optimised(problem, rounds, Dynamite())
    _, weights = Dynamite().coefficients(problem, 10**9, 1)
    V = float(np.sum(weights / (plan.batch_sizes * plan.local_steps)))
    rate = -math.log1p(-problem.constants.learning_rate * problem.constants.pl_constant)
    y = lambert_steps(rate * rounds * problem.constants.initial_gap / V)
    theorem = forms["co-optimised"]
    assert plan.value == pytest.approx(numbers(theorem.left, V=V, K=rounds, c_q=rate, y=y), rel=1e-9)
    assert plan.local_steps == pytest.approx(y / (rate * rounds), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_solver_returns_the_theorem_for_free_rounds(seed):
    problem = random_problem(seed, divergent=False)
    plan = relaxation(problem, Dynamite())
    _, weights = Dynamite().coefficients(problem, 10**9, 1)
    A = float(np.sum(np.sqrt(weights * problem.fleet.sample_cost))) ** 2 / (problem.budget.cost * (1 + 1e-9))
    rate = -math.log1p(-problem.constants.learning_rate * problem.constants.pl_constant)
    y = lambert_steps(rate * problem.constants.initial_gap / A)
    least = numbers(forms["best-steps"].left, A=A, c_q=rate, phi=0.0, y=y)
    assert plan.value == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overhead", [0.0, 1.0])
def test_the_solver_returns_the_theorem_for_reciprocal_progress(seed, overhead):
    problem = random_problem(seed, round_cost=40.0, divergent=False, overhead=overhead)
    bound = NonConvex(1, 1)
    plan = relaxation(problem, bound)
    tau, limit = round(plan.local_steps), problem.budget.cost * (1 + 1e-9)
    offset, weights = bound.coefficients(problem, 10**9, tau)
    r = bound.coefficients(problem, 1, 1)[0] - bound.coefficients(problem, 10**9, 1)[0]
    A = float(np.sum(np.sqrt(weights * problem.fleet.sample_cost))) ** 2 / limit
    share = (float(problem.fleet.step_cost.sum()) + problem.budget.round_cost / tau) / limit
    least = numbers(forms["best-steps-reciprocal"].left, r=r, A=A, varrho=share)
    assert plan.value == pytest.approx(offset + least, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(positive, positive, positive), min_size=1, max_size=6),
)
def test_no_batches_beat_cauchy_schwarz(devices):
    roots, prices, batches = (np.array(column) for column in zip(*devices, strict=True))
    step = float(np.sum(prices**2 * batches))
    theorem = forms["best-batches"]
    least = numbers(theorem.left, S=float(np.sum(roots * prices)), E=step)
    values = {"omega": roots.tolist(), "alpha": prices.tolist(), "s": batches.tolist()}
    assert float(theorem.evaluate(values, digits=20)) >= least * (1 - 1e-12)
    best = step * roots / (prices * np.sum(roots * prices))
    assert float(theorem.evaluate({**values, "s": best.tolist()}, digits=20)) == pytest.approx(least)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.001, 1.0), gap=positive, amount=positive, share=st.floats(1e-3, 0.5), elsewhere=positive
)
def test_the_solver_stops_where_costly_rounds_are_stationary(rate, gap, amount, share, elsewhere):
    steps = best_steps(ExponentialProgress(np.array([-rate]), gap), 0.0, amount, share)
    theorem = forms["best-steps-costly-rounds"]
    known = {"c_q": rate, "A": amount, "D_0": gap, "phi": 0.0, "varrho": share}
    least = numbers(theorem.left, X_o=steps / (1 - share * steps), **known)
    assert float(theorem.evaluate({**known, "X": elsewhere}, digits=20)) >= least * (1 - 1e-9)
    (stationary,) = (a.relation for a in theorem.assumptions if "e^y_o" in a.words)
    left, right = (
        numbers(side, X_o=steps / (1 - share * steps), **known) for side in (stationary.lhs, stationary.rhs)
    )
    assert left == pytest.approx(right, rel=1e-6)

"""Bounds made from formulas: what is proved of them, and that every solver finds the same plan with them."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Constants,
    Dynamite,
    Fleet,
    InvalidProblemError,
    Problem,
    evaluate,
    solve_allocation,
)
from coopt.objectives.symbolic import from_sympy

K, tau, eta, beta, c, q, rho, D_0, sigma2, nu2, deltabar, G, N = sp.symbols(
    "K tau eta beta c q rho D_0 sigma2 nu2 deltabar G N"
)
i = sp.Symbol("i")
p, M, s, d = (sp.IndexedBase(name) for name in "pMsd")
DEVICES = (i, 1, N)

YU = 2 * D_0 / (eta * K * tau) + 4 * eta**2 * tau**2 * G**2 * beta**2 + beta * eta * sigma2
DRIFT = deltabar / beta * ((1 + eta * beta) ** tau - 1) - eta * deltabar * tau
PUBLISHED = q ** (K * tau) * D_0 + (1 - q ** (K * tau)) * (
    eta * beta / (2 * c) * sigma2 + rho * DRIFT**2 / (1 - q**tau)
)


def small_problem(**budget):
    limits = {"cost": 600, "round_cost": 2, "max_rounds": 25, "max_local_steps": 6} | budget
    return Problem(
        Fleet(samples=[30, 20, 10], gradient_noise=[4.0, 1.0, 2.0], divergence=[0.05, 0.1, 0.3]),
        Constants(
            learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, quadratic_continuity=9.0
        ),
        Budget(**limits),
    )


PROVED = {
    "Yu et al.": YU,
    "sum written out": YU.subs(sigma2, sp.Sum(p[i] ** 2 * M[i] / s[i], DEVICES)),
    "noise that drives drift": D_0 / (eta * K * tau)
    + eta * sigma2
    + eta**2 * (tau - 1) * (nu2 + tau * deltabar**2),
    "geometric": q ** (K * tau) * D_0 + (1 - q ** (K * tau)) * (eta * sigma2 / c + rho * (tau - 1) ** 2),
    "without noise": D_0 / (K * tau) + tau,
    "not falling in K": D_0 / 2 + eta * sigma2 * tau,
}
UNPROVED = {
    "published": PUBLISHED,
    "falls in tau": D_0 / K + eta * sigma2 / tau,
    "two factors": D_0 / (K * tau) + eta * sigma2 * (1 - q ** (K * tau)) + rho * tau / (K * tau + 1),
    "neither up nor down in K": D_0 / (K * tau) + K * tau * rho + sigma2,
}


@pytest.mark.parametrize("what", PROVED)
def test_proved_formulas_may_be_pruned_with(what):
    assert from_sympy(PROVED[what], name=what, values={"G": 2.0}).monotone


@pytest.mark.parametrize("what", UNPROVED)
def test_what_is_not_proved_is_said(what):
    bound = from_sympy(UNPROVED[what], name=what)
    assert not bound.monotone and "not" in bound.reason
    assert solve_allocation(small_problem(), bound=bound).solver == "exhaustive"


@pytest.mark.parametrize("what", PROVED)
def test_pruning_and_trying_everything_agree(what):
    proved = from_sympy(PROVED[what], name=what, values={"G": 0.1})
    problem = small_problem()

    class Unproved:
        """The same numbers without the monotone form."""

        name = "unproved"

        def coefficients(self, problem, rounds, local_steps):
            return proved.coefficients(problem, rounds, local_steps)

        def value(self, problem, rounds, local_steps, batch_sizes):
            return proved.value(problem, rounds, local_steps, batch_sizes)

        def members(self):
            return (self,)

    pruned = solve_allocation(problem, bound=proved)
    tried = solve_allocation(problem, bound=Unproved())
    assert (pruned.solver, tried.solver) == ("exact", "exhaustive")
    assert pruned.error_bound == pytest.approx(tried.error_bound, rel=1e-12)
    assert pruned.certify().error_bound == pytest.approx(pruned.error_bound, rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 500),
    st.integers(1, 30),
    st.lists(st.integers(1, 10), min_size=3, max_size=3),
    st.booleans(),
)
def test_the_published_bound_as_a_formula_is_dynamite(rounds, local_steps, batches, replacement):
    base = small_problem()
    fleet = Fleet([30, 20, 10], base.fleet.gradient_noise, base.fleet.divergence, replacement=replacement)
    problem = Problem(fleet, base.constants, Budget())
    own = Dynamite().value(problem, rounds, local_steps, batches)
    assert PUBLISHED_BOUND.value(problem, rounds, local_steps, batches) == pytest.approx(own, rel=1e-12)


PUBLISHED_BOUND = from_sympy(PUBLISHED, name="published")


def test_solving_with_the_formula_finds_what_dynamite_finds():
    problem = small_problem(max_rounds=12)
    theirs = solve_allocation(problem, bound=PUBLISHED_BOUND)
    own = solve_allocation(problem, bound="dynamite")
    assert theirs.error_bound == pytest.approx(own.error_bound, rel=1e-12)
    assert (theirs.rounds, theirs.local_steps) == (own.rounds, own.local_steps)


def test_coefficients_are_those_of_the_formula():
    bound = from_sympy(eta * sp.Sum((1 + M[i] * p[i] / s[i]) * d[i], DEVICES) + D_0 / K, name="sums")
    problem = small_problem()
    offset, weights = bound.coefficients(problem, 4, 2)
    assert offset == pytest.approx(0.05 * 60 + 2.0 / 4)
    assert weights == pytest.approx(
        0.05 * problem.fleet.gradient_noise * problem.fleet.weights * [30, 20, 10]
    )


def test_numbers_survive_cancellation_in_the_formula():
    tiny = from_sympy(((1 + 1e-12 * eta) ** tau - 1) / eta + D_0 * 0 + sigma2, name="tiny", values={})
    offset, _ = tiny.coefficients(small_problem(), 1, 3)
    assert offset == pytest.approx(3e-12, rel=1e-9)


class TestRefused:
    @pytest.mark.parametrize(
        ("formula", "message"),
        [
            (sp.Symbol("etta") + sigma2, "did you mean 'eta'"),
            (sigma2**2, "affine"),
            (sigma2 * nu2, "affine"),
            (sp.Sum(M[i] / s[i] ** 2, DEVICES), "affine"),
            (sp.Sum(s[i], DEVICES), "affine"),
            (sp.Sum((p[i] - sp.Rational(1, 2)) * M[i] / s[i], DEVICES), "not visibly nonnegative"),
            (sp.Sum(tau ** p[i] * M[i] / s[i], DEVICES), "factors that all devices share"),
            (M[i] / s[i], "only allowed inside"),
            (sp.Sum(sp.IndexedBase("x")[i], DEVICES), "unknown quantity"),
            (sp.Sum(M[i] / s[i], (i, 1, 3)), "must run over the devices"),
        ],
    )
    def test_formula(self, formula, message):
        with pytest.raises(InvalidProblemError, match=message):
            from_sympy(formula, name="bad")

    def test_negative_weight_at_a_plan(self):
        bound = from_sympy((2 - tau) * sigma2, name="turns")
        assert not bound.monotone
        with pytest.raises(InvalidProblemError, match="must not be negative"):
            bound.coefficients(small_problem(), 1, 3)

    def test_missing_constant(self):
        problem = Problem(small_problem().fleet, Constants(0.05, 4.0, 2.0), Budget())
        with pytest.raises(InvalidProblemError, match="pl_constant is missing"):
            from_sympy(sigma2 / c, name="needs c").value(problem, 1, 1, [1, 1, 1])

    def test_learning_rate_above_the_limit(self):
        bound = from_sympy(YU, name="Yu et al.", values={"G": 1.0}, learning_rate_limit=1 / (10 * beta))
        with pytest.raises(InvalidProblemError, match="learning_rate"):
            evaluate(small_problem(), 1, 1, [1, 1, 1], bound=bound)


def test_overflow_is_infinite():
    bound = from_sympy(sp.exp(tau) ** 300 + sigma2, name="huge")
    offset, weights = bound.coefficients(small_problem(), 1, 300)
    assert offset == np.inf and np.isfinite(weights).all()


@pytest.mark.parametrize("solver", ["closed-form", "cvxpy", "coopt-fl"])
def test_other_solvers_take_proved_formulas(solver):
    bound = from_sympy(YU, name="Yu et al.", values={"G": 0.1})
    exact = solve_allocation(small_problem(), bound=bound)
    other = solve_allocation(small_problem(), bound=bound, solver=solver)
    assert other.error_bound >= exact.error_bound * (1 - 1e-12)
    assert other.bound == "Yu et al." and other.solver == solver
    other.certify()

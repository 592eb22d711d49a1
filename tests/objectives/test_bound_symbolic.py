"""The numeric bounds equal the proved statements at 50 digits, over their whole range."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import mpmath
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import AdaCoOpt, Budget, Certified, Constants, Dynamite, Fleet, NonConvex, Problem
from coopt_bounds import adacoopt, certified, cohort, dynamite, nonconvex, participants, published_drift
from coopt_bounds.algebra import nonnegative

LARGEST = mpmath.mpf(10) ** 300
RELATIVE = mpmath.mpf(10) ** -12

powers = st.floats(-12.0, 0.0)
fractions = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1e-12]), st.floats(0.0, 1.0))


@st.composite
def step_sizes(draw):
    """(eta, beta) with eta beta <= 1 exactly."""
    beta = draw(st.sampled_from([1.0, 0.75, 4.0, 1e-3, 1e5]))
    eta = draw(st.one_of(st.just(1.0), st.builds(lambda e: 10.0**e, powers))) / beta
    while Fraction(eta) * Fraction(beta) > 1:
        eta = math.nextafter(eta, 0.0)
    return eta, beta


@st.composite
def round_counts(draw, eta_beta):
    """Local steps up to eta beta tau = 340, at every scale, and rounds."""
    most = max(1, math.floor(340 / eta_beta))
    tau = draw(
        st.one_of(
            st.integers(1, min(most, 64)),
            st.builds(lambda share: max(1, int(most**share)), st.floats(0.0, 1.0)),
            st.just(most),
        )
    )
    return draw(st.one_of(st.integers(1, 50), st.integers(1, 10**9))), tau


@st.composite
def fleets(draw):
    size = draw(st.integers(1, 4))
    column = st.lists(st.builds(lambda e: 10.0**e, st.floats(-6.0, 3.0)), min_size=size, max_size=size)
    noise = [draw(st.sampled_from([0.0, 1.0, 1.0, 1.0])) * value for value in draw(column)]
    divergence = [draw(st.sampled_from([0.0, 1.0, 1.0, 1.0])) * value for value in draw(column)]
    samples = draw(st.lists(st.integers(1, 10**6), min_size=size, max_size=size))
    return Fleet(samples, noise, divergence, replacement=draw(st.booleans()))


def exact_fleet(fleet, batches):
    """What the statement needs of a fleet; without replacement 1/s_i becomes 1/s_i - 1/d_i."""
    inverse = [
        Fraction(1, s) - (0 if fleet.replacement else Fraction(1, d))
        for s, d in zip(batches, fleet.samples.tolist(), strict=True)
    ]
    weights = [Fraction(p) for p in fleet.weights.tolist()]
    noise = [Fraction(m) for m in fleet.gradient_noise.tolist()]
    divergence = [Fraction(d) for d in fleet.divergence.tolist()]
    rows = list(zip(weights, noise, inverse, strict=True))
    return {
        "sigma2": sum(p**2 * m * x for p, m, x in rows),
        "nu2": sum(p * (1 - p) * m * x for p, m, x in rows),
        "p": weights,
        "delta": divergence,
    }


def same(number, reference):
    if reference > LARGEST:
        return number == math.inf or abs(mpmath.mpf(number) - reference) <= 1e-11 * reference
    tiny = mpmath.mpf(10) ** -290
    return math.isfinite(number) and abs(mpmath.mpf(number) - reference) <= RELATIVE * reference + tiny


def both(bound, theorem, problem, rounds, local_steps, batches, **extra):
    """The kernel's value and the statement's."""
    constants = problem.constants
    beta = constants.smoothness
    values = exact_fleet(problem.fleet, batches) | {
        "K": rounds,
        "tau": local_steps,
        "eta": constants.learning_rate,
        "beta": beta,
        "beta_F": constants.mean_smoothness if constants.mean_smoothness is not None else beta,
        "ell": constants.curvature_floor if constants.curvature_floor is not None else -beta,
        "D_0": constants.initial_gap,
    }
    if constants.pl_constant is not None:
        values["c"] = constants.pl_constant
    floor = Fraction(values["ell"])
    values["beta_d"] = (
        (Fraction(beta) - floor) / 2 if constants.coupling is None else Fraction(constants.coupling)
    )
    reference = theorem.evaluate(values | extra)
    return bound.value(problem, rounds, local_steps, batches), reference


@st.composite
def young_cases(draw, convex):
    eta, beta = draw(step_sizes())
    size = draw(fleets())
    floor = draw(st.sampled_from([None, 0.0, -beta / 2, beta / 4, beta]))
    if floor is not None and Fraction(eta) * (Fraction(beta) + Fraction(floor)) > 2:
        floor = 0.0
    mean = draw(st.sampled_from([None, beta / 2, beta]))
    top = beta if mean is None else mean
    singular = [beta / 4, beta] if floor is None or floor <= 0 else [floor]
    c = draw(st.one_of(st.sampled_from(singular), st.builds(lambda e: top * 10.0**e, powers)))
    constants = Constants(
        learning_rate=eta,
        smoothness=beta,
        initial_gap=draw(st.sampled_from([0.0, 1.0, 1e-3, 1e4])),
        pl_constant=min(c, top) if convex else None,
        curvature_floor=floor,
        mean_smoothness=mean,
        coupling=draw(st.sampled_from([None, 0.0, beta / 8])),
    )
    rounds, local_steps = draw(round_counts(eta * beta))
    batches = [draw(st.integers(1, d)) for d in size.samples.tolist()]
    gamma = draw(st.one_of(st.just(1.0), st.floats(1e-4, 1.0)))
    z = draw(st.one_of(st.just(1.0), st.floats(1e-3, 1e3)))
    return Problem(size, constants, Budget()), rounds, local_steps, batches, gamma, z


@settings(deadline=None, max_examples=150)
@given(young_cases(convex=True))
def test_certified_is_the_statement(case):
    problem, rounds, local_steps, batches, gamma, z = case
    number, reference = both(
        Certified(gamma, z), certified.theorem, problem, rounds, local_steps, batches, gamma=gamma, z=z
    )
    assert same(number, reference), (number, reference)


@settings(deadline=None, max_examples=150)
@given(young_cases(convex=False))
def test_nonconvex_is_the_statement(case):
    problem, rounds, local_steps, batches, gamma, z = case
    number, reference = both(
        NonConvex(gamma, z), nonconvex.theorem, problem, rounds, local_steps, batches, gamma=gamma, z=z
    )
    assert same(number, reference), (number, reference)


@settings(deadline=None, max_examples=80)
@given(young_cases(convex=True), st.integers(1, 50), st.booleans(), st.sampled_from([0.0, 1e-6, 0.3, 1e3]))
def test_participants_and_bias_are_the_statement(case, most, convex, bias):
    problem, rounds, local_steps, batches, gamma, z = case
    constants = replace(problem.constants, gradient_bias=bias)
    problem = Problem(problem.fleet, constants, Budget(participants=most))
    kind = Certified if convex else NonConvex
    source = cohort if bias else participants
    theorem = source.theorem if convex else source.nonconvex_theorem
    number, reference = both(
        kind(gamma, z),
        theorem,
        problem,
        rounds,
        local_steps,
        batches,
        gamma=gamma,
        z=z,
        kappa=Fraction(1, most),
        epsilon=bias,
    )
    assert same(number, reference), (number, reference)


@settings(deadline=None, max_examples=150)
@given(young_cases(convex=True), st.sampled_from([None, 1e-3, 7.0]))
def test_published_bounds_are_the_statements(case, rho):
    problem, rounds, local_steps, batches, _, _ = case
    old = problem.constants
    constants = Constants(
        old.learning_rate,
        old.smoothness,
        old.initial_gap,
        pl_constant=old.pl_constant,
        quadratic_continuity=rho,
        lipschitz=3.0,
    )
    problem = Problem(problem.fleet, constants, Budget())
    default = 1 / (Fraction(old.learning_rate) * local_steps)
    number, reference = both(
        Dynamite(),
        dynamite.theorem,
        problem,
        rounds,
        local_steps,
        batches,
        rho=default if rho is None else rho,
    )
    assert same(number, reference), (number, reference)
    number, reference = both(AdaCoOpt(), adacoopt.theorem, problem, rounds, local_steps, batches, rho=3)
    assert same(number, reference), (number, reference)


DYADIC = {
    "q = r": {"pl_constant": 0.25, "curvature_floor": 0.25},
    "q = r^2": {"pl_constant": 2 * 0.25 - 0.5 * 0.25**2, "curvature_floor": 0.25},
    "q = 0": {"learning_rate": 1.0, "pl_constant": 1.0, "curvature_floor": 0.0},
    "r = 1": {"pl_constant": 0.25, "curvature_floor": 0.0},
    "r = 0": {"learning_rate": 1.0, "pl_constant": 0.25, "curvature_floor": 1.0},
    "q = r = 0": {"learning_rate": 1.0, "pl_constant": 1.0, "curvature_floor": 1.0},
    "near q = r": {"pl_constant": 0.25, "curvature_floor": math.nextafter(0.25, 1.0)},
    "near r = 1": {"pl_constant": 0.25, "curvature_floor": 5e-324},
}


@pytest.mark.parametrize("where", DYADIC)
@pytest.mark.parametrize("local_steps", [1, 2, 3, 50])
def test_singular_points(where, local_steps):
    constants = Constants(**{"learning_rate": 0.5, "smoothness": 1.0, "initial_gap": 1.0} | DYADIC[where])
    problem = Problem(Fleet([30, 10], [1.0, 2.0], [0.5, 0.1]), constants, Budget())
    kinds = ((Certified, certified.theorem), (NonConvex, nonconvex.theorem))
    for kind, theorem in kinds:
        number, reference = both(kind(1.0, 1.0), theorem, problem, 7, local_steps, [3, 4], gamma=1, z=1)
        assert same(number, reference), (kind, number, reference)


@pytest.mark.parametrize(
    ("kind", "theorem"), [(Certified, certified.theorem), (NonConvex, nonconvex.theorem)]
)
def test_limits_of_gamma_and_z(kind, theorem):
    constants = Constants(0.5, 1.0, 1.0, pl_constant=0.25)
    noisy = Problem(Fleet([30, 10], [1.0, 2.0], 0.0), constants, Budget())
    number, reference = both(kind(0.5, math.inf), theorem, noisy, 7, 5, [3, 4], gamma=0.5, z=10**40)
    assert same(number, reference)
    quiet = Problem(Fleet([30, 10], 0.0, [0.5, 0.1]), constants, Budget())
    number, reference = both(kind(0.5, 0.0), theorem, quiet, 7, 5, [3, 4], gamma=0.5, z=Fraction(1, 10**40))
    assert same(number, reference)
    number, reference = both(kind(0.0, 1.0), theorem, noisy, 7, 1, [3, 4], gamma=Fraction(1, 10**40), z=1)
    assert same(number, reference)


@settings(deadline=None, max_examples=60)
@given(young_cases(convex=True))
def test_coefficients_add_up_to_the_statement(case):
    problem, rounds, local_steps, batches, gamma, z = case
    bound = Certified(gamma, z)
    offset, weights = bound.coefficients(problem, rounds, local_steps)
    _, reference = both(bound, certified.theorem, problem, rounds, local_steps, batches, gamma=gamma, z=z)
    assert (weights >= 0).all()
    total = offset + float((weights / batches).sum())
    scale = abs(offset) + float((weights / batches).sum())
    if scale < 1e300:
        # The smallest float: q^T may lie below all of them.
        assert abs(total - reference) <= 1e-12 * scale + 5e-324


@pytest.mark.parametrize(
    "theorem", [certified.theorem, nonconvex.theorem, dynamite.theorem, adacoopt.theorem]
)
def test_statement_is_affine_in_inverse_batches_with_nonnegative_weights(theorem):
    offset, weights = theorem.coefficients(3)
    K, tau, q = certified.K, certified.tau, certified.q
    p = sp.IndexedBase("p", positive=True)
    shares = [
        1 - q ** (K * tau),
        1 - q**tau,
        1 - q,
        *(1 - p[i] for i in (1, 2, 3)),
        1 - certified.eta * certified.beta_F,
    ]
    # Each of these is nonnegative by assumption: q and every p_i lie in [0, 1], and eta beta_F <= 1.
    visible = {share: sp.Symbol(f"share{k}", positive=True) for k, share in enumerate(shares)}
    for weight in weights:
        assert nonnegative(weight.xreplace(visible))
        assert not weight.atoms(sp.Symbol) & set(sp.symbols("x1:4", nonnegative=True))
    assert nonnegative(offset.subs(published_drift.h, sp.Symbol("h", nonnegative=True)).xreplace(visible))


@pytest.mark.parametrize(
    ("fleet", "constants", "local_steps", "gamma"),
    [
        # S_b, unscaled, overflowed below 1e300
        (Fleet([2, 1], [1.0, 0.0], 0.0), Constants(1e-7, 1.0, 0.0), 3_400_000_000, 1.0),
        # S_a overflowed before it was divided by tau
        (Fleet([1], 0.0, 1.0), Constants(1e-10, 1.0, 0.0), 3_400_000_000_000, 1e-4),
        # q = 1 - eta c lost its digits in the rounded product
        (Fleet([1], 0.0, 0.0), Constants(1.3333333333333333, 0.75, 1.0, pl_constant=0.75), 1, 1.0),
    ],
)
def test_digits_once_lost(fleet, constants, local_steps, gamma):
    problem = Problem(fleet, constants, Budget())
    convex = constants.pl_constant is not None
    kind, theorem = (Certified, certified.theorem) if convex else (NonConvex, nonconvex.theorem)
    number, reference = both(
        kind(gamma, 1.0), theorem, problem, 1, local_steps, [1] * len(fleet), gamma=gamma, z=1
    )
    assert same(number, reference)

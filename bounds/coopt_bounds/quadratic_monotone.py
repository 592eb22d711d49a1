"""Which way the expected loss on quadratics moves: what a search over rounds and local steps prunes with.

The gap of the mean model is a constant and terms c r^K, one for each pair of eigenvalues of M, and is not
monotone in K (devices drift). Each term is, for r >= 0, so V over an interval of K is at least the sum of the
terms' lesser ends. Noise is nondecreasing in K whatever the signs, and what a round adds is nondecreasing in
the local steps, in the order of symmetric matrices.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.matrices import matrix_function, matrix_symbols
from coopt_bounds.proof import Combine, Identity, Induct, SumOver, term
from coopt_bounds.symbols import N, eta, i, j, s

size = sp.Symbol("m", integer=True, positive=True)
directions = sp.Tuple(i, 1, size)
curvature, values = sp.IndexedBase("lambda", nonnegative=True), sp.IndexedBase("P", nonnegative=True)
inner = sp.Symbol("trace", real=True)
_spectral = Assumption(
    "H = sum lambda_l u_l u_l' with lambda_l >= 0, and P_l = (W u_l)'P(W u_l) >= 0 since P is a covariance: "
    "tr(H W P W) = sum lambda_l P_l for a symmetric W",
    equal(inner, sp.Sum(curvature[i] * values[i], directions)),
)

TRACE = Lemma(
    name="quadratic-monotone/trace",
    words="tr(H W P W) >= 0 for every symmetric W: no weight of 1/s_i is negative.",
    hypotheses=(_spectral,),
    steps=(
        Combine(
            at_least(inner, 0),
            (term(1, _spectral.relation), term(sp.Sum(curvature[i] * values[i], directions))),
        ),
    ),
    source="spectral theorem",
)

weight = sp.Function("W", real=True)
added = sp.Function("h", nonnegative=True)
_one_more = Assumption(
    "W(K+1) = W(K) + tr(H W_K P W_K)/2, the last by lemma quadratic-monotone/trace",
    equal(weight(n + 1), weight(n) + added(n)),
)

ROUNDS = Lemma(
    name="quadratic-monotone/rounds",
    words="The weight of 1/s_i never falls in the number of rounds, whatever the signs of M's eigenvalues, "
    "with momentum too.",
    hypotheses=(_one_more,),
    steps=(Combine(at_least(weight(n + 1), weight(n)), (term(1, _one_more.relation), term(added(n)))),),
    source="coopt",
)

P, form = matrix_function("P"), sp.Function("x^TPx", real=True)
J, C = matrix_symbols("J C")
share = sp.Symbol("p_i", positive=True)
value = sp.Function("c", nonnegative=True)
_added = Assumption(
    "P(tau+1) = P(tau) + eta^2 p^2 J^tau C J^tau, in a direction x: (J^tau x)'C(J^tau x) >= 0",
    equal(form(n + 1), form(n) + eta**2 * share**2 * value(n)),
)

LOCAL_STEPS = Lemma(
    name="quadratic-monotone/local-steps",
    words="P_i(tau) never falls in the number of local steps, in any direction (in Loewner's order).",
    hypotheses=(_added,),
    steps=(
        Combine(
            at_least(form(n + 1), form(n)),
            (term(1, _added.relation), term(eta**2 * share**2 * value(n))),
        ),
    ),
    source="coopt",
)

gain, few, many = (sp.IndexedBase(name, nonnegative=True) for name in ("g", "P_few", "P_many"))
left_few, left_many = sp.symbols("W_few W_many", real=True)
_ordered = Assumption(
    "lemma quadratic-monotone/local-steps in the direction of every eigenvector of G_K = sum of M^k H M^k "
    "over k < K, tau_1 <= tau",
    at_least(many[i], few[i]),
)
_at_many = Assumption(
    "W_i(K, tau) is half the inner product of G_K(tau) and P_i(tau)",
    equal(left_many, sp.Sum(gain[i] * many[i], directions) / 2),
)
_at_few = Assumption(
    "the same G_K(tau) with P_i(tau_1)", equal(left_few, sp.Sum(gain[i] * few[i], directions) / 2)
)
_all_directions = SumOver(_ordered.relation, gain[i], directions)

NOISE_FLOOR = Lemma(
    name="quadratic-monotone/noise-floor",
    words="G_K(tau) with the P_i of fewer local steps bounds the weight at tau from below.",
    hypotheses=(_ordered, _at_many, _at_few),
    steps=(
        _all_directions,
        Combine(
            at_least(left_many, left_few),
            (
                term(sp.Rational(1, 2), _all_directions.conclusion),
                term(1, _at_many.relation),
                term(-1, _at_few.relation),
            ),
        ),
    ),
    source="coopt",
)

c, r, x = sp.symbols("c r x", nonnegative=True)
_short = Assumption("r <= 1", at_most(r, 1))
_long = Assumption("r >= 1", at_least(r, 1))

TERM_FALLS = Lemma(
    name="quadratic-monotone/term-falls",
    words="c r^K never rises in K for c >= 0 and 0 <= r <= 1; with a negative c it never falls.",
    hypotheses=(_short,),
    steps=(Combine(at_least(c * r**n, c * r ** (n + 1)), (term(c * r**n, _short.relation),)),),
    source="elementary",
)

TERM_RISES = Lemma(
    name="quadratic-monotone/term-rises",
    words="c r^K never falls in K for c >= 0 and r >= 1.",
    hypotheses=(_long,),
    steps=(Combine(at_least(c * r ** (n + 1), c * r**n), (term(c * r**n, _long.relation),)),),
    source="elementary",
)

PARITY = Lemma(
    name="quadratic-monotone/parity",
    words="For r = -x < 0 the even K have c (x^2)^k and the odd ones -c x (x^2)^k: monotone each.",
    hypotheses=(),
    steps=(
        Identity(c * (-x) ** (2 * n), c * (x**2) ** n),
        Identity(c * (-x) ** (2 * n + 1), -c * x * (x**2) ** n),
    ),
    source="elementary",
)

terms = sp.Tuple(i, 1, N)
at_K, lesser = sp.IndexedBase("v", real=True), sp.IndexedBase("l", real=True)
constant, mean_gap = sp.symbols("const V", real=True)
_each = Assumption(
    "every term at K is at least the lesser of its ends on [K_1, K_2]: lemmas term-falls, term-rises and "
    "parity",
    at_least(at_K[i], lesser[i]),
)
_is_sum = Assumption("V is a constant and terms", equal(mean_gap, constant + sp.Sum(at_K[i], terms)))
_all_terms = SumOver(_each.relation, sp.S.One, terms)

INTERVAL = Lemma(
    name="quadratic-monotone/interval",
    words="On [K_1, K_2] the gap of the mean model is at least the constant plus the lesser ends of its "
    "terms.",
    hypotheses=(_each, _is_sum),
    steps=(
        _all_terms,
        Combine(
            at_least(mean_gap, constant + sp.Sum(lesser[i], terms)),
            (term(1, _all_terms.conclusion), term(1, _is_sum.relation)),
        ),
    ),
    source="coopt",
)

h, u, mu, start, deviation = (sp.Symbol(name, real=True) for name in ("h_ab", "u", "mu", "z_f", "d"))
_component = sp.Function("m", real=True)
_recursion = Assumption(
    "a component of the mean model in the eigenbasis of M, z_f its fixed point: m - z_f shrinks by mu a "
    "round",
    equal(_component(n + 1), mu * (_component(n) - start) + start),
)
_from_zero = Assumption("it starts at 0", equal(_component(0), 0))
_closed = equal(_component(n), start - start * mu**n)

COMPONENT = Lemma(
    name="quadratic-monotone/component",
    words="A component of the mean model is z_f - z_f mu^K: products of two make the terms c r^K of V.",
    hypotheses=(_recursion, _from_zero),
    steps=(
        Induct(
            _closed,
            index=n,
            start=0,
            base=(Combine(equal(_component(0), start - start * mu**0), (term(1, _from_zero.relation),)),),
            step=(
                Combine(
                    equal(_component(n + 1), start - start * mu ** (n + 1)),
                    (term(1, _recursion.relation), term(mu, _closed)),
                ),
            ),
        ),
    ),
    source="geometric recursion",
)

_z1, _z2, _d1, _d2, _m1, _m2 = sp.symbols("u_a u_b d_a d_b mu_a mu_b", real=True)

TERMS = Lemma(
    name="quadratic-monotone/terms",
    words="With d = z_f - z_* and u = -z_f in the eigenbasis of M, (m - z_*)'H(m - z_*)/2 is sum over (a, "
    "b) of h_ab/2 times d_a d_b + d_a u_b mu_b^K + u_a d_b mu_a^K + u_a u_b (mu_a mu_b)^K.",
    hypotheses=(),
    steps=(
        Identity(
            (_d1 + _z1 * _m1**n) * h * (_d2 + _z2 * _m2**n),
            h * (_d1 * _d2 + _d1 * _z2 * _m2**n + _z1 * _d2 * _m1**n + _z1 * _z2 * _m1**n * _m2**n),
        ),
    ),
    source="coopt",
)

steepness = sp.Symbol("lambda", nonnegative=True)
_stable = Assumption("eta lambda <= 1 for every curvature", at_most(eta * steepness, 1))

NONNEGATIVE = Lemma(
    name="quadratic-monotone/nonnegative",
    words="Where eta lambda <= 1 on every device (or tau is even), M has no negative eigenvalue.",
    hypotheses=(_stable,),
    steps=(
        Induct(
            at_least((1 - eta * steepness) ** n, 0),
            index=n,
            start=0,
            base=(Combine(at_least((1 - eta * steepness) ** 0, 0), (term(1),)),),
            step=(
                Combine(
                    at_least((1 - eta * steepness) ** (n + 1), 0),
                    (term(1, at_least((1 - eta * steepness) ** n, 0), _stable.relation),),
                ),
            ),
        ),
    ),
    source="elementary",
)

EVEN = Lemma(
    name="quadratic-monotone/even-steps",
    words="An even power of I - eta H has no negative eigenvalue, whatever the learning rate.",
    hypotheses=(),
    steps=(
        Combine(at_least((1 - eta * steepness) ** (2 * j), 0), (term(((1 - eta * steepness) ** 2) ** j),)),
    ),
    source="elementary",
)

fewer, more = sp.IndexedBase("W_1", nonnegative=True), sp.IndexedBase("W_2", nonnegative=True)
optimum_fewer, optimum_more = sp.symbols("W_opt1 W_opt2", real=True)
_weights_grow = Assumption(
    "lemma quadratic-monotone/rounds: weights at K_2 >= K_1", at_least(more[i], fewer[i])
)
_best_more = Assumption(
    "s is a best choice of batches at K_2", equal(optimum_more, sp.Sum(more[i] / s[i], terms))
)
_feasible = Assumption(
    "batches that fit at K_2 fit at K_1: budget and caps a round shrink in K",
    at_most(optimum_fewer, sp.Sum(fewer[i] / s[i], terms)),
)
_weighed = SumOver(_weights_grow.relation, 1 / s[i], terms)

BEST_NOISE = Lemma(
    name="quadratic-monotone/best-noise",
    words="The noise of the best batches never falls in K at the same tau: V + W over an interval is at "
    "least the least V plus the W of its first K.",
    hypotheses=(_weights_grow, _best_more, _feasible),
    steps=(
        _weighed,
        Combine(
            at_least(optimum_more, optimum_fewer),
            (
                term(1, _weighed.conclusion),
                term(1, _best_more.relation),
                term(1, _feasible.relation),
            ),
        ),
    ),
    source="coopt",
)

LEMMAS: tuple[Lemma, ...] = (
    TRACE,
    ROUNDS,
    LOCAL_STEPS,
    NOISE_FLOOR,
    TERM_FALLS,
    TERM_RISES,
    PARITY,
    INTERVAL,
    COMPONENT,
    TERMS,
    NONNEGATIVE,
    EVEN,
    BEST_NOISE,
)

"""Hidden convexity: in y1 = 1/(K tau), y2 = 1/tau and s the limits are linear and the noise is convex.

These lemmas justify cuts (supporting hyperplanes that bound every plan from below) and the search for the
best number of steps under a cut.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, Grow, Identity, Substitute, term

s1, s2, share, other, w = sp.symbols("s_1 s_2 theta phi w", positive=True)
shares = Assumption("theta and phi = 1 - theta are the shares of two plans", equal(share + other, 1))
_mixed = share * s1 + other * s2

RECIPROCAL = Lemma(
    name="convexity/reciprocal",
    words="w/s is convex in s: mixing two plans never costs more noise than the mix of their noises.",
    hypotheses=(shares,),
    steps=(
        Combine(
            at_most(w / _mixed, share * w / s1 + other * w / s2),
            (
                term(w * share * other * (s1 - s2) ** 2 / (s1 * s2 * _mixed)),
                term(w * (share + other + 1) / _mixed, shares.relation),
            ),
        ),
    ),
    source="convexity of 1/s",
)

use1, use2, R, b, y11, y12, y21, y22 = sp.symbols("A_1 A_2 R b y_11 y_12 y_21 y_22", nonnegative=True)
_fits1 = Assumption("the first plan fits: sum a_i s_i <= R y1 - b y2", at_most(use1, R * y11 - b * y12))
_fits2 = Assumption("the second plan fits", at_most(use2, R * y21 - b * y22))

FEASIBLE_MIX = Lemma(
    name="convexity/feasible-mix",
    words="K (tau sum a_i s_i + b) <= R is linear in (s, y): a mix of two feasible points is feasible. The "
    "deadline "
    "s_i <= pi_i (theta y1 - u_i y2) has the same form. Hence the least noise W(y) is convex in y.",
    hypotheses=(_fits1, _fits2),
    steps=(
        Combine(
            at_most(
                share * use1 + other * use2,
                R * (share * y11 + other * y21) - b * (share * y12 + other * y22),
            ),
            (term(share, _fits1.relation), term(other, _fits2.relation)),
        ),
    ),
    source="coopt",
)

W1, W2, W_mix, v1, v2, v_mix = sp.symbols("W_1 W_2 W_mix v_1 v_2 v_mix", nonnegative=True)
_best1 = Assumption("v_1 is the noise of the best plan at y_1", equal(W1, v1))
_best2 = Assumption("v_2 is the noise of the best plan at y_2", equal(W2, v2))
_mix_value = Assumption(
    "lemma convexity/reciprocal, summed over devices", at_most(v_mix, share * v1 + other * v2)
)
_mix_feasible = Assumption("lemma convexity/feasible-mix: the mixed plan is feasible", at_most(W_mix, v_mix))

VALUE = Lemma(
    name="convexity/value",
    words="The least noise W(y) is convex in y = (1/(K tau), 1/tau) for weights that do not depend on tau: "
    "the "
    "multipliers of one inner solve give a hyperplane below W everywhere.",
    hypotheses=(_best1, _best2, _mix_value, _mix_feasible),
    steps=(
        Combine(
            at_most(W_mix, share * W1 + other * W2),
            (
                term(1, _mix_feasible.relation),
                term(1, _mix_value.relation),
                term(share, _best1.relation),
                term(other, _best2.relation),
            ),
        ),
    ),
    source="partial minimisation of a jointly convex function",
)

x = sp.Symbol("x", nonnegative=True)
u = sp.Symbol("u", positive=True)
_slope0 = at_least(x * sp.exp(x), 0)
_slope1 = at_least((x - 1) * sp.exp(x) + 1, 0)
_above_line = at_least((x - 2) * sp.exp(x) + x + 2, 0)

EXPONENTIAL = Lemma(
    name="convexity/exponential",
    words="(x-2) e^x + x + 2 >= 0 for x >= 0: it and its slope are 0 at 0 and its second derivative is x "
    "e^x.",
    hypotheses=(),
    steps=(
        Combine(_slope0, (term(x * sp.exp(x)),)),
        Grow(_slope1, x, _slope0),
        Grow(_above_line, x, _slope1),
    ),
    source="calculus",
)

_round_u = u / (1 - sp.exp(-u))

ROUND_CONVEX = Lemma(
    name="convexity/round",
    words="x/(1-e^-x) is convex (x > 0), so tau/(1-q^tau) is convex in tau.",
    hypotheses=(),
    steps=(
        Apply(EXPONENTIAL, {x: u}),
        Combine(
            at_least(sp.Derivative(_round_u, (u, 2)), 0),
            (term(sp.exp(u) / (sp.exp(u) - 1) ** 3, Apply(EXPONENTIAL, {x: u}).conclusion),),
        ),
    ),
    source="calculus",
)

A, cut, level = sp.symbols("A c_1 t", real=True)
T, k = sp.symbols("T k", positive=True)

CUT_LEVEL = Lemma(
    name="convexity/cut-level",
    words="Under a cut G >= G0 - c1/T the bound is at least D0 - (1-e^(-kT))(A + c1/T), A = D0 - G0. Its "
    "part below "
    "D0 - t is {A T + c1 - t T/(1-e^(-kT)) >= 0} (T > 0): for t >= 0 a line minus a convex function, so an "
    "interval.",
    hypotheses=(),
    steps=(
        Identity(
            (1 - sp.exp(-k * T)) * (A + cut / T) - level,
            (1 - sp.exp(-k * T)) / T * (A * T + cut - level * T / (1 - sp.exp(-k * T))),
        ),
    ),
    source="coopt",
)

_loss = sp.Symbol("a", nonnegative=True)
_c1 = sp.Symbol("c_1", nonnegative=True)
_decay = at_least(1 - (1 + x) * sp.exp(-x), 0)
_decay_slope = at_least(x * sp.exp(-x), 0)

CUT_FALLS = Lemma(
    name="convexity/cut-falls",
    words="For A = -a <= 0 and c1 >= 0, (1-e^-x)(c1/x - a) never rises in x: below D0 or above it, the "
    "cut's bound is "
    "quasiconvex in T. Together with convexity/cut-level: quasiconvex for all A, c1 >= 0.",
    hypotheses=(),
    steps=(
        Combine(_decay_slope, (term(x * sp.exp(-x)),)),
        Grow(_decay, x, _decay_slope),
        Substitute(_decay, {x: u}),
        Combine(
            at_most(sp.Derivative((1 - sp.exp(-u)) * (_c1 / u - _loss), u), 0),
            (
                term(_c1 / u**2, at_least(1 - (1 + u) * sp.exp(-u), 0)),
                term(_loss * sp.exp(-u)),
            ),
        ),
    ),
    source="coopt",
)

_chord = at_least((u - 2) * sp.exp(u) + u + 2, 0)

ROUNDS_CONVEX = Lemma(
    name="convexity/rounds",
    words="1/(1-e^(-1/y)) is convex in y > 0 (u = 1/y): where the floor is convex in y and below D0, "
    "D0 - (D0-G)(1-q^(1/y)) is quasiconvex in y, since its part below D0 - t is where D0 - G - "
    "t/(1-q^(1/y)) >= 0.",
    hypotheses=(),
    steps=(
        Apply(EXPONENTIAL, {x: u}),
        Combine(
            at_least(
                # d^2/dy^2 of f(1/y) is u^4 f'' + 2 u^3 f'
                u**4 * sp.Derivative(1 / (1 - sp.exp(-u)), (u, 2))
                + 2 * u**3 * sp.Derivative(1 / (1 - sp.exp(-u)), u),
                0,
            ),
            (term(u**3 * sp.exp(u) / (sp.exp(u) - 1) ** 3, _chord),),
        ),
    ),
    source="coopt",
)

f, f1, f2, g, g1, g2 = sp.symbols("f f_1 f_2 g g_1 g_2", nonnegative=True)

PRODUCT = Lemma(
    name="convexity/product",
    words="A product of two nonnegative, nondecreasing, convex functions is convex (f_1, f_2 the first and "
    "second "
    "derivatives).",
    hypotheses=(),
    steps=(Combine(at_least(f2 * g + 2 * f1 * g1 + f * g2, 0), (term(f2 * g + 2 * f1 * g1 + f * g2),)),),
    source="product rule",
)

h1 = sp.Symbol("h_1", real=True)
h0, h2 = sp.symbols("h h_2", nonnegative=True)

SQUARE_OVER = Lemma(
    name="convexity/square-over",
    words="h^2/tau is convex for a nonnegative convex h: its second derivative (u = tau; h, h_1, h_2 the "
    "function and its derivatives) is 2 (h/tau) h'' + "
    "2 (tau h' - h)^2/tau^3.",
    hypotheses=(),
    steps=(
        Combine(
            at_least(2 * h1**2 / u + 2 * h0 * h2 / u - 4 * h0 * h1 / u**2 + 2 * h0**2 / u**3, 0),
            (term(2 * h0 * h2 / u), term(2 * (u * h1 - h0) ** 2 / u**3)),
        ),
    ),
    source="perspective of the square",
)

LEMMAS: tuple[Lemma, ...] = (
    RECIPROCAL,
    FEASIBLE_MIX,
    VALUE,
    EXPONENTIAL,
    ROUND_CONVEX,
    CUT_LEVEL,
    CUT_FALLS,
    ROUNDS_CONVEX,
    PRODUCT,
    SQUARE_OVER,
)

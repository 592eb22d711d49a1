"""Closed forms: the best number of steps of a relaxation, each with a proof that nothing is below.

Limits of single batches and whole numbers are left out; cost and time remain. `best_batches` has the batches.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import best_batches
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.best_batches import K, length, no_boxes, share, tau
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, Grow, Identity, term
from coopt_bounds.symbols import D0, Quantity
from coopt_bounds.theorem import Theorem

x = sp.Symbol("x", nonnegative=True)
_slope_above, _slope_below = at_least(sp.exp(x) - 1, 0), at_least(1 - sp.exp(-x), 0)

EXPONENTIAL_ABOVE = Lemma(
    name="closed-forms/exponential-above",
    words="e^x >= 1 + x for x >= 0.",
    hypotheses=(),
    steps=(
        Combine(_slope_above, (term(sp.exp(x) - 1),)),
        Grow(at_least(sp.exp(x) - 1 - x, 0), x, _slope_above),
    ),
    source="calculus",
)

EXPONENTIAL_BELOW = Lemma(
    name="closed-forms/exponential-below",
    words="e^-x >= 1 - x for x >= 0. With closed-forms/exponential-above: e^d >= 1 + d for every real "
    "d, above and below 0.",
    hypotheses=(),
    steps=(
        Combine(_slope_below, (term(sp.exp(-x) * (sp.exp(x) - 1)),)),
        Grow(at_least(sp.exp(-x) - 1 + x, 0), x, _slope_below),
    ),
    source="calculus",
)

rate, amount = sp.symbols("c_q A", positive=True)
y = sp.Symbol("y", nonnegative=True)
floor = sp.Symbol("phi", nonnegative=True)
_ahead = rate * length - y
_tangents = (
    Assumption("lemma closed-forms/exponential at d = c_q T - y", at_least(sp.exp(_ahead) - 1 - _ahead, 0)),
    Assumption("the same at -d", at_least(sp.exp(-_ahead) - 1 + _ahead, 0)),
)
_root = Assumption(
    "y + e^y = kappa = 1 + c_q (D_0 - phi)/A, so that y = kappa - W(e^kappa)",
    equal(y + sp.exp(y), 1 + rate * (D0 - floor) / amount),
)
geometric_value = (
    sp.exp(-rate * length) * (D0 - floor) + floor + (1 - sp.exp(-rate * length)) * amount * length
)
lambert_value = floor + amount / rate * (1 - sp.exp(-y) + y)

LAMBERT = Lemma(
    name="closed-forms/lambert",
    words="Free rounds: after T steps with noise A T the bound is at least phi + (A/c_q)(1 - e^-y + y),"
    " whatever T.",
    hypotheses=(*_tangents, _root),
    steps=(
        Combine(
            at_most(lambert_value, geometric_value),
            (
                term(amount / rate, _tangents[1].relation),
                term(amount / rate * sp.exp(-rate * length), _tangents[0].relation),
                term(-amount / rate * sp.exp(-rate * length), _root.relation),
            ),
        ),
    ),
    source="coopt",
)

LAMBERT_ATTAINED = Lemma(
    name="closed-forms/lambert-attained",
    words="At T = y/c_q the bound is exactly that.",
    hypotheses=(_root,),
    steps=(
        Combine(
            equal(geometric_value.subs(length, y / rate), lambert_value),
            (term(-amount / rate * sp.exp(-y), _root.relation),),
        ),
    ),
    source="coopt",
)

LAMBERT_W = Lemma(
    name="closed-forms/lambert-w",
    words="e^y is W(e^kappa) for kappa = y + e^y: it solves w e^w = e^kappa. (e^kappa itself may "
    "overflow: ln W(e^kappa) is evaluated by the Wright omega function.)",
    hypotheses=(),
    steps=(Identity(sp.exp(y) * sp.exp(sp.exp(y)), sp.exp(y + sp.exp(y))),),
    source="definition of Lambert's W",
)

X, X_best = sp.symbols("X X_o", nonnegative=True)
_T, _T_best, _g_best = X / (1 + share * X), X_best / (1 + share * X_best), 1 / (1 + share * X_best)
_y, _y_best = rate * _T, rate * _T_best
_beyond = X - X_best
_tangent = Assumption(
    "lemma closed-forms/exponential at -(y - y_o), y = c_q T, y_o = c_q T_o",
    at_least(sp.exp(-_y + _y_best) - 1 + _y - _y_best, 0),
)
_stationary = Assumption(
    "e^y_o - 1 + g y_o = g^2 c_q (D_0 - phi)/A with g = 1 - varrho T_o",
    equal(sp.exp(_y_best) - 1 + _g_best * _y_best, _g_best**2 * rate * (D0 - floor) / amount),
)
_useful = Assumption("the floor at X is at most D_0", at_least(D0 - floor - amount * X, 0))
costly_value = sp.exp(-_y) * (D0 - floor) + floor + (1 - sp.exp(-_y)) * amount * X
costly_best = costly_value.subs(X, X_best)
_concave = at_least(_T_best + _g_best**2 * _beyond - _T, 0)

COSTLY = Lemma(
    name="closed-forms/costly-rounds",
    words="Rounds that cost: with X = T/(1 - varrho T), so T = X/(1 + varrho X), T is concave in X and "
    "1 - e^-y in y; no X is better than the stationary one.",
    hypotheses=(_tangent, _stationary, _useful),
    steps=(
        Combine(_concave, (term(share * _beyond**2 * _g_best**2 / (1 + share * X)),)),
        Combine(
            at_most(costly_best, costly_value),
            (
                term(sp.exp(-_y_best), _tangent.relation, _useful.relation),
                term(rate * sp.exp(-_y_best), _concave, _useful.relation),
                term(rate * sp.exp(-_y_best) * _g_best**2 * amount * _beyond**2),
                term(_beyond * amount * sp.exp(-_y_best), _stationary.relation),
            ),
        ),
    ),
    source="coopt",
)

_useless = Assumption("the floor at X is D_0 or more", at_least(floor + amount * X - D0, 0))
P, best_value = sp.symbols("P V_o", nonnegative=True)
_no_worse = Assumption("the optimum is at most D_0", at_most(best_value, D0))

BEYOND = Lemma(
    name="closed-forms/beyond",
    words="Where the floor is D_0 or more the bound D_0 - P (D_0 - floor), P = 1 - e^-y, is at least "
    "D_0, and so at least the optimum.",
    hypotheses=(_useless, _no_worse),
    steps=(
        Combine(
            at_most(best_value, D0 - P * (D0 - floor - amount * X)),
            (term(P, _useless.relation), term(1, _no_worse.relation)),
        ),
    ),
    source="coopt",
)

_short = Assumption("rounds leave room for the steps: varrho T <= 1", at_most(share * length, 1))
_spread = sp.Symbol("Delta", nonnegative=True)

ONE_ROOT = Lemma(
    name="closed-forms/one-root",
    words="e^y - 1 + g y - g^2 c_q Delta/A, g = 1 - varrho T, Delta = D_0 - phi, rises with T: one "
    "stationary point.",
    hypotheses=(_short,),
    steps=(
        Combine(
            at_least(
                sp.Derivative(
                    sp.exp(rate * length)
                    - 1
                    + (1 - share * length) * rate * length
                    - (1 - share * length) ** 2 * rate * _spread / amount,
                    length,
                ),
                0,
            ),
            (
                term(rate * (sp.exp(rate * length) - 1)),
                term(2 * rate, _short.relation),
                term(2 * share * rate * _spread / amount, _short.relation),
            ),
        ),
    ),
    source="coopt",
)

r = sp.Symbol("r", positive=True)
X_some = sp.Symbol("X", positive=True)
reciprocal_value = r * (1 + share * X_some) / X_some + amount * X_some
reciprocal_best = r * share + 2 * sp.sqrt(amount * r)

RECIPROCAL = Lemma(
    name="closed-forms/reciprocal",
    words="Progress r/T: the bound is at least r varrho + 2 sqrt(A r) above phi, whatever X = T/(1 - "
    "varrho T).",
    hypotheses=(),
    steps=(
        Combine(
            at_most(reciprocal_best, reciprocal_value),
            (term((sp.sqrt(r) - sp.sqrt(amount) * X_some) ** 2 / X_some),),
        ),
    ),
    source="arithmetic and geometric mean",
)

RECIPROCAL_ATTAINED = Lemma(
    name="closed-forms/reciprocal-attained",
    words="T = 1/(varrho + sqrt(A/r)) has exactly that: X = sqrt(r/A).",
    hypotheses=(),
    steps=(
        Identity(sp.sqrt(r / amount) / (1 + share * sp.sqrt(r / amount)), 1 / (share + sp.sqrt(amount / r))),
        Identity(reciprocal_value.subs(X_some, sp.sqrt(r / amount)), reciprocal_best),
    ),
    source="arithmetic and geometric mean",
)

step_noise = sp.Symbol("V", positive=True)
_given_rounds = {amount: step_noise / K, length: K * tau, floor: sp.S.Zero}
_given = tuple(
    Assumption(a.words, a.relation.subs(_given_rounds)) for a in LAMBERT.hypotheses if a.relation is not None
)

CO_OPTIMISED = Lemma(
    name="closed-forms/co-optimised",
    words="For given K every limit fixes the products v_i = tau s_i where steps are free (h_i = f = 0), so "
    "the best batches leave noise V tau, V = min sum w_i/v_i. Without drift tau = y/(c_q K) is best, with "
    "y + e^y = 1 + c_q K D_0/V.",
    hypotheses=_given,
    steps=(Apply(LAMBERT, _given_rounds),),
    source="DYNAMITE (arXiv 2310.14906): co-optimal tau and s for given K, there by approximation",
)

floor_low, amount_low = sp.symbols("phi_1 A_1", nonnegative=True)
g, g_high = sp.symbols("g g_2", positive=True)
_floors = Assumption("drift is smallest at the low end of the range of tau", at_most(floor_low, floor))
_amounts = Assumption("so are the weights, and with them A", at_most(amount_low, amount))
_shares = Assumption("rounds weigh least at the high end: 1 - varrho T is largest", at_most(g, g_high))

WITH_DRIFT = Lemma(
    name="closed-forms/with-drift",
    words="With drift, for a range of tau: the floor is at least that with phi and A of the low end and"
    " varrho of the high end. Halving the range with the smallest value ends at the best tau.",
    hypotheses=(_floors, _amounts, _shares),
    steps=(
        Combine(
            at_most(floor_low + amount_low * length / g_high, floor + amount * length / g),
            (
                term(1, _floors.relation),
                term(length / g, _amounts.relation),
                term(amount_low * length / (g * g_high), _shares.relation),
            ),
        ),
    ),
    source="coopt",
)

_curve = (
    Quantity(rate, "-ln q: decay of the initial gap per step", "-"),
    Quantity(amount, "noise per step in all: floor = phi + A T/(1 - varrho T)", "loss"),
    Quantity(floor, "drift: the part of the floor that more samples do not lower", "loss"),
)
lambert = Theorem(
    name="best-steps",
    title="The best number of steps where rounds cost nothing",
    number="F3",
    citation="coopt; Lambert's W as in Corless et al. 1996",
    assumptions=(no_boxes, *_tangents, _root),
    left=lambert_value,
    bound=geometric_value,
    definitions=(),
    lemmas=(EXPONENTIAL_ABOVE, EXPONENTIAL_BELOW, LAMBERT_W, LAMBERT_ATTAINED, WITH_DRIFT, LAMBERT),
    quantities=(
        *_curve,
        Quantity(length, "local steps in all, K tau", "-"),
        Quantity(y, "the best c_q T", "-"),
    ),
)

costly = Theorem(
    name="best-steps-costly-rounds",
    title="The best number of steps where rounds or steps cost money or time",
    number="F4",
    citation="coopt",
    assumptions=(no_boxes, _tangent, _stationary, _useful),
    left=costly_best,
    bound=costly_value,
    definitions=(),
    lemmas=(ONE_ROOT, BEYOND, COSTLY),
    quantities=(
        *_curve,
        Quantity(share, "share of the limit that a step uses before its samples, rounds included", "-"),
        Quantity(X, "T/(1 - varrho T), T local steps in all", "-"),
        Quantity(X_best, "X at the stationary point", "-"),
    ),
)

reciprocal = Theorem(
    name="best-steps-reciprocal",
    title="The best number of steps where progress is reciprocal, as for (N)",
    number="F5",
    citation="arithmetic and geometric mean",
    assumptions=(no_boxes,),
    left=reciprocal_best,
    bound=reciprocal_value,
    definitions=(),
    lemmas=(RECIPROCAL_ATTAINED, RECIPROCAL),
    quantities=(
        Quantity(r, "progress r/T", "gradient^2"),
        *_curve[1:2],
        Quantity(share, "share of the limit that a step uses before its samples, rounds included", "-"),
        Quantity(X_some, "T/(1 - varrho T), T local steps in all", "-"),
    ),
)

co_optimised = Theorem(
    name="co-optimised",
    title="The best local steps and batches for given rounds, without drift",
    number="F6",
    citation="DYNAMITE (arXiv 2310.14906), there by approximation",
    assumptions=(no_boxes, *_given),
    left=lambert_value.subs(_given_rounds),
    bound=geometric_value.subs(_given_rounds),
    definitions=(),
    lemmas=(EXPONENTIAL_ABOVE, EXPONENTIAL_BELOW, LAMBERT, CO_OPTIMISED),
    quantities=(
        _curve[0],
        Quantity(step_noise, "noise of the best batches per local step of a round", "loss"),
        Quantity(y, "the best c_q K tau", "-"),
    ),
)

THEOREMS = (*best_batches.THEOREMS, lambert, costly, reciprocal, co_optimised)

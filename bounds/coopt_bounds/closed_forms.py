"""Closed forms: the best batches and steps of a relaxation, each with a proof that nothing is below.

Limits of single batches and whole numbers are left out; cost and time remain. The weights and costs of the
devices enter through their roots: w_i = omega_i^2 and a_i = alpha_i^2.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, Grow, Identity, Substitute, SumOver, term
from coopt_bounds.symbols import D0, N, Quantity, i, s
from coopt_bounds.theorem import Theorem

# Real numbers here: the relaxation has no integers.
K, tau = sp.symbols("K tau", positive=True)
omega, alpha = sp.IndexedBase("omega", nonnegative=True), sp.IndexedBase("alpha", positive=True)
level, root_sum = sp.symbols("lambda S", nonnegative=True)
work, limit, length = sp.symbols("E R T", positive=True)
round_cost = sp.Symbol("b", nonnegative=True)
step_cost = sp.Symbol("f", nonnegative=True)
devices = sp.Tuple(i, 1, N)

noise = sp.Sum(omega[i] ** 2 / s[i], devices)
both_roots = sp.Sum(omega[i] * alpha[i], devices)
one_step = sp.Sum(alpha[i] ** 2 * s[i], devices)

_affordable = Assumption("one step may cost E: sum a_i s_i <= E", at_most(one_step, work))
_roots = Assumption("S = sum of sqrt(w_i a_i)", equal(root_sum, both_roots))
_touch = at_least(omega[i] ** 2 / s[i], 2 * level * omega[i] * alpha[i] - level**2 * alpha[i] ** 2 * s[i])
_touches = SumOver(_touch, sp.S.One, devices)
_at_level = Substitute(_touches.conclusion, {level: root_sum / work})

HETEROGENEOUS = Lemma(
    name="closed-forms/batches",
    words="Batches of any size whose step costs at most E leave noise S^2/E or more (Cauchy-Schwarz, by"
    " tangents of 1/s_i at one level lambda).",
    hypotheses=(_affordable, _roots),
    steps=(
        Combine(_touch, (term((omega[i] - level * alpha[i] * s[i]) ** 2 / s[i]),)),
        _touches,
        _at_level,
        Combine(
            at_most(root_sum**2 / work, noise),
            (
                term(1, _at_level.conclusion),
                term((root_sum / work) ** 2, _affordable.relation),
                term(-2 * root_sum / work, _roots.relation),
            ),
        ),
    ),
    source="Cauchy-Schwarz",
)

_some_noise = sp.Symbol("S", positive=True)
_spends = Assumption(_roots.words, equal(_some_noise, both_roots))
_best = work * omega[i] / (alpha[i] * _some_noise)

ATTAINED = Lemma(
    name="closed-forms/batches-attained",
    words="s_i = E sqrt(w_i/a_i)/S has exactly that noise: for the published bound s_i is proportional "
    "to p_i sqrt(M_i/a_i).",
    hypotheses=(_spends,),
    steps=(
        Combine(
            equal(sp.Sum(omega[i] ** 2 / _best, devices), _some_noise**2 / work),
            (term(-_some_noise / work, _spends.relation),),
        ),
    ),
    source="Cauchy-Schwarz, equality",
)

ATTAINED_COST = Lemma(
    name="closed-forms/batches-cost",
    words="Those batches cost E a step.",
    hypotheses=(_spends,),
    steps=(
        Combine(
            equal(sp.Sum(alpha[i] ** 2 * _best, devices), work),
            (term(-work / _some_noise, _spends.relation),),
        ),
    ),
    source="Cauchy-Schwarz, equality",
)

batch, prices = sp.symbols("s_0 a", positive=True)
weight = sp.Symbol("w", nonnegative=True)
_same_affordable = Assumption(
    "the same batch s_0 everywhere, a = sum a_i: a s_0 <= E", at_most(prices * batch, work)
)

HOMOGENEOUS = Lemma(
    name="closed-forms/same-batch",
    words="The same batch on every device leaves noise w a/E or more, w and a the sums of w_i and a_i; "
    "s_0 = E/a has exactly that.",
    hypotheses=(_same_affordable,),
    steps=(
        Combine(
            at_most(weight * prices / work, weight / batch),
            (term(weight / (work * batch), _same_affordable.relation),),
        ),
    ),
    source="one batch size",
)

_all_weights = Assumption("w = sum of w_i", equal(weight, sp.Sum(omega[i] ** 2, devices)))
_all_prices = Assumption("a = sum of a_i", equal(prices, sp.Sum(alpha[i] ** 2, devices)))
_square = at_least(omega[i] ** 2, 2 * level * omega[i] * alpha[i] - level**2 * alpha[i] ** 2)
_squares = SumOver(_square, sp.S.One, devices)
_common = Substitute(_squares.conclusion, {level: root_sum / prices})

SAME_COSTS_MORE = Lemma(
    name="closed-forms/same-batch-costs-more",
    words="S^2 <= w a: batches that fit their devices never leave more noise than the same batch everywhere.",
    hypotheses=(_all_weights, _all_prices, _roots),
    steps=(
        Combine(_square, (term((omega[i] - level * alpha[i]) ** 2),)),
        _squares,
        _common,
        Combine(
            at_most(root_sum**2, weight * prices),
            (
                term(prices, _common.conclusion),
                term(prices, _all_weights.relation),
                term(root_sum**2 / prices, _all_prices.relation),
                term(-2 * root_sum, _roots.relation),
            ),
        ),
    ),
    source="Cauchy-Schwarz",
)

_steps = K * tau

COST_FORM = Lemma(
    name="closed-forms/cost",
    words="The cost limit K (tau (sum a_i s_i + f) + b) <= R leaves E = (R/K - b)/tau - f for the samples of"
    " a step: noise S^2/E = A T/(1 - varrho T) with A = S^2/R, varrho = (f + b/tau)/R, T = K tau.",
    hypotheses=(),
    steps=(
        Identity(
            root_sum**2 / ((limit / K - round_cost) / tau - step_cost),
            root_sum**2 / limit * _steps / (1 - (step_cost + round_cost / tau) / limit * _steps),
        ),
    ),
    source="coopt",
)

speed = sp.IndexedBase("pi", positive=True)
delay = sp.IndexedBase("u", nonnegative=True)
start = sp.IndexedBase("h", nonnegative=True)
shortest = sp.Symbol("v_0", nonnegative=True)
deadline, busy = sp.symbols("theta B", positive=True)
_in_time = Assumption(
    "every device meets the deadline: K (tau (h_i + s_i/pi_i) + u_i) <= theta, h_i the time of a step",
    at_most(K * (tau * (start[i] + s[i] / speed[i]) + delay[i]), deadline),
)
_delays = Assumption(
    "v_0 is the shortest of h_i + u_i/tau, what a step takes beyond its samples",
    at_least(start[i] + delay[i] / tau, shortest),
)
_busy = Assumption(
    "B = theta - K tau v_0 is what is left for samples", equal(busy, deadline - _steps * shortest)
)
_device_time = at_least(omega[i] ** 2 / s[i], omega[i] ** 2 / speed[i] * _steps / busy)

DEADLINE = Lemma(
    name="closed-forms/deadline",
    words="A deadline leaves noise A T/(1 - varrho T) or more, A = sum(w_i/pi_i)/theta and varrho = "
    "v_0/theta: exactly that where all h_i + u_i/tau are v_0 and every device uses its time.",
    hypotheses=(_in_time, _delays, _busy),
    steps=(
        Combine(
            _device_time,
            (
                term(omega[i] ** 2 / (s[i] * busy), _in_time.relation),
                term(omega[i] ** 2 / (s[i] * busy) * _steps, _delays.relation),
                term(omega[i] ** 2 / (s[i] * busy), _busy.relation),
            ),
        ),
        SumOver(_device_time, sp.S.One, devices),
    ),
    source="coopt",
)

share = sp.Symbol("varrho", nonnegative=True)

DEADLINE_FORM = Lemma(
    name="closed-forms/deadline-form",
    words="K tau/(theta - K tau v_0) = (1/theta) T/(1 - varrho T): both limits leave noise of one form.",
    hypotheses=(),
    steps=(
        Identity(
            _steps / (deadline - _steps * shortest),
            _steps / deadline / (1 - shortest / deadline * _steps),
        ),
    ),
    source="coopt",
)

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

_per_device = (
    Quantity(omega[i], "root of the weight w_i of 1/s_i in the bound", "gradient samples^(1/2)"),
    Quantity(alpha[i], "root of the cost a_i of a sample", "cost^(1/2)"),
)
_curve = (
    Quantity(rate, "-ln q: decay of the initial gap per step", "-"),
    Quantity(amount, "noise per step in all: floor = phi + A T/(1 - varrho T)", "loss"),
    Quantity(floor, "drift: the part of the floor that more samples do not lower", "loss"),
)
_no_boxes = Assumption(
    "batch sizes, rounds and steps are positive real numbers; limits of single batches are left out"
)

heterogeneous = Theorem(
    name="best-batches",
    title="The least noise that a step of cost E can have",
    number="F1",
    citation="Cauchy-Schwarz; for the published bound DYNAMITE (arXiv 2310.14906)",
    assumptions=(_no_boxes, _affordable),
    left=root_sum**2 / work,
    bound=noise,
    definitions=(),
    lemmas=(ATTAINED, ATTAINED_COST, COST_FORM, DEADLINE, DEADLINE_FORM, HETEROGENEOUS),
    quantities=(
        *_per_device,
        Quantity(work, "what a step may cost", "cost"),
        Quantity(root_sum, "sum of omega_i alpha_i", "-"),
    ),
)

homogeneous = Theorem(
    name="same-batch",
    title="The least noise of a step with the same batch on every device",
    number="F2",
    citation="coopt",
    assumptions=(_no_boxes, _same_affordable),
    left=weight * prices / work,
    bound=weight / batch,
    definitions=(),
    lemmas=(SAME_COSTS_MORE, HOMOGENEOUS),
    quantities=(
        Quantity(weight, "sum of the weights w_i", "gradient^2 samples"),
        Quantity(prices, "sum of the sample costs a_i", "cost"),
        Quantity(work, "what a step may cost", "cost"),
        Quantity(batch, "the batch of every device", "samples"),
    ),
)

lambert = Theorem(
    name="best-steps",
    title="The best number of steps where rounds cost nothing",
    number="F3",
    citation="coopt; Lambert's W as in Corless et al. 1996",
    assumptions=(_no_boxes, *_tangents, _root),
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
    assumptions=(_no_boxes, _tangent, _stationary, _useful),
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
    assumptions=(_no_boxes,),
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
    assumptions=(_no_boxes, *_given),
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

THEOREMS = (heterogeneous, homogeneous, lambert, costly, reciprocal, co_optimised)

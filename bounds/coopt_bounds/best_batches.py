"""Closed forms: the best batch sizes of a relaxation, with a proof that no others make less noise.

Limits of single batches and whole numbers are left out; cost and time remain. The weights and costs of the
devices enter through their roots: w_i = omega_i^2 and a_i = alpha_i^2.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, Substitute, SumOver, term
from coopt_bounds.symbols import N, Quantity, i, s
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

_per_device = (
    Quantity(omega[i], "root of the weight w_i of 1/s_i in the bound", "gradient samples^(1/2)"),
    Quantity(alpha[i], "root of the cost a_i of a sample", "cost^(1/2)"),
)
no_boxes = Assumption(
    "batch sizes, rounds and steps are positive real numbers; limits of single batches are left out"
)

heterogeneous = Theorem(
    name="best-batches",
    title="The least noise that a step of cost E can have",
    number="F1",
    citation="Cauchy-Schwarz; for the published bound DYNAMITE (arXiv 2310.14906)",
    assumptions=(no_boxes, _affordable),
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
    assumptions=(no_boxes, _same_affordable),
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

THEOREMS = (heterogeneous, homogeneous)

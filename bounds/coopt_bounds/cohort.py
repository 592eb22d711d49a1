"""The certified bound where the averaged gradient is biased, as it is when some devices never train.

Of the devices with weights p_i only those of a cohort S train, with the weights p_i/P, P the sum of their
p_i; F is still the average over all. The averaged gradient of the cohort then differs from grad F by at most
epsilon, whatever the model:

    epsilon <= min(sum over S of p_i delta_i, sum over the others of p_i delta_i) / P,

since the deviations grad F_i - grad F of all devices sum to zero. All else is that of the cohort.

>>> from coopt_bounds import cohort
>>> value = cohort.theorem.evaluate(
...     {"K": 10, "tau": 4, "eta": "0.1", "beta": 1, "beta_F": 1, "beta_d": "0.5", "ell": 0,
...      "c": "0.1", "D_0": 2, "kappa": 0, "epsilon": "0.1",
...      "sigma2": "0.01", "nu2": "0.01", "d_h": "0.1", "gamma": 1, "z": 1})
>>> print(f"{float(value):.12f}")
1.378126439777
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from coopt_bounds import certified, descent, nonconvex, participants, streaming, unroll
from coopt_bounds.algebra import at_most, equal
from coopt_bounds.averaging import over_devices
from coopt_bounds.geometric import G, S_a, S_b, n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Induct, Term, term
from coopt_bounds.streaming import C0, bias
from coopt_bounds.symbols import (
    D0,
    K,
    Quantity,
    beta_d,
    beta_F,
    d_h,
    eta,
    gamma,
    i,
    nu2,
    p,
    q,
    r,
    sigma2,
    tau,
    z,
)
from coopt_bounds.theorem import Theorem

_inside, _outside = sp.symbols("inside outside", nonnegative=True)
_share, _distance = sp.symbols("P bias_norm", positive=True)
_own = Assumption(
    "the bias is 1/P times the sum over S of p_i (grad F_i - grad F); triangle inequality",
    at_most(_share * _distance, _inside),
)
_others = Assumption(
    "the deviations of all devices sum to zero (lemma cohort/balance), so the sum over the others has the "
    "same norm",
    at_most(_share * _distance, _outside),
)
_portion = sp.Symbol("t", nonnegative=True)
_portion_range = Assumption("t <= 1", at_most(_portion, 1))

BIAS = Lemma(
    name="cohort/bias",
    words="P ||bias|| is at most either sum of p_i delta_i, over those who train or those left out, and any "
    "mixture of the two: leaving out little weight biases little.",
    hypotheses=(_own, _others, _portion_range),
    steps=(
        Combine(
            at_most(_share * _distance, _portion * _inside + (1 - _portion) * _outside),
            (
                term(_portion, _own.relation),
                term(1, _portion_range.relation, _others.relation),
            ),
        ),
    ),
    source="coopt",
)

_gradient = sp.IndexedBase("g", real=True)
_mean_gradient = sp.Symbol("g_mean", real=True)
_total_weight = Assumption("the weights of all devices sum to one", equal(over_devices(p[i]), 1))
_mean_of_all = Assumption(
    "F is the average over all", equal(over_devices(p[i] * _gradient[i]), _mean_gradient)
)

BALANCE = Lemma(
    name="cohort/balance",
    words="The deviations of all gradients from that of F sum to zero.",
    hypotheses=(_total_weight, _mean_of_all),
    steps=(
        Combine(
            equal(over_devices(p[i] * (_gradient[i] - _mean_gradient)), 0),
            (term(1, _mean_of_all.relation), term(-_mean_gradient, _total_weight.relation)),
        ),
    ),
    source="elementary",
)

_e, _a, _b, _v = sp.symbols("e a b V_root", nonnegative=True)
_error = Assumption(
    "the mean direction is off by the coupling error and by the bias", at_most(_v, beta_d * _e + bias)
)
_split = Assumption("lemma drift/split", at_most(_e, _a + _b))
_reach = at_most(_v, (beta_d * _a + bias) + beta_d * _b)
_square = at_most(_v**2, ((beta_d * _a + bias) + beta_d * _b) ** 2)

COUPLING = Lemma(
    name="cohort/coupling",
    words="V <= (1+z) (beta_d a_j + epsilon)^2 + (1+1/z) beta_d^2 b_j^2: bias and divergence are both known, "
    "so one number z splits off the noise.",
    hypotheses=(_error, _split),
    steps=(
        Combine(_reach, (term(1, _error.relation), term(beta_d, _split.relation))),
        Combine(_square, (term(beta_d * _a + bias + beta_d * _b + _v, _reach),)),
        Combine(
            at_most(_v**2, (1 + z) * (beta_d * _a + bias) ** 2 + (1 + 1 / z) * beta_d**2 * _b**2),
            (term(1, _square), term((z * (beta_d * _a + bias) - beta_d * _b) ** 2 / z)),
        ),
    ),
    source="coopt",
)

_V2 = sp.Symbol("V_bound", nonnegative=True)
_biased = Assumption("lemma cohort/coupling", at_most(descent.V, _V2))

STEP = Lemma(
    name="cohort/step",
    words="One step with a limit on V, the squared error of the mean direction: lemma descent/step with that "
    "limit for beta_d^2 e2.",
    hypotheses=(
        Assumption("lemma descent/young", descent.YOUNG.claim),
        Assumption("lemma descent/polarisation", descent.POLARISATION.claim),
        descent.smooth,
        descent.short_step,
        descent.gamma_range,
        descent.polyak,
        _biased,
    ),
    steps=(
        Combine(
            at_most(
                descent.f_next,
                descent.contraction * descent.f + streaming.coupling_share * _V2 + descent.step_noise,
            ),
            (
                term(1, descent.smooth.relation),
                term(-eta, descent.POLARISATION.claim),
                term(eta / 2, descent.short_step.relation, descent.YOUNG.claim),
                term(eta**2 * beta_F / 2, _biased.relation),
                term(eta / (2 * gamma), descent.short_step.relation, _biased.relation),
                term(eta / 2, descent.polyak.relation),
                term(
                    eta / 2,
                    descent.short_step.relation,
                    descent.gamma_range.relation,
                    descent.polyak.relation,
                ),
            ),
        ),
    ),
    source="coopt",
)

GRADIENT_STEP = Lemma(
    name="cohort/gradient-step",
    words="The same without the Polyak-Lojasiewicz inequality: lemma descent/gradient-step.",
    hypotheses=STEP.hypotheses[:5] + STEP.hypotheses[6:],
    steps=(
        Combine(
            at_most(
                descent.f_next,
                descent.f
                - eta * descent.descent_share * descent.X
                + streaming.coupling_share * _V2
                + descent.step_noise,
            ),
            (
                term(1, descent.smooth.relation),
                term(-eta, descent.POLARISATION.claim),
                term(eta / 2, descent.short_step.relation, descent.YOUNG.claim),
                term(eta**2 * beta_F / 2, _biased.relation),
                term(eta / (2 * gamma), descent.short_step.relation, _biased.relation),
            ),
        ),
    ),
    source="coopt",
)


def error_sum(q: sp.Expr) -> sp.Expr:
    """The sum of q^(tau-1-j) times the limit of lemma cohort/coupling over the steps of a round."""
    steps = G(q, sp.S.One, tau)
    divergence = eta * d_h
    known = (
        beta_d**2 * divergence**2 * S_a(q, r, tau)
        + 2 * beta_d * divergence * bias * S_b(q, sp.sqrt(r), tau)
        + bias**2 * steps
    )
    total: sp.Expr = (1 + z) * known + (1 + 1 / z) * beta_d**2 * eta**2 * nu2 * S_b(q, r, tau)
    return total


_S, _V, _L, _B2, _SA, _SL, _S1, _SB = (
    sp.Function(name, nonnegative=True) for name in ("S", "V", "L", "b2", "S_A", "S_L", "S_1", "S_B")
)


def _sum_of(sequence: Any, forcing: sp.Expr, words: str) -> tuple[Assumption, Assumption]:
    return (
        Assumption(f"{words}: it starts at 0", equal(sequence(0), 0)),
        Assumption(f"{words}: recurrence", equal(sequence(n + 1), q * sequence(n) + forcing)),
    )


_limit = Assumption(
    "lemma cohort/coupling with a_j = eta d_h L(j) and b_j^2 = eta^2 nu^2 b2(j)",
    at_most(
        _V(n),
        (1 + z) * (beta_d * eta * d_h * _L(n) + bias) ** 2 + (1 + 1 / z) * beta_d**2 * eta**2 * nu2 * _B2(n),
    ),
)
_sums = (
    _sum_of(_S, _V(n), "S(n), the sum of q^(n-1-j) V_j"),
    _sum_of(_SA, _L(n) ** 2, "S_A(n) = S_a(q, r, n)"),
    _sum_of(_SL, _L(n), "S_L(n) = S_b(q, sqrt(r), n)"),
    _sum_of(_S1, sp.S.One, "S_1(n) = G(q, 1, n)"),
    _sum_of(_SB, _B2(n), "S_B(n) = S_b(q, r, n)"),
)
_weights = (
    (1 + z) * beta_d**2 * eta**2 * d_h**2,
    (1 + z) * 2 * beta_d * eta * d_h * bias,
    (1 + z) * bias**2,
    (1 + 1 / z) * beta_d**2 * eta**2 * nu2,
)
_bounded = at_most(
    _S(n),
    sum((w * f(n) for w, f in zip(_weights, (_SA, _SL, _S1, _SB), strict=True)), sp.S.Zero),
)


def _added(at: int) -> tuple[Term, ...]:
    return (
        term(-1, _sums[0][at].relation),
        *(term(w, pair[at].relation) for w, pair in zip(_weights, _sums[1:], strict=True)),
    )


ERROR_SUM = Lemma(
    name="cohort/error-sum",
    words="The squared error of the mean direction over a whole round.",
    hypotheses=(_limit, *(a for pair in _sums for a in pair)),
    steps=(
        Induct(
            _bounded,
            index=n,
            start=0,
            base=(Combine(at_most(_S(0), _bounded.rhs.subs(n, 0)), _added(0)),),
            step=(
                Combine(
                    at_most(_S(n + 1), _bounded.rhs.subs(n, n + 1)),
                    (*_added(1), term(1, _limit.relation), term(q, _bounded)),
                ),
            ),
        ),
    ),
    source="linearity",
)

_per_run = certified.noise_floor + C0 * error_sum(q) + participants.sampling
bound = q ** (K * tau) * D0 + certified.rounds_factor * _per_run
nonconvex_bound = (
    D0 / (eta * K * tau)
    + eta * beta_F * sigma2 / 2
    + (C0 * error_sum(sp.S.One) + participants.sampling) / (eta * tau)
) / nonconvex.m

_phi, _g1, _g2, _sum = sp.symbols("Phi G_1 G_2 S", nonnegative=True)
_rounds = Assumption(
    "lemma unroll/rounds with Q = q^tau", at_most(certified.error, q ** (K * tau) * D0 + _g2 * _phi)
)
_round = Assumption(
    "lemma unroll/round with lemma cohort/step, then lemma participants/round-end (kappa = 0: all of the "
    "cohort)",
    equal(
        _phi,
        descent.step_noise * _g1 + C0 * _sum + beta_F * participants.kappa / 2 * participants.spread,
    ),
)
_error_sum = Assumption("lemma cohort/error-sum", at_most(_sum, error_sum(q)))
_end = Assumption(
    "lemmas participants/end-drift and participants/larger-ratio",
    at_most(participants.spread, participants.end_drift),
)
_g1_closed = Assumption("lemma geometric/sum", equal(_g1, (1 - q**tau) / (1 - q)))
_g2_closed = Assumption("lemma geometric/sum with q^tau in place of q", equal(_g2, certified.rounds_factor))

STATEMENT = Lemma(
    name="cohort/statement",
    words="The certified bound with a biased averaged gradient.",
    hypotheses=(_rounds, _round, _error_sum, _end, _g1_closed, _g2_closed),
    steps=(
        Combine(
            at_most(certified.error, bound),
            (
                term(1, _rounds.relation),
                term(-_g2, _round.relation),
                term(_g2 * C0, _error_sum.relation),
                term(_g2 * beta_F * participants.kappa / 2, _end.relation),
                term(-_g2 * descent.step_noise, _g1_closed.relation),
                term(-_per_run, _g2_closed.relation),
            ),
        ),
    ),
    source="coopt",
)

_all, _left = sp.symbols("X_sum f_T", nonnegative=True)
_summed = Assumption(
    "lemma participants/telescope with lemma cohort/gradient-step and gain eta m",
    at_most(
        eta * nonconvex.m * _all + _left,
        D0
        + K * (tau * descent.step_noise + C0 * _sum + beta_F * participants.kappa / 2 * participants.spread),
    ),
)
_flat = Assumption("lemma cohort/error-sum with q = 1", at_most(_sum, error_sum(sp.S.One)))
_mean = Assumption("grad2 is the mean over T steps", equal(nonconvex.gradient * K * tau, _all))
_part = 1 / (eta * nonconvex.m)

NONCONVEX_STATEMENT = Lemma(
    name="cohort/nonconvex-statement",
    words="The nonconvex bound with a biased averaged gradient.",
    hypotheses=(_summed, _flat, _end, _mean),
    steps=(
        Combine(
            at_most(nonconvex.gradient, nonconvex_bound),
            (
                term(_part / (K * tau), _summed.relation),
                term(_left * _part / (K * tau)),
                term(C0 * _part / tau, _flat.relation),
                term(beta_F * participants.kappa / 2 * _part / tau, _end.relation),
                term(-1 / (K * tau), _mean.relation),
            ),
        ),
    ),
    source="coopt",
)

_biased_gradient = Assumption(
    "the averaged gradient of those who train differs from grad F by at most epsilon, whatever the model; "
    "their weights, noise and divergences delta_i from grad F are those of the cohort"
)
_own_lemmas: tuple[Lemma, ...] = (BALANCE, BIAS, COUPLING, ERROR_SUM)
_quantities = (
    Quantity(bias, "bias of the averaged gradient", "gradient", "Constants.gradient_bias"),
    Quantity(C0, "weight of the squared error of the mean direction", "1/curvature"),
)

theorem = Theorem(
    name="cohort",
    title="The certified bound with a biased averaged gradient",
    number="CB",
    citation="coopt",
    assumptions=(*participants.theorem.assumptions, _biased_gradient),
    left=certified.error,
    bound=bound,
    definitions=(
        *(pair for pair in participants.theorem.definitions if str(pair[0]) != "C"),
        (C0, streaming.coupling_share),
    ),
    lemmas=(
        *(
            lemma
            for lemma in participants.theorem.lemmas[:-1]
            if lemma not in (descent.STEP, unroll.DRIFT_SUM)
        ),
        *_own_lemmas,
        STEP,
        STATEMENT,
    ),
    quantities=(*participants.theorem.quantities, *_quantities),
)

nonconvex_theorem = Theorem(
    name="cohort-nonconvex",
    title="The nonconvex bound with a biased averaged gradient",
    number="NB",
    citation="coopt",
    assumptions=(*participants.nonconvex_theorem.assumptions, _biased_gradient),
    left=nonconvex.gradient,
    bound=nonconvex_bound,
    definitions=(*participants.nonconvex_theorem.definitions, (C0, streaming.coupling_share)),
    lemmas=(
        *(
            lemma
            for lemma in participants.nonconvex_theorem.lemmas[:-1]
            if lemma not in (descent.GRADIENT_STEP, unroll.DRIFT_SUM)
        ),
        *_own_lemmas,
        GRADIENT_STEP,
        NONCONVEX_STATEMENT,
    ),
    quantities=(*participants.nonconvex_theorem.quantities, *_quantities),
)

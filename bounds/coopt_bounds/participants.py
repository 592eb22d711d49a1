"""Only some devices a round: the server averages m devices that it draws at random.

With w_i the model that device i would have at the end of the round, trained or not, and w the average of
all of them, the server holds w + xi. The draw does not look at the models, so xi has mean zero, and its
square is a known share kappa of the drift sum p_i ||w_i - w||^2 that the certified bound limits anyway: 1/m
where devices are drawn independently with the probabilities p_i and averaged with equal weights,
(N-m)/(m(N-1)) where all weights are equal and m distinct devices are drawn.

>>> from coopt_bounds import participants
>>> value = participants.theorem.evaluate(
...     {"K": 10, "tau": 4, "eta": "0.1", "beta": 1, "beta_F": 1, "beta_d": "0.5", "ell": 0,
...      "c": "0.1", "D_0": 2, "kappa": "0.1",
...      "sigma2": "0.01", "nu2": "0.01", "d_h": "0.1", "gamma": 1, "z": 1})
>>> print(f"{float(value):.12f}")
1.341654778237
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from coopt_bounds import certified, descent, geometric, nonconvex
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.geometric import G
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Induct, term
from coopt_bounds.symbols import (
    D0,
    C,
    K,
    N,
    Quantity,
    beta_F,
    d_h,
    eta,
    nu2,
    q,
    r,
    tau,
    z,
)
from coopt_bounds.theorem import Theorem

m = sp.Symbol("n_m", positive=True)
kappa, r_a, r_b = sp.symbols("kappa r_a r_b", nonnegative=True)
spread, xi2 = sp.symbols("D_tau xi2", nonnegative=True)

end_drift = eta**2 * ((1 + z) * d_h**2 * G(r_a, 1, tau) ** 2 + nu2 * ((1 + 1 / z) * (G(r_b, 1, tau) - 1) + 1))
"""The bound on D_tau, the drift at the end of a round."""
sampling = beta_F * kappa / 2 * end_drift
"""What sampling adds to the loss once a round."""

_total2 = sp.Symbol("total2", nonnegative=True)
_centred = Assumption(
    "one draw deviates from the average by w_i - w with probability p_i: mean zero, mean square D_tau; m "
    "independent draws add up to a deviation of mean square m D_tau",
    equal(_total2, m * spread),
)
_mean_of_draws = Assumption("xi is the mean of the m deviations", equal(xi2, _total2 / m**2))

WITH_REPLACEMENT = Lemma(
    name="participants/with-replacement",
    words="Devices drawn independently with the probabilities p_i and averaged with equal weights: "
    "E||xi||^2 = D_tau/m.",
    hypotheses=(_centred, _mean_of_draws),
    steps=(
        Combine(
            equal(xi2, spread / m), (term(1, _mean_of_draws.relation), term(1 / m**2, _centred.relation))
        ),
    ),
    source="variance of a mean of independent draws; the scheme is that of Li et al. 2020, ICLR, Scheme I",
)

_squares = sp.Symbol("squares", nonnegative=True)
_cross = sp.Symbol("cross", real=True)
_balanced = Assumption(
    "with equal weights the deviations add up to zero, so their squares and their products over ordered "
    "pairs do",
    equal(_squares + _cross, 0),
)
_equal_weights = Assumption("D_tau is their mean square", equal(N * spread, _squares))
_pairs = Assumption(
    "a device is drawn with probability m/N, an ordered pair with m(m-1)/(N(N-1))",
    equal(m**2 * N * (N - 1) * xi2, m * (N - 1) * _squares + m * (m - 1) * _cross),
)
_several = Assumption("there are at least two devices", sp.Gt(N, 1, evaluate=False))

WITHOUT_REPLACEMENT = Lemma(
    name="participants/without-replacement",
    words="m distinct devices of N with equal weights: m(N-1) E||xi||^2 = (N-m) D_tau, nothing at m = N.",
    hypotheses=(_balanced, _equal_weights, _pairs, _several),
    steps=(
        Combine(
            equal(m * (N - 1) * xi2, (N - m) * spread),
            (
                term(1 / (m * N), _pairs.relation),
                term((m - 1) / N, _balanced.relation),
                term(-(N - m) / N, _equal_weights.relation),
            ),
        ),
    ),
    source="variance of a mean of draws without replacement",
)

_after, _before, _inner = sp.symbols("f_after f_before inner", real=True)
_smooth = Assumption(
    "descent lemma for the beta_F-smooth F from w to w + xi, in expectation",
    at_most(_after, _before + _inner + beta_F / 2 * xi2),
)
_unbiased = Assumption(
    "the draw is independent of the models, so xi has mean zero given them", equal(_inner, 0)
)
_share = Assumption(
    "lemma participants/with-replacement or participants/without-replacement", equal(xi2, kappa * spread)
)

ROUND_END = Lemma(
    name="participants/round-end",
    words="Sampling costs at most beta_F kappa D_tau/2 a round.",
    hypotheses=(_smooth, _unbiased, _share),
    steps=(
        Combine(
            at_most(_after, _before + beta_F * kappa / 2 * spread),
            (
                term(1, _smooth.relation),
                term(-1, _unbiased.relation),
                term(-beta_F / 2, _share.relation),
            ),
        ),
    ),
    source="coopt",
)

_e, _a, _b, _a_end, _b2_end, _e_end = sp.symbols("e a b a_tau b2_tau e_tau", nonnegative=True)
_split = Assumption("lemma drift/split after tau - 1 steps", at_most(_e, _a + _b))
_a_step = Assumption("recurrence of a", equal(_a_end, r * _a + eta * d_h))
_b_step = Assumption("recurrence of b", equal(_b2_end, r**2 * _b**2 + eta**2 * nu2))
_last = Assumption("lemma drift/recursion", at_most(_e_end**2, (r * _e + eta * d_h) ** 2 + eta**2 * nu2))
_moved = at_most(r * _e + eta * d_h, _a_end + r * _b)
_squared = at_most((r * _e + eta * d_h) ** 2, (_a_end + r * _b) ** 2)

END_DRIFT = Lemma(
    name="participants/end-drift",
    words="After the last step D_tau <= (1+z) a_tau^2 + (1+1/z) (b_tau^2 - eta^2 nu^2) + eta^2 nu^2: the "
    "noise of the last step is not yet mixed with divergence, so after one step there is nothing to split.",
    hypotheses=(_split, _a_step, _b_step, _last),
    steps=(
        Combine(_moved, (term(r, _split.relation), term(1, _a_step.relation))),
        Combine(_squared, (term(_a_end + r * _b + r * _e + eta * d_h, _moved),)),
        Combine(
            at_most(
                _e_end**2,
                (1 + z) * _a_end**2 + (1 + 1 / z) * (_b2_end - eta**2 * nu2) + eta**2 * nu2,
            ),
            (
                term(1, _last.relation),
                term(1, _squared),
                term((z * _a_end - r * _b) ** 2 / z),
                term((1 + 1 / z), _b_step.relation),
            ),
        ),
    ),
    source="coopt",
)

k = sp.Symbol("k", integer=True, positive=True)
x, y = sp.symbols("x y", nonnegative=True)
A, B, W = (sp.Function(name, nonnegative=True) for name in ("A", "B", "W"))


def _partial_sums(sequence: Any, ratio: sp.Expr, words: str) -> tuple[Assumption, Assumption]:
    return (
        Assumption(f"{words}: one term", equal(sequence(1), 1)),
        Assumption(f"{words}: one term more", equal(sequence(k + 1), sequence(k) + ratio**k)),
    )


def _horner(sequence: Any, ratio: sp.Expr, words: str) -> tuple[Assumption, Assumption]:
    return (
        Assumption(f"{words}: one term", equal(sequence(1), 1)),
        Assumption(f"{words}: one term more", equal(sequence(k + 1), ratio * sequence(k) + 1)),
    )


_larger = Assumption("a larger ratio", at_least(x, y))
_big, _small = (
    _horner(A, x, "A(n), the sum of x^j for j < n"),
    _horner(B, y, "B(n), the sum of y^j for j < n"),
)
_above = at_least(A(k), B(k))

LARGER_RATIO = Lemma(
    name="participants/larger-ratio",
    words="A geometric sum with a larger ratio is at least as large: r_a = max(r, q) and r_b = max(r^2, q) "
    "may stand for r and r^2.",
    hypotheses=(_larger, *_big, *_small),
    steps=(
        Induct(
            _above,
            index=k,
            start=1,
            base=(Combine(at_least(A(1), B(1)), (term(1, _big[0].relation), term(-1, _small[0].relation))),),
            step=(
                Combine(
                    at_least(A(k + 1), B(k + 1)),
                    (
                        term(1, _big[1].relation),
                        term(-1, _small[1].relation),
                        term(x, _above),
                        term(B(k), _larger.relation),
                    ),
                ),
            ),
        ),
    ),
    source="elementary",
)

_sums = _partial_sums(A, x, "A(n), the sum of x^j for j < n")
_weights = _partial_sums(W, y, "W(n), the sum of y^j for j < n")
_ahead = at_least(x**k * W(k), y**k * A(k))

RATIO_RISES = Lemma(
    name="participants/ratio",
    words="A(n)/W(n) never falls in n where the ratio of A is at least that of W: "
    "A(n+1) W(n) >= A(n) W(n+1).",
    hypotheses=(_larger, *_sums, *_weights),
    steps=(
        Induct(
            _ahead,
            index=k,
            start=1,
            base=(
                Combine(
                    at_least(x**1 * W(1), y**1 * A(1)),
                    (
                        term(x, _weights[0].relation),
                        term(-y, _sums[0].relation),
                        term(1, _larger.relation),
                    ),
                ),
            ),
            step=(
                Combine(
                    at_least(x ** (k + 1) * W(k + 1), y ** (k + 1) * A(k + 1)),
                    (
                        term(x ** (k + 1), _weights[1].relation),
                        term(-(y ** (k + 1)), _sums[1].relation),
                        term(x, _ahead),
                        term(y**k * A(k) + x**k * y**k, _larger.relation),
                    ),
                ),
            ),
        ),
        Combine(
            at_least(A(k + 1) * W(k), A(k) * W(k + 1)),
            (
                term(1, _ahead),
                term(W(k), _sums[1].relation),
                term(-A(k), _weights[1].relation),
            ),
        ),
    ),
    source="elementary",
)

_A1, _A2, _B1, _B2 = sp.symbols("A_1 A_2 B_1 B_2", nonnegative=True)
_W1, _W2 = sp.symbols("W_1 W_2", positive=True)
_a_ratio = Assumption("lemma participants/ratio with r_a >= q", at_least(_A2 * _W1, _A1 * _W2))
_b_ratio = Assumption("lemma participants/ratio with r_b >= q", at_least(_B2 * _W1, _B1 * _W2))
_a_grows = Assumption("A never falls", at_least(_A2, _A1))
_w_grows = Assumption("W never falls", at_least(_W2, _W1))


def _per_round(a: sp.Expr, b: sp.Expr, w: sp.Expr) -> sp.Expr:
    total: sp.Expr = (1 + z) * d_h**2 * a**2 + nu2 * ((1 + 1 / z) * (b - 1) + 1)
    return total / w


SAMPLING_RISES = Lemma(
    name="participants/rises",
    words="The sampling term of the floor, D_tau/(1-q^tau) up to a factor, never falls in tau, in both "
    "parts: W stands for (1-q^tau)/(1-q), and for tau in the nonconvex bound (q = 1).",
    hypotheses=(_a_ratio, _b_ratio, _a_grows, _w_grows),
    steps=(
        Combine(
            at_least(_per_round(_A2, _B2, _W2), _per_round(_A1, _B1, _W1)),
            (
                term((1 + z) * d_h**2 * _A2 / (_W1 * _W2), _a_ratio.relation),
                term((1 + z) * d_h**2 * _A1 / _W1, _a_grows.relation),
                term(nu2 * (1 + 1 / z) / (_W1 * _W2), _b_ratio.relation),
                term(nu2 / (z * _W1 * _W2), _w_grows.relation),
            ),
        ),
    ),
    source="coopt",
)

_phi, _g1, _g2, _sum = sp.symbols("Phi G_1 G_2 S", nonnegative=True)
_rounds = Assumption(
    "lemma unroll/rounds with Q = q^tau", at_most(certified.error, q ** (K * tau) * D0 + _g2 * _phi)
)
_round = Assumption(
    "lemma unroll/round, then lemma participants/round-end",
    equal(_phi, descent.step_noise * _g1 + C * _sum + beta_F * kappa / 2 * spread),
)
_drift_sum = eta**2 * (
    (1 + z) * d_h**2 * geometric.S_a(q, r, tau) + (1 + 1 / z) * nu2 * geometric.S_b(q, r, tau)
)
_drift = Assumption("lemma unroll/drift-sum", at_most(_sum, _drift_sum))
_end = Assumption(
    "lemmas participants/end-drift and participants/larger-ratio, with a_tau = eta d_h G(r, 1, tau) and "
    "b_tau^2 = eta^2 nu^2 G(r^2, 1, tau) by lemmas drift/divergence and drift/noise",
    at_most(spread, end_drift),
)
_g1_closed = Assumption("lemma geometric/sum", equal(_g1, (1 - q**tau) / (1 - q)))
_g2_closed = Assumption("lemma geometric/sum with q^tau in place of q", equal(_g2, certified.rounds_factor))
_per_run = certified.noise_floor + certified.drift_floor + sampling
bound = q ** (K * tau) * D0 + certified.rounds_factor * _per_run

STATEMENT = Lemma(
    name="participants/statement",
    words="The certified bound with m devices drawn a round.",
    hypotheses=(_rounds, _round, _drift, _end, _g1_closed, _g2_closed),
    steps=(
        Combine(
            at_most(certified.error, bound),
            (
                term(1, _rounds.relation),
                term(-_g2, _round.relation),
                term(_g2 * C, _drift.relation),
                term(_g2 * beta_F * kappa / 2, _end.relation),
                term(-_g2 * descent.step_noise, _g1_closed.relation),
                term(-_per_run, _g2_closed.relation),
            ),
        ),
    ),
    source="coopt",
)

_loss, _gained, _gains = (sp.Function(name, nonnegative=True) for name in ("g", "X_round", "X_sum"))
_gain, _per_round_loss = sp.symbols("gain loss_round", positive=True)
_n = geometric.n
_one_round = Assumption(
    "lemma unroll/telescope over the tau steps of a round, then lemma participants/round-end",
    at_most(_loss(_n + 1), _loss(_n) - _gain * _gained(_n) + _per_round_loss),
)
_so_far = (
    Assumption("the sum of ||grad F||^2 over the rounds so far starts at 0", equal(_gains(0), 0)),
    Assumption("it grows by that of the next round", equal(_gains(_n + 1), _gains(_n) + _gained(_n))),
)
_telescoped = at_most(_gain * _gains(_n) + _loss(_n), _loss(0) + _n * _per_round_loss)

TELESCOPE = Lemma(
    name="participants/telescope",
    words="Summed over K rounds: gain sum ||grad F||^2 <= f_0 - f_K + K times what a round loses.",
    hypotheses=(_one_round, *_so_far),
    steps=(
        Induct(
            _telescoped,
            index=_n,
            start=0,
            base=(
                Combine(
                    at_most(_gain * _gains(0) + _loss(0), _loss(0) + 0 * _per_round_loss),
                    (term(-_gain, _so_far[0].relation),),
                ),
            ),
            step=(
                Combine(
                    at_most(_gain * _gains(_n + 1) + _loss(_n + 1), _loss(0) + (_n + 1) * _per_round_loss),
                    (
                        term(1, _one_round.relation),
                        term(1, _telescoped),
                        term(-_gain, _so_far[1].relation),
                    ),
                ),
            ),
        ),
    ),
    source="telescoping sum",
)

_all, _left = sp.symbols("X_sum f_T", nonnegative=True)
_summed = Assumption(
    "lemma participants/telescope with gain eta m after K rounds, each of which loses tau times the noise, C "
    "times its drift sum, and beta_F kappa D_tau/2",
    at_most(
        eta * nonconvex.m * _all + _left,
        D0 + K * (tau * descent.step_noise + C * _sum + beta_F * kappa / 2 * spread),
    ),
)
_flat_drift = Assumption("lemma unroll/drift-sum with q = 1", at_most(_sum, tau * nonconvex.drift_average))
_mean = Assumption("grad2 is the mean over T steps", equal(nonconvex.gradient * K * tau, _all))
_weight = Assumption("C, the weight of the drift", equal(C, descent.drift_weight))
nonconvex_bound = nonconvex.bound + sampling / (eta * tau * nonconvex.m)
_part = 1 / (eta * nonconvex.m)

NONCONVEX_STATEMENT = Lemma(
    name="participants/nonconvex-statement",
    words="The nonconvex bound with m devices drawn a round.",
    hypotheses=(_summed, _flat_drift, _end, _mean, _weight),
    steps=(
        Combine(
            at_most(nonconvex.gradient, nonconvex_bound),
            (
                term(_part / (K * tau), _summed.relation),
                term(_left * _part / (K * tau)),
                term(C * _part / tau, _flat_drift.relation),
                term(beta_F * kappa / 2 * _part / tau, _end.relation),
                term(-1 / (K * tau), _mean.relation),
                term(-nonconvex.drift_average * _part, _weight.relation),
            ),
        ),
    ),
    source="coopt",
)

assumptions: tuple[Assumption, ...] = (
    Assumption(
        "at the end of a round the server draws m devices, whatever their models, and all devices start the "
        "next round from the mean of their models: kappa = 1/m where they are drawn independently with the "
        "probabilities p_i (one drawn twice counts twice), (N-m)/(m(N-1)) where p_i = 1/N and they are "
        "distinct"
    ),
)
_own: tuple[Lemma, ...] = (
    WITH_REPLACEMENT,
    WITHOUT_REPLACEMENT,
    ROUND_END,
    END_DRIFT,
    LARGER_RATIO,
    RATIO_RISES,
    SAMPLING_RISES,
)
_quantities = (
    Quantity(kappa, "share of the drift at the end of a round that sampling adds", "-"),
    Quantity(r_a, "ratio of the geometric sum of divergence at the end of a round, at least r", "-"),
    Quantity(r_b, "ratio of the geometric sum of noise at the end of a round, at least r^2", "-"),
)

theorem = Theorem(
    name="participants",
    title="The certified bound with devices drawn at random",
    number="CM",
    citation="coopt; unbiased sampling of devices: Li et al. 2020, ICLR, arXiv 1907.02189, Schemes I and II",
    assumptions=(*certified.assumptions, *assumptions),
    left=certified.error,
    bound=bound,
    definitions=(
        *certified.theorem.definitions,
        (r_a, sp.Max(r, q)),
        (r_b, sp.Max(r**2, q)),
    ),
    lemmas=(*certified.theorem.lemmas[:-1], *_own, STATEMENT),
    quantities=_quantities,
)

nonconvex_theorem = Theorem(
    name="participants-nonconvex",
    title="The nonconvex bound with devices drawn at random",
    number="NM",
    citation=theorem.citation,
    assumptions=(*nonconvex.assumptions, *assumptions),
    left=nonconvex.gradient,
    bound=nonconvex_bound,
    definitions=(
        *nonconvex.theorem.definitions,
        (r_a, sp.Max(r, 1)),
        (r_b, sp.Max(r**2, 1)),
    ),
    lemmas=(*nonconvex.theorem.lemmas[:-1], *_own, TELESCOPE, NONCONVEX_STATEMENT),
    quantities=(*nonconvex.theorem.quantities, *_quantities),
)

"""Federated averaging on quadratic losses with some devices a round: the expected loss, exactly.

Two draws. c distinct devices of N, uniformly: the server applies N p_i/c to their *changes*, which keeps the
mean (applied to models, the weights do not sum to one). Or c independent draws with the probabilities p_i and
a plain mean. The draw makes noise that grows with the model's distance from where devices agree, so the
covariance obeys a recursion that is no power of M any more; the loss is still affine in the 1/s_i with
weights that are never negative, plus a term free of s.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from coopt_bounds import matrices, quadratic_rounds
from coopt_bounds.algebra import at_least, equal
from coopt_bounds.certified import error
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.matrices import matrix_function, matrix_symbols
from coopt_bounds.proof import Combine, Identity, Induct, SumOver, term
from coopt_bounds.quadratic_rounds import devices, fresh_noise, half, offset, shares, weights
from coopt_bounds.symbols import K, N, Quantity, eta, i, p, s, tau
from coopt_bounds.theorem import Theorem

c = sp.Symbol("n_c", positive=True)
kappa = N * (N - c) / (c * (N - 1))
"""What the draw of c distinct devices makes of the spread of their weighted changes."""

squares, pairs, entry, one_draw, total = sp.symbols("squares pairs xi_ab draw_ab total_ab", real=True)
balanced = Assumption(
    "e_i = p_i y_i - (sum of p_j y_j)/N add up to zero, so products of their entries over all pairs do",
    equal(squares + pairs, 0),
)
drawn = Assumption(
    "xi = (N/c) sum of e_i over those drawn: a device with probability c/N, an ordered pair with "
    "c(c-1)/(N(N-1))",
    equal(c**2 * (N - 1) * entry, N * (c * (N - 1) * squares + c * (c - 1) * pairs)),
)
several = Assumption("at least two devices", sp.Gt(N, 1, evaluate=False))

DISTINCT = Lemma(
    name="quadratic-sampling/distinct",
    words="c distinct devices of N: the covariance of the averaged change is kappa sum e_i e_i', none at c "
    "= N.",
    hypotheses=(balanced, drawn, several),
    steps=(
        Combine(
            equal(entry, kappa * squares),
            (
                term(1 / (c**2 * (N - 1)), drawn.relation),
                term(N * (c - 1) / (c * (N - 1)), balanced.relation),
            ),
        ),
    ),
    source="variance of a total estimated without replacement",
)

B, M, y, v, z, v_i = matrix_symbols("B M y v z v_i")
p_i = sp.Symbol("p_i", positive=True)

DEVIATION = Lemma(
    name="quadratic-sampling/deviation",
    words="A device changes the model by B_i z - v_i with B_i = A_i - I; e_i is D_i z - q_i with D_i = p_i "
    "B_i - (M - I)/N and q_i = p_i v_i - v/N.",
    hypotheses=(),
    steps=(
        Identity(
            p_i * (B * z - v_i) - ((M - 1) * z - v) / N,
            (p_i * B - (M - 1) / N) * z - (p_i * v_i - v / N),
        ),
    ),
    source="elementary",
)

D, q, q_t, m, m_t, e, e_t, v_t = matrix_symbols("D q q^T m m^T e e^T v^T")
S, e_mean, e_mean_t, moment = matrix_symbols("S E(e) E(e^T) E(yy^T)")
_product = Identity(
    (D * (m + e) - q) * ((m_t + e_t) * D - q_t),
    (D * m - q) * (m_t * D - q_t) + D * e * e_t * D + D * e * (m_t * D - q_t) + (D * m - q) * e_t * D,
)
_expected = Assumption(
    "its expectation, term by term, with S = E ee'",
    equal(
        moment,
        (D * m - q) * (m_t * D - q_t) + D * S * D + D * e_mean * (m_t * D - q_t) + (D * m - q) * e_mean_t * D,
    ),
)
_centred = Assumption("e is the deviation from the mean model", equal(e_mean, 0))
_centred_t = Assumption("the same, transposed", equal(e_mean_t, 0))

SECOND_MOMENT = Lemma(
    name="quadratic-sampling/second-moment",
    words="The second moment of Dz - q with z = m + e is D S D + (Dm - q)(Dm - q)', for every symmetric D.",
    hypotheses=(_expected, _centred, _centred_t),
    steps=(
        _product,
        Combine(
            equal(moment, D * S * D + (D * m - q) * (m_t * D - q_t)),
            (
                term(1, _expected.relation),
                term(D, _centred.relation, right=m_t * D - q_t),
                term(D * m - q, _centred_t.relation, right=D),
            ),
        ),
    ),
    source="linearity of expectation",
)

x_entry, y_entry = sp.IndexedBase("x", real=True), sp.IndexedBase("y", real=True)
x_mean, y_mean = sp.symbols("xbar ybar", real=True)
_summing = Assumption("the weights sum to one", equal(sp.Sum(p[i], devices), 1))
_x_mean = Assumption(
    "xbar is the weighted mean of an entry x_i", equal(sp.Sum(p[i] * x_entry[i], devices), x_mean)
)
_y_mean = Assumption("ybar that of another one", equal(sp.Sum(p[i] * y_entry[i], devices), y_mean))
_one = Assumption(
    "one draw is device i with probability p_i",
    equal(one_draw, sp.Sum(p[i] * (x_entry[i] - x_mean) * (y_entry[i] - y_mean), devices)),
)
_independent = Assumption("draws are independent: their covariances add up", equal(total, c * one_draw))
_plain = Assumption("the server takes their plain mean", equal(entry, total / c**2))

DRAWS = Lemma(
    name="quadratic-sampling/draws",
    words="c independent draws and a plain mean: covariance (sum p_i y_i y_i' - ybar ybar')/c.",
    hypotheses=(_summing, _x_mean, _y_mean, _one, _independent, _plain),
    steps=(
        Combine(
            equal(entry, (sp.Sum(p[i] * x_entry[i] * y_entry[i], devices) - x_mean * y_mean) / c),
            (
                term(1, _plain.relation),
                term(1 / c**2, _independent.relation),
                term(1 / c, _one.relation),
                term(-y_mean / c, _x_mean.relation),
                term(-x_mean / c, _y_mean.relation),
                term(x_mean * y_mean / c, _summing.relation),
            ),
        ),
    ),
    source="variance of a mean of independent draws; the scheme is that of Li et al. 2020, ICLR, Scheme I",
)

noise_in, noise_out = sp.symbols("noise_i noise_out", nonnegative=True)
_weighted = Assumption(
    "drawn with probability c/N, the noise of device i enters with the weight N p_i/c",
    equal(noise_out, c / N * (N * p_i / c) ** 2 * noise_in),
)
_repeated = Assumption(
    "each of c draws is device i with probability p_i and enters with the weight 1/c; a device that is drawn "
    "twice trains twice, on batches of their own",
    equal(noise_out, c * p_i / c**2 * noise_in),
)

NOISE_DISTINCT = Lemma(
    name="quadratic-sampling/noise-distinct",
    words="With distinct devices N/c times the noise of all devices is left in a round.",
    hypotheses=(_weighted,),
    steps=(Combine(equal(noise_out, N / c * p_i**2 * noise_in), (term(1, _weighted.relation),)),),
    source="coopt",
)

NOISE_DRAWS = Lemma(
    name="quadratic-sampling/noise-draws",
    words="With independent draws p_i/c stands for p_i^2 in the noise.",
    hypotheses=(_repeated,),
    steps=(Combine(equal(noise_out, p_i / c * noise_in), (term(1, _repeated.relation),)),),
    source="coopt",
)

y_1, y_2, share = sp.symbols("y_1 y_2 p_1", real=True)

NORMALISED = Lemma(
    name="quadratic-sampling/normalised-weights",
    words="Weights normalised over those drawn are biased: with one of two devices by (1/2 - p_1)(y_1 - "
    "y_2).",
    hypotheses=(),
    steps=(Identity((y_1 + y_2) / 2 - (share * y_1 + (1 - share) * y_2), (half - share) * (y_1 - y_2)),),
    source="elementary",
)

mean_round, draw, noise_part, after = matrix_symbols("cov_mean cov_draw cov_noise S_next")
moments, added = matrix_function("X"), matrix_function("Y")
D_i, q_d, q_d_t, A_d, f_d, f_d_t = (matrix_function(name) for name in ("D", "q", "q^T", "B", "f", "f^T"))
share_d = sp.Function("p", positive=True)
spread_weight = sp.Symbol("kappa", nonnegative=True)
_law = Assumption(
    "law of total covariance: of the average over all devices, of the draw given the models on average, and "
    "of gradient noise",
    equal(after, mean_round + draw + noise_part),
)
_mean_round = Assumption("the average over all devices takes e to M e", equal(mean_round, M * S * M))


def _sum_of_moments(weight: sp.Expr, spread: sp.Expr, shift: sp.Expr, shift_t: sp.Expr) -> tuple[Induct, Any]:
    """Sums over devices of second moments and of what they are, and that both agree."""
    each = spread * S * spread + (spread * m - shift) * (m_t * spread - shift_t)
    given = matrices.partial_sums(moments, weight * moment_of(n), "X, the sum of the second moments")
    wanted = matrices.partial_sums(added, weight * each, "Y, the sum of what they are")
    second = Assumption("lemma quadratic-sampling/second-moment for every device", equal(moment_of(n), each))
    same = equal(moments(n), added(n))
    return (
        Induct(
            same,
            index=n,
            start=0,
            base=(
                Combine(
                    equal(moments(0), added(0)), (term(1, given[0].relation), term(-1, wanted[0].relation))
                ),
            ),
            step=(
                Combine(
                    equal(moments(n + 1), added(n + 1)),
                    (
                        term(1, given[1].relation),
                        term(1, same),
                        term(-1, wanted[1].relation),
                        term(weight, second.relation),
                    ),
                ),
            ),
        ),
        (*given, *wanted, second),
    )


moment_of = matrix_function("E(yy^T)")
_distinct_sum, _distinct_hypotheses = _sum_of_moments(sp.S.One, D_i(n), q_d(n), q_d_t(n))
_distinct_draw = Assumption(
    "lemmas quadratic-sampling/distinct and quadratic-sampling/deviation",
    equal(draw, spread_weight * moments(n)),
)

COVARIANCE_DISTINCT = Lemma(
    name="quadratic-sampling/covariance-distinct",
    words="With c distinct devices a round takes S to M S M + kappa sum [D_i S D_i + (D_i m - q_i)(D_i m - "
    "q_i)'] and gradient noise.",
    hypotheses=(_law, _mean_round, _distinct_draw, *_distinct_hypotheses),
    steps=(
        _distinct_sum,
        Combine(
            equal(after, M * S * M + spread_weight * added(n) + noise_part),
            (
                term(1, _law.relation),
                term(1, _mean_round.relation),
                term(1, _distinct_draw.relation),
                term(spread_weight, _distinct_sum.conclusion),
            ),
        ),
    ),
    source="coopt",
)

whole = sp.Symbol("E(ybar*ybar^T)", commutative=False)
_drawn_sum, _drawn_hypotheses = _sum_of_moments(share_d(n), A_d(n), f_d(n), f_d_t(n))
_drawn_draw = Assumption("lemma quadratic-sampling/draws", equal(draw, (moments(n) - whole) / c))
_whole_value = ((M - 1) * S * (M - 1)) + ((M - 1) * m - v) * (m_t * (M - 1) - v_t)
_whole = Assumption("lemma quadratic-sampling/second-moment for the mean change", equal(whole, _whole_value))

COVARIANCE_DRAWS = Lemma(
    name="quadratic-sampling/covariance-draws",
    words="With c independent draws a round takes S to M S M and 1/c of the second moment of a device's "
    "change, weighted by p_i, less that of the mean change, and gradient noise.",
    hypotheses=(_law, _mean_round, _drawn_draw, _whole, *_drawn_hypotheses),
    steps=(
        _drawn_sum,
        Combine(
            equal(after, M * S * M + (added(n) - _whole_value) / c + noise_part),
            (
                term(1, _law.relation),
                term(1, _mean_round.relation),
                term(1, _drawn_draw.relation),
                term(1 / c, _drawn_sum.conclusion),
                term(-1 / c, _whole.relation),
            ),
        ),
    ),
    source="coopt",
)

through_mean = sp.Function("G_M", nonnegative=True)
through_draw = sp.IndexedBase("G_D", nonnegative=True)
next_form = sp.Symbol("G_next", real=True)
_adjoint = Assumption(
    "the weight of the covariance one round earlier, G <- M G M + kappa sum D_i G D_i, in a direction x: "
    "x'M G M x and x'D_i G D_i x are values of G's form at M x and D_i x, never negative",
    equal(next_form, through_mean(n) + spread_weight * sp.Sum(through_draw[i], devices)),
)

POSITIVE = Lemma(
    name="quadratic-sampling/positive",
    words="The weight of the covariance stays positive semidefinite from H on: so no weight of 1/s_i is "
    "negative, nor what the draw adds. For draws with the p_i the sum is of p_i (y_i - ybar)(y_i - ybar)'/c.",
    hypotheses=(_adjoint,),
    steps=(
        Combine(
            at_least(next_form, 0),
            (
                term(1, _adjoint.relation),
                term(through_mean(n) + spread_weight * sp.Sum(through_draw[i], devices)),
            ),
        ),
    ),
    source="coopt",
)

left, free, round_free = (sp.Function(name, nonnegative=True) for name in ("f", "R", "r"))
_left = (
    Assumption("f(k) = tr(G_(K-k) S_k)/2: no covariance before the first round", equal(left(0), 0)),
    Assumption(
        "f(k+1) = f(k) + r(k) + sum h_i(k)/s_i: the trace is cyclic, so tr(G S) after a round is tr(G_next "
        "S) before it and what the round adds",
        equal(left(n + 1), left(n) + round_free(n) + sp.Sum(shares[i, n] / s[i], devices)),
    ),
)
_free = (
    Assumption("R(0) = 0", equal(free(0), 0)),
    Assumption(
        "R adds up the r(k), what the draw adds without noise", equal(free(n + 1), free(n) + round_free(n))
    ),
)
_counts = (
    Assumption("W_i(0) = 0", equal(weights[i, 0], 0)),
    Assumption("W_i adds up the h_i(k)", equal(weights[i, n + 1], weights[i, n] + shares[i, n])),
)
_sum_first = SumOver(_counts[0].relation, 1 / s[i], devices)
_sum_next = SumOver(_counts[1].relation, 1 / s[i], devices)
_affine = equal(left(n), free(n) + sp.Sum(weights[i, n] / s[i], devices))

AFFINE = Lemma(
    name="quadratic-sampling/affine",
    words="Half the trace of H times the covariance after K rounds is R_K + sum W_i/s_i.",
    hypotheses=(*_left, *_free, *_counts),
    steps=(
        Induct(
            _affine,
            index=n,
            start=0,
            base=(
                _sum_first,
                Combine(
                    equal(left(0), free(0) + sp.Sum(weights[i, 0] / s[i], devices)),
                    (
                        term(1, _left[0].relation),
                        term(-1, _free[0].relation),
                        term(-1, _sum_first.conclusion),
                    ),
                ),
            ),
            step=(
                _sum_next,
                Combine(
                    equal(left(n + 1), free(n + 1) + sp.Sum(weights[i, n + 1] / s[i], devices)),
                    (
                        term(1, _left[1].relation),
                        term(1, _affine),
                        term(-1, _free[1].relation),
                        term(-1, _sum_next.conclusion),
                    ),
                ),
            ),
        ),
    ),
    source="coopt",
)

R_K, noise = sp.Symbol("R_K", nonnegative=True), quadratic_rounds.noise
_gap = Assumption("lemma quadratic-rounds/loss", equal(error, offset + noise))
_noise = Assumption("lemma quadratic-sampling/affine", equal(noise, R_K + fresh_noise))

STATEMENT = Lemma(
    name="quadratic-sampling/statement",
    words="The expected gap with some devices a round.",
    hypotheses=(_gap, _noise),
    steps=(
        Combine(equal(error, offset + R_K + fresh_noise), (term(1, _gap.relation), term(1, _noise.relation))),
    ),
    source="coopt",
)

ALL = Lemma(
    name="quadratic-sampling/all-devices",
    words="All N distinct devices a round: nothing is drawn, and (QC) is (Q).",
    hypotheses=(),
    steps=(Identity(kappa.subs(c, N), sp.S.Zero), Identity((N / c).subs(c, N), sp.S.One)),
    source="elementary",
)

_M, _v, _I, _P, _B = matrix_symbols("M v I P_i B_i")
_vi, _D, _q, _mk, _mk_t, _qi_t = matrix_symbols("v_i D_i q_i m_k m_k^T q_i^T")
_vi_t, _v_t = matrix_symbols("v_i^T v^T")
_p = sp.Symbol("p_i", positive=True)
_k = sp.Symbol("k", integer=True, nonnegative=True)
_Sk, _trace = matrix_function("S"), matrix_function("tr")
_jump = (_D * _mk - _q) * (_mk_t * _D - _qi_t)
_change = (_B * _mk - _vi) * (_mk_t * _B - _vi_t)
_mean_change = ((_M - _I) * _mk - _v) * (_mk_t * (_M - _I) - _v_t)
_l = sp.Symbol("l", integer=True, nonnegative=True)
_changes = (
    (_mk, -sp.Sum(_M**_l, (_l, 0, _k - 1)) * _v),
    quadratic_rounds.mean_model_row,
    quadratic_rounds.mean_gap_row,
    (_Sk(sp.S.Zero), sp.S.Zero),
    (_B, quadratic_rounds.local_matrices[0][0] ** tau - _I),
    (_vi, eta * quadratic_rounds.pushed),
)
_trace_row = (half * _trace(quadratic_rounds.H * _Sk(K)), R_K + fresh_noise)
_distinct_rows = (
    *quadratic_rounds.local_matrices,
    *_changes,
    (_D, _p * (_B) - (_M - _I) / N),
    (_q, _p * _vi - _v / N),
    (
        _Sk(_k + 1),
        _M * _Sk(_k) * _M
        + kappa * sp.Sum(_D * _Sk(_k) * _D + _jump, (i, 1, N))
        + N / c * sp.Sum(_P / s[i], (i, 1, N)),
    ),
    _trace_row,
)
_draws_rows = (
    *quadratic_rounds.local_matrices,
    *_changes,
    (
        _Sk(_k + 1),
        _M * _Sk(_k) * _M
        + sp.Sum(_p * (_B * _Sk(_k) * _B + _change), (i, 1, N)) / c
        - ((_M - _I) * _Sk(_k) * (_M - _I) + _mean_change) / c
        + sp.Sum(_P / (_p * c * s[i]), (i, 1, N)),
    ),
    _trace_row,
)

_quantities = (
    *quadratic_rounds.quantities,
    Quantity(R_K, "what drawing devices adds without gradient noise", "loss"),
    Quantity(c, "devices drawn a round", "-", "Budget.participants"),
)
_shared = (*quadratic_rounds.theorem.lemmas[:-1], DEVIATION, SECOND_MOMENT, POSITIVE, AFFINE)

theorem = Theorem(
    name="quadratic-sampling",
    title="(Q) with c distinct devices a round, N p_i/c applied to their changes",
    number="QC",
    citation="coopt",
    assumptions=(
        *quadratic_rounds.assumptions,
        Assumption("c distinct devices of N are drawn uniformly, anew each round, whatever the models"),
    ),
    left=error,
    bound=offset + R_K + fresh_noise,
    definitions=(),
    lemmas=(*_shared, DISTINCT, NOISE_DISTINCT, COVARIANCE_DISTINCT, ALL, NORMALISED, STATEMENT),
    quantities=_quantities,
    exact=True,
    matrices=_distinct_rows,
)

draws_theorem = Theorem(
    name="quadratic-sampling-draws",
    title="(Q) with c devices a round, drawn independently with the probabilities p_i",
    number="QD",
    citation="coopt; the scheme is that of Li et al. 2020, arXiv 1907.02189, Scheme I",
    assumptions=(
        *quadratic_rounds.assumptions,
        Assumption("c independent draws a round with probabilities p_i; a device drawn twice trains twice"),
    ),
    left=error,
    bound=offset + R_K + fresh_noise,
    definitions=(),
    lemmas=(*_shared, DRAWS, NOISE_DRAWS, COVARIANCE_DRAWS, STATEMENT),
    quantities=_quantities,
    exact=True,
    matrices=_draws_rows,
)

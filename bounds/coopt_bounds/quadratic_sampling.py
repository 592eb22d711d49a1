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

from coopt_bounds import device_draws, matrices, quadratic_rounds
from coopt_bounds.algebra import at_least, equal
from coopt_bounds.certified import error
from coopt_bounds.device_draws import c, kappa, p_i
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.matrices import matrix_function, matrix_symbols
from coopt_bounds.proof import Combine, Identity, Induct, SumOver, term
from coopt_bounds.quadratic_rounds import devices, fresh_noise, half, offset, shares, weights
from coopt_bounds.symbols import K, N, Quantity, eta, i, s, tau
from coopt_bounds.theorem import Theorem

B, M, y, v, z, v_i = matrix_symbols("B M y v z v_i")

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
    "lemmas device-draws/distinct and quadratic-sampling/deviation",
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
_drawn_draw = Assumption("lemma device-draws/draws", equal(draw, (moments(n) - whole) / c))
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
    lemmas=(
        *_shared,
        device_draws.DISTINCT,
        device_draws.NOISE_DISTINCT,
        COVARIANCE_DISTINCT,
        device_draws.ALL,
        device_draws.NORMALISED,
        STATEMENT,
    ),
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
        Assumption(
            "c independent draws a round with probabilities p_i; a device drawn twice trains twice (where "
            "it trains once: lemma device-draws/noise-once)"
        ),
    ),
    left=error,
    bound=offset + R_K + fresh_noise,
    definitions=(),
    lemmas=(
        *_shared,
        device_draws.DRAWS,
        device_draws.NOISE_DRAWS,
        device_draws.NOISE_ONCE,
        COVARIANCE_DRAWS,
        STATEMENT,
    ),
    quantities=_quantities,
    exact=True,
    matrices=_draws_rows,
)

r"""Federated averaging on quadratic losses, exactly: every device with a curvature of its own.

Device i has the loss of gradient g_i and curvature H_i at the first model w_0; z = w - w_0. A local step is
z <- J_i z - eta g_i + noise with J_i = I - eta H_i, so a round is an affine map of the global model,

    z <- M z - v + noise,   M = sum p_i J_i^tau,   v = eta sum p_i (sum_{j<tau} J_i^j) g_i,
    Cov noise = sum P_i/s_i,   P_i = eta^2 p_i^2 sum_{j<tau} J_i^j C_i J_i^j,

and the expected loss after K rounds is an equation, not a bound: that of the mean model, and the noise that
is left, affine in 1/s_i with weights that are never negative. Drift of the devices is in M and v. The noise
must not depend on the model; mini-batches are drawn anew in every step.

>>> from coopt_bounds import quadratic_rounds
>>> quadratic_rounds.theorem.check()  # silence is a proof
>>> quadratic_rounds.theorem.statement
Eq(E_K, V_K + Sum(W[i]/s[i], (i, 1, N)))

As numbers, for small matrices (exact here):

>>> from fractions import Fraction
>>> from coopt_bounds.federated_quadratic import Federation, Phase, coefficients
>>> half = Fraction(1, 2)
>>> two = Federation([half, half], [[1], [-2]], [[[1]], [[3]]], [[[4]], [[1]]])
>>> answer = coefficients(two, [Phase(rounds=2, local_steps=2, learning_rate=half)])
>>> answer.offset, answer.weights
(Fraction(105, 1024), ((Fraction(85, 256), Fraction(85, 1024)),))
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import matrices, quadratic_noise
from coopt_bounds.algebra import equal
from coopt_bounds.certified import error
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.matrices import matrix_function, matrix_symbols, partial_sums
from coopt_bounds.proof import Combine, Identity, Induct, SumOver, term
from coopt_bounds.symbols import D0, K, N, Quantity, eta, i, s, tau
from coopt_bounds.theorem import Theorem

H, g, z, J, C, M, v = matrix_symbols("H g z J C M v")
half = sp.Rational(1, 2)
devices = sp.Tuple(i, 1, N)

LOCAL_STEP = Lemma(
    name="quadratic-rounds/local-step",
    words="A local step on a quadratic is z <- J z - eta g with J = I - eta H.",
    hypotheses=(Assumption("the gradient of a device at w_0 + z is g + H z"),),
    steps=(Identity(z - eta * (g + H * z), (1 - eta * H) * z - eta * g),),
    source="noisy quadratic model: Zhang et al. 2019, arXiv 1907.04164",
)

decay = sp.Symbol("l", nonnegative=True)
w0 = sp.Symbol("w_0", commutative=False)

WEIGHT_DECAY = Lemma(
    name="quadratic-rounds/weight-decay",
    words="Weight decay l in the local steps is curvature H + l I and gradient g + l w_0 there; the loss "
    "that is judged keeps H and g.",
    hypotheses=(),
    steps=(Identity((g + H * z) + decay * (w0 + z), (g + decay * w0) + (H + decay) * z),),
    source="elementary",
)

e, xi = matrix_symbols("e xi")
_covariance, _cross, _cross_t, _fresh = matrix_symbols("S E(e*xi^T) E(xi*e^T) E(xi*xi^T)")
_after = sp.Symbol("S_next", commutative=False)
_multiplied_out = Assumption(
    "the expectation of (J e - eta xi)(J e - eta xi)^T, multiplied out; J is symmetric",
    equal(_after, J * _covariance * J - eta * J * _cross - eta * _cross_t * J + eta**2 * _fresh),
)
_uncorrelated = Assumption("the noise of a step has mean zero whatever came before", equal(_cross, 0))
_uncorrelated_t = Assumption("the same, transposed", equal(_cross_t, 0))
_batch = Assumption("its covariance is C/s, or (1/s - 1/d) C: lemmas quadratic-noise", equal(_fresh, C))

LOCAL_NOISE = Lemma(
    name="quadratic-rounds/local-noise",
    words="A local step takes the covariance S to J S J + eta^2 C.",
    hypotheses=(_multiplied_out, _uncorrelated, _uncorrelated_t, _batch),
    steps=(
        Combine(
            equal(_after, J * _covariance * J + eta**2 * C),
            (
                term(1, _multiplied_out.relation),
                term(-eta * J, _uncorrelated.relation),
                term(-eta, _uncorrelated_t.relation, right=J),
                term(eta**2, _batch.relation),
            ),
        ),
    ),
    source="linearity of expectation",
)

_lasting = sp.Symbol("U", commutative=False)

STEP_NOISE = Lemma(
    name="quadratic-rounds/step-noise",
    words="Noise of a step that no batch removes, of covariance U = V I/D where it is the same along all D "
    "parameters, adds what a batch of one with U in place of C adds: a term free of s.",
    hypotheses=(),
    steps=(
        Identity(
            J * _covariance * J + eta**2 * (C / s[i] + _lasting),
            J * _covariance * J + eta**2 * C / s[i] + eta**2 * _lasting,
        ),
    ),
    source="elementary",
)

p = sp.Function("p", positive=True)
averaged, maps, shifts, A, shift = (matrix_function(name) for name in ("zbar", "M", "v", "A", "f"))
_average = partial_sums(
    averaged, p(n) * (A(n) * z - shift(n)), "the average over the first n devices, each at A_i z - f_i"
)
_maps = partial_sums(maps, p(n) * A(n), "M, the sum of p_i A_i")
_shifts = partial_sums(shifts, p(n) * shift(n), "v, the sum of p_i f_i")
_round = equal(averaged(n), maps(n) * z - shifts(n))

AVERAGE = Lemma(
    name="quadratic-rounds/average",
    words="A round takes the mean model to M z - v: the average of affine maps is the map of the averages.",
    hypotheses=(*_average, *_maps, *_shifts),
    steps=(
        Induct(
            _round,
            index=n,
            start=0,
            base=(
                Combine(
                    equal(averaged(0), maps(0) * z - shifts(0)),
                    (
                        term(1, _average[0].relation),
                        term(-1, _maps[0].relation, right=z),
                        term(1, _shifts[0].relation),
                    ),
                ),
            ),
            step=(
                Combine(
                    equal(averaged(n + 1), maps(n + 1) * z - shifts(n + 1)),
                    (
                        term(1, _average[1].relation),
                        term(1, _round),
                        term(-1, _maps[1].relation, right=z),
                        term(1, _shifts[1].relation),
                    ),
                ),
            ),
        ),
    ),
    source="linearity; Charles & Konecny 2021, arXiv 2103.05032",
)

_count = sp.Symbol("c_i", positive=True)

UNEQUAL_STEPS = Lemma(
    name="quadratic-rounds/unequal-steps",
    words="Changes that count c_i = p_i tau_eff/tau_i times in place of p_i leave a round affine: M = I + "
    "sum c_i (A_i - I) and v = sum c_i f_i, and noise of device i counts c_i^2 times.",
    hypotheses=(),
    steps=(
        Identity(z + _count * ((A(n) * z - shift(n)) - z), (1 + _count * (A(n) - 1)) * z - _count * shift(n)),
    ),
    source="normalised averaging: Wang et al. 2020, arXiv 2007.07481",
)

turned_maps, A_t = matrix_function("M^T"), matrix_function("A^T")
_turned = partial_sums(turned_maps, p(n) * A_t(n), "the transpose of M, the sum of p_i A_i^T")
_each_symmetric = Assumption("lemma matrices/symmetric-power for A_i = J_i^tau", equal(A_t(n), A(n)))
_symmetric = equal(turned_maps(n), maps(n))

SYMMETRIC = Lemma(
    name="quadratic-rounds/symmetric",
    words="M is symmetric, since every J_i^tau is: it has real eigenvalues and orthonormal eigenvectors.",
    hypotheses=(*_turned, *_maps, _each_symmetric),
    steps=(
        Induct(
            _symmetric,
            index=n,
            start=0,
            base=(
                Combine(
                    equal(turned_maps(0), maps(0)),
                    (term(1, _turned[0].relation), term(-1, _maps[0].relation)),
                ),
            ),
            step=(
                Combine(
                    equal(turned_maps(n + 1), maps(n + 1)),
                    (
                        term(1, _turned[1].relation),
                        term(1, _symmetric),
                        term(-1, _maps[1].relation),
                        term(p(n), _each_symmetric.relation),
                    ),
                ),
            ),
        ),
    ),
    source="coopt",
)

M1, M2, v1, v2, S0, P1, P2 = matrix_symbols("M_1 M_2 v_1 v_2 S_0 P_1 P_2")

PHASES_MEAN = Lemma(
    name="quadratic-rounds/phases-mean",
    words="Two phases in a row are one affine map: M_2 M_1 and M_2 v_1 + v_2. With both phases equal this is "
    "the doubling by which powers are computed.",
    hypotheses=(),
    steps=(Identity(M2 * (M1 * z - v1) - v2, (M2 * M1) * z - (M2 * v1 + v2)),),
    source="elementary",
)

PHASES_NOISE = Lemma(
    name="quadratic-rounds/phases-noise",
    words="The noise of a phase passes through the maps of later phases: M_2 P_1 M_2 + P_2, still a sum over "
    "devices and phases of 1/s_ip times what no batch changes.",
    hypotheses=(),
    steps=(Identity(M2 * (M1 * S0 * M1 + P1) * M2 + P2, (M2 * M1) * S0 * (M1 * M2) + (M2 * P1 * M2 + P2)),),
    source="elementary",
)

offset, noise, slope, form, cross, spread = sp.symbols("V_K W_K slope form cross trace", real=True)
_expanded = Assumption(
    "F(w_0 + m + e) - F* with g and H the averages of g_i and H_i, multiplied out, in expectation: D_0 + "
    "g'm + m'Hm/2 + E (g + Hm)'e + E e'He/2",
    equal(error, D0 + slope + half * form + cross + half * spread),
)
_unbiased = Assumption("the deviation e from the mean model has mean zero", equal(cross, 0))
_of_mean = Assumption("V_K is the gap of the mean model", equal(offset, D0 + slope + half * form))
_of_noise = Assumption(
    "W_K is half the trace of H times the covariance: E e'He = tr(HS)", equal(2 * noise, spread)
)

LOSS = Lemma(
    name="quadratic-rounds/loss",
    words="The expected gap is that of the mean model plus half the trace of H times the covariance.",
    hypotheses=(_expanded, _unbiased, _of_mean, _of_noise),
    steps=(
        Combine(
            equal(error, offset + noise),
            (
                term(1, _expanded.relation),
                term(1, _unbiased.relation),
                term(-1, _of_mean.relation),
                term(-half, _of_noise.relation),
            ),
        ),
    ),
    source="coopt",
)

m, m_t, zs, zs_t, g_t = matrix_symbols("m m^T z_* z_*^T g^T")
_stationary = Assumption("z_* is a minimum of F: g + H z_* = 0", equal(g, -H * zs))
_stationary_t = Assumption("the same, transposed", equal(g_t, -zs_t * H))

OPTIMUM = Lemma(
    name="quadratic-rounds/optimum",
    words="D_0 + g'm + m'Hm/2 is (m - z_*)'H(m - z_*)/2 with D_0 = z_*'Hz_*/2: plans are ranked without z_*.",
    hypotheses=(_stationary, _stationary_t),
    steps=(
        Combine(
            equal(
                half * zs_t * H * zs + half * (g_t * m + m_t * g) + half * m_t * H * m,
                half * (m_t - zs_t) * H * (m - zs),
            ),
            (term(half, _stationary_t.relation, right=m), term(half * m_t, _stationary.relation)),
        ),
    ),
    source="elementary",
)

weights = sp.IndexedBase("W", nonnegative=True)
shares = sp.IndexedBase("h", nonnegative=True)
left = sp.Function("W_sum", nonnegative=True)
added = sp.Function("w", nonnegative=True)
_left = (
    Assumption("no noise is left before the first round", equal(left(0), 0)),
    Assumption(
        "round k leaves w(k) of its noise: it is added to that of all others",
        equal(left(n + 1), left(n) + added(n)),
    ),
)
_split = Assumption(
    "the trace is linear and devices are independent: w(k) = tr(H M^k P M^k)/2 = sum h_i(k)/s_i, h_i(k) = "
    "tr(H M^k P_i M^k)/2 >= 0; with momentum the response W_k stands for M^k (lemma "
    "quadratic-monotone/trace)",
    equal(added(n), sp.Sum(shares[i, n] / s[i], devices)),
)
_counts = (
    Assumption("W_i(0) = 0", equal(weights[i, 0], 0)),
    Assumption("W_i(k+1) = W_i(k) + h_i(k)", equal(weights[i, n + 1], weights[i, n] + shares[i, n])),
)
_sum_first = SumOver(_counts[0].relation, 1 / s[i], devices)
_sum_next = SumOver(_counts[1].relation, 1 / s[i], devices)
_affine = equal(left(n), sp.Sum(weights[i, n] / s[i], devices))

AFFINE = Lemma(
    name="quadratic-rounds/affine",
    words="The noise left after K rounds is sum W_i/s_i, W_i the sum of tr(H M^k P_i M^k)/2 over k < K.",
    hypotheses=(*_left, _split, *_counts),
    steps=(
        Induct(
            _affine,
            index=n,
            start=0,
            base=(
                _sum_first,
                Combine(
                    equal(left(0), sp.Sum(weights[i, 0] / s[i], devices)),
                    (term(1, _left[0].relation), term(-1, _sum_first.conclusion)),
                ),
            ),
            step=(
                _sum_next,
                Combine(
                    equal(left(n + 1), sp.Sum(weights[i, n + 1] / s[i], devices)),
                    (
                        term(1, _left[1].relation),
                        term(1, _affine),
                        term(1, _split.relation),
                        term(-1, _sum_next.conclusion),
                    ),
                ),
            ),
        ),
    ),
    source="coopt",
)

samples = sp.IndexedBase("d", positive=True)
fresh_noise = sp.Sum(weights[i] / s[i], devices)
distinct_noise = sp.Sum(weights[i] * (1 / s[i] - 1 / samples[i]), devices)
_gap = Assumption("lemma quadratic-rounds/loss", equal(error, offset + noise))
noise_left = Assumption("lemma quadratic-rounds/affine", equal(noise, fresh_noise))
_distinct_noise = Assumption(
    "lemma quadratic-rounds/affine with 1/s_i - 1/d_i in place of 1/s_i: lemma quadratic-noise/"
    "without-replacement",
    equal(noise, distinct_noise),
)


def statement(name: str, words: str, hypothesis: Assumption) -> Lemma:
    """The expected gap, given what is left of the noise."""
    total = hypothesis.relation.rhs if hypothesis.relation is not None else sp.S.Zero
    return Lemma(
        name=name,
        words=words,
        hypotheses=(_gap, hypothesis),
        steps=(
            Combine(equal(error, offset + total), (term(1, _gap.relation), term(1, hypothesis.relation))),
        ),
        source="coopt",
    )


_J, _g, _C, _P, _M, _v, _m = matrix_symbols("J_i g_i C_i P_i M v m_K")
_H_i, _mK_t = matrix_symbols("H_i m_K^T")
_j, _k = sp.symbols("j k", integer=True, nonnegative=True)
_p = sp.Symbol("p_i", positive=True)
_n = sp.Symbol("W_i", nonnegative=True)
_trace = matrix_function("tr")
pushed = sp.Sum(_J**_j, (_j, 0, tau - 1)) * _g
"""What the gradient adds up to over a round, but for eta."""
local_matrices: tuple[tuple[sp.Expr, sp.Expr], ...] = (
    (_J, sp.Symbol("I", commutative=False) - eta * _H_i),
    (_M, sp.Sum(_p * _J**tau, (i, 1, N))),
    (_v, sp.Sum(_p * eta * pushed, (i, 1, N))),
    (_P, eta**2 * _p**2 * sp.Sum(_J**_j * _C * _J**_j, (_j, 0, tau - 1))),
)
"""What a round is made of, for reading."""

assumptions: tuple[Assumption, ...] = (
    Assumption("every F_i is quadratic: gradient g_i and symmetric curvature H_i at the first model w_0"),
    Assumption(
        "gradient noise of one sample has mean zero and covariance C_i whatever the model; batches are drawn "
        "anew in every step, independently of each other and across devices (shuffled epochs do not qualify)"
    ),
    Assumption("every device starts each round from the average, and takes tau steps of size eta"),
    Assumption("F = sum p_i F_i has a minimum F*, D_0 above it at w_0"),
)

quantities: tuple[Quantity, ...] = (
    Quantity(offset, "expected gap of the mean model, without noise", "loss"),
    Quantity(weights[i], "what is left after K rounds of the noise of device i, times s_i", "loss samples"),
)

_proof: tuple[Lemma, ...] = (
    *matrices.LEMMAS[:4],
    *quadratic_noise.LEMMAS,
    LOCAL_STEP,
    WEIGHT_DECAY,
    LOCAL_NOISE,
    STEP_NOISE,
    AVERAGE,
    UNEQUAL_STEPS,
    SYMMETRIC,
    PHASES_MEAN,
    PHASES_NOISE,
    LOSS,
    OPTIMUM,
    AFFINE,
)
_citation = (
    "coopt; the noisy quadratic model of Zhang et al. 2019, arXiv 1907.04164, with a curvature for every "
    "device; mean and fixed points: Charles & Konecny 2021, arXiv 2103.05032"
)
mean_model_row = (_m, -sp.Sum(_M**_k, (_k, 0, K - 1)) * _v)
mean_gap_row = (offset, D0 + g_t * _m + half * _mK_t * H * _m)
"""The mean model and its gap, for reading."""
_matrices = (
    *local_matrices,
    mean_model_row,
    mean_gap_row,
    (_n, half * _trace(H * sp.Sum(_M**_k * _P * _M**_k, (_k, 0, K - 1)))),
)

STATEMENT = statement("quadratic-rounds/statement", "The expected gap, batches with replacement.", noise_left)
DISTINCT_STATEMENT = statement(
    "quadratic-rounds/distinct-statement", "The expected gap, batches of distinct samples.", _distinct_noise
)

theorem = Theorem(
    name="quadratic-rounds",
    title="Federated averaging on quadratic losses, every device with its own curvature: the expected loss",
    number="Q",
    citation=_citation,
    assumptions=assumptions,
    left=error,
    bound=offset + fresh_noise,
    definitions=(),
    lemmas=(*_proof, STATEMENT),
    quantities=quantities,
    exact=True,
    matrices=_matrices,
)

distinct_theorem = Theorem(
    name="quadratic-rounds-distinct",
    title="The same with batches of distinct samples",
    number="QW",
    citation=_citation,
    assumptions=(*assumptions, Assumption("C_i has divisor d_i - 1, and a batch has no sample twice")),
    left=error,
    bound=offset + distinct_noise,
    definitions=(),
    lemmas=(*_proof, DISTINCT_STATEMENT),
    quantities=(*quantities, Quantity(samples[i], "samples of device i", "samples")),
    exact=True,
    matrices=_matrices,
)

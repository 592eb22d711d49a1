"""The published bound (DYNAMITE, eq. 11) and its one-round form.

It compares the averaged model with centralised SGD restarted from it in every round. The comparison assumes
"quadratic continuity", which holds for no nonconstant function at all pairs of models; the theorem has "
"content
only along the pairs that occur in training, and rho is then no constant of the problem (lemmas
``dynamite/constant`` and ``dynamite/fixed-point``).
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import geometric, published_drift, unroll
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, Induct, Substitute, term
from coopt_bounds.published_drift import h
from coopt_bounds.symbols import (
    D0,
    K,
    Quantity,
    beta,
    c,
    delta,
    delta_sum,
    eta,
    q,
    rho,
    sigma2,
    sigma2_sum,
    tau,
)
from coopt_bounds.theorem import Theorem

error = sp.Symbol("E_K", real=True)
noise_floor = eta * beta / (2 * c) * sigma2
drift_floor = rho * h**2 / (1 - q**tau)
bound = q ** (K * tau) * D0 + (1 - q ** (K * tau)) * (noise_floor + drift_floor)

contraction = Assumption("q = 1 - eta c", equal(q, 1 - eta * c))
short_step = Assumption("eta beta <= 1", at_least(1 - eta * beta, 0))

X = sp.Symbol("X", nonnegative=True)
f, f_next = sp.symbols("f f_next", real=True)
_smooth = Assumption(
    "descent lemma for the beta-smooth F along the centralised iterate, gradient noise of variance at most "
    "sigma^2",
    at_most(f_next, f - eta * X + beta * eta**2 / 2 * (X + sigma2)),
)
_polyak = Assumption("Polyak-Lojasiewicz inequality", at_least(X, 2 * c * f))

CENTRAL_STEP = Lemma(
    name="dynamite/central-step",
    words="One centralised step: f_next <= (1 - eta c) f + eta^2 beta sigma^2/2.",
    hypotheses=(_smooth, _polyak, short_step),
    steps=(
        Combine(
            at_most(f_next, (1 - eta * c) * f + eta**2 * beta * sigma2 / 2),
            (
                term(1, _smooth.relation),
                term(eta / 2, _polyak.relation),
                term(eta / 2 * X, short_step.relation),
            ),
        ),
    ),
    source="Bottou, Curtis & Nocedal 2018, SIAM Review 60(2), Theorem 4.6",
)

_g1, _g2, _start, _central, _mean, _distance2 = sp.symbols("G_1 G_2 f_0 f_v f_w dist2", nonnegative=True)
_unrolled = Assumption(
    "lemma unroll/round for the centralised iterate v",
    at_most(_central, q**tau * _start + eta**2 * beta * sigma2 / 2 * _g1),
)
_g1_closed = Assumption("lemma geometric/sum", equal(_g1 * (1 - q), 1 - q**tau))
_continuity = Assumption(
    "rho-quadratic continuity for the pair (averaged model, centralised iterate), in expectation",
    at_most(_mean - _central, rho * _distance2),
)
_close = Assumption(
    "lemma published-drift/mean, squared (no gradient noise in the drift)", at_most(_distance2, h**2)
)
round_term = (1 - q**tau) * noise_floor + rho * h**2

ROUND = Lemma(
    name="dynamite/round",
    words="One round: f <= q^tau f_0 + (1-q^tau) eta beta sigma^2/(2c) + rho h^2; with K = 1 and D0 the "
    "current loss "
    "this is the marginal bound that the online controller minimises over tau.",
    hypotheses=(_unrolled, _g1_closed, contraction, _continuity, _close),
    steps=(
        Combine(
            at_most(_mean, q**tau * _start + round_term),
            (
                term(1, _unrolled.relation),
                term(1, _continuity.relation),
                term(rho, _close.relation),
                term(-eta * beta * sigma2 / (2 * c), _g1_closed.relation),
                term(-eta * beta * sigma2 / (2 * c) * _g1, contraction.relation),
            ),
        ),
    ),
    source="DYNAMITE (arXiv 2310.14906), proof of Theorem 1",
)

_rounds = Assumption(
    "lemma unroll/rounds with Q = q^tau", at_most(error, q ** (K * tau) * D0 + _g2 * round_term)
)
_g2_closed = Assumption(
    "lemma geometric/sum with q^tau in place of q", equal(_g2, (1 - q ** (K * tau)) / (1 - q**tau))
)

STATEMENT = Lemma(
    name="dynamite/statement",
    words="The published bound, eq. 11.",
    hypotheses=(_rounds, _g2_closed),
    steps=(
        Combine(at_most(error, bound), (term(1, _rounds.relation), term(-round_term, _g2_closed.relation))),
    ),
    source="DYNAMITE (arXiv 2310.14906), eq. 11",
)

k = sp.Symbol("k", integer=True, nonnegative=True)
pieces = sp.Symbol("n", integer=True, positive=True)
length = sp.Symbol("length", nonnegative=True)
_change = sp.Function("Delta", real=True)
_piece = Assumption(
    "cut the segment from w to v into n equal pieces; each changes F by at most rho (length/n)^2",
    at_most(_change(k + 1), _change(k) + rho * (length / pieces) ** 2),
)
_none = Assumption("no change after no piece", equal(_change(0), 0))
_so_far = at_most(_change(k), k * rho * (length / pieces) ** 2)

PIECES = Lemma(
    name="dynamite/pieces",
    words="Quadratic continuity for all pairs: |F(w) - F(v)| <= n rho (length/n)^2 for every number n of "
    "pieces.",
    hypotheses=(_piece, _none),
    steps=(
        Induct(
            _so_far,
            index=k,
            start=0,
            base=(
                Combine(at_most(_change(0), 0 * rho * (length / pieces) ** 2), (term(-1, _none.relation),)),
            ),
            step=(
                Combine(
                    at_most(_change(k + 1), (k + 1) * rho * (length / pieces) ** 2),
                    (term(1, _piece.relation), term(1, _so_far)),
                ),
            ),
        ),
        Substitute(_so_far, {k: pieces}),
        Combine(
            at_most(_change(pieces), rho * length**2 / pieces),
            (term(1, Substitute(_so_far, {k: pieces}).conclusion),),
        ),
    ),
    source="coopt",
)

CONSTANT = Lemma(
    name="dynamite/constant",
    words="Quadratic continuity for all pairs forces F to be constant: the bound rho length^2/n on |F(w) - "
    "F(v)| "
    "(lemma dynamite/pieces) tends to 0.",
    hypotheses=PIECES.hypotheses,
    steps=(
        Apply(PIECES),
        Identity(sp.Limit(rho * length**2 / pieces, pieces, sp.oo), sp.S.Zero),
    ),
    source="coopt",
)

_squares = sp.Symbol("S", positive=True)
_drop, _apart2 = sp.symbols("drop dist2", nonnegative=True)
_descends = Assumption(
    "centralised gradient descent from the fixed point w loses at least eta (1 - eta beta/2) times the sum "
    "S of its "
    "squared gradients (descent lemma, summed over tau steps)",
    at_least(_drop, eta * (1 - eta * beta / 2) * _squares),
)
_moves = Assumption(
    "it moves by eta times the sum of its tau gradients: at most eta^2 tau S (lemma averaging/jensen)",
    at_most(_apart2, eta**2 * tau * _squares),
)
_asks = Assumption(
    "quadratic continuity for this pair, w being also where the averaged model ends",
    at_most(_drop, rho * _apart2),
)

FIXED_POINT = Lemma(
    name="dynamite/fixed-point",
    words="At a fixed point of federated averaging (gradient not zero) rho must be at least (1 - eta "
    "beta/2)/(eta tau): "
    "no constant of the problem. Take 1/(eta tau) when none is given.",
    hypotheses=(_descends, _moves, _asks),
    steps=(
        Combine(
            at_least(rho, (1 - eta * beta / 2) / (eta * tau)),
            (
                term(1 / (eta**2 * tau * _squares), _descends.relation),
                term(rho / (eta**2 * tau * _squares), _moves.relation),
                term(1 / (eta**2 * tau * _squares), _asks.relation),
            ),
        ),
    ),
    source="coopt",
)

MARGINAL = Lemma(
    name="dynamite/marginal",
    words="The bound of one round is eq. 11 at K = 1.",
    hypotheses=(),
    steps=(Identity(bound.subs(K, 1), q**tau * D0 + round_term),),
    source="DYNAMITE (arXiv 2310.14906), online control",
)

assumptions: tuple[Assumption, ...] = (
    Assumption("every F_i and F is beta-smooth and eta <= 1/beta", at_most(eta * beta, 1)),
    Assumption("F satisfies the Polyak-Lojasiewicz inequality with c <= beta", at_most(c, beta)),
    Assumption("||grad F_i - grad F|| <= delta_i everywhere"),
    Assumption(
        "gradient noise has mean zero, is independent across devices, variance at most M_i/s_i + V_i; "
        "as published, V_i = 0"
    ),
    Assumption(
        "F(w) - F(v) <= rho ||w - v||^2 for the averaged model w and centralised SGD v restarted from it "
        "each round, in "
        "expectation (for all pairs it would force F to be constant)"
    ),
    Assumption("the drift is that of gradients without noise (with noise: lemma published-drift/noisy)"),
)

_definitions = ((sigma2, sigma2_sum), (delta, delta_sum), (q, 1 - eta * c))
_lemmas = (
    *published_drift.LEMMAS,
    geometric.LEMMAS[0],
    geometric.LEMMAS[1],
    unroll.ROUND,
    unroll.ROUNDS,
    CENTRAL_STEP,
    ROUND,
    PIECES,
    CONSTANT,
    FIXED_POINT,
    MARGINAL,
    STATEMENT,
)

theorem = Theorem(
    name="dynamite",
    title="The published bound: centralised SGD plus quadratic continuity",
    number="P",
    citation="Liu et al., DYNAMITE, IEEE Trans. Mobile Computing 2024, arXiv 2310.14906, eq. 11",
    assumptions=assumptions,
    left=error,
    bound=bound,
    definitions=_definitions,
    lemmas=_lemmas,
    quantities=(
        Quantity(
            rho,
            "quadratic continuity; 1/(eta tau) when none is given",
            "curvature",
            "Constants.quadratic_continuity",
        ),
    ),
)

marginal = Theorem(
    name="dynamite-marginal",
    title="The published bound of one round",
    number="P1",
    citation="Liu et al., DYNAMITE, IEEE Trans. Mobile Computing 2024, arXiv 2310.14906, eq. 11 at K = 1",
    assumptions=(*assumptions, Assumption("D_0 is the gap at the start of this round")),
    left=_mean,
    bound=(q**tau * D0 + round_term),
    definitions=_definitions,
    lemmas=(
        CENTRAL_STEP,
        Lemma(
            name="dynamite/marginal-statement",
            words="The bound of one round, from a start with gap D_0.",
            hypotheses=(
                *(
                    Assumption(a.words, a.relation.subs(_start, D0))
                    for a in (_unrolled,)
                    if a.relation is not None
                ),
                _g1_closed,
                contraction,
                _continuity,
                _close,
            ),
            steps=(Apply(ROUND, {_start: D0}),),
            source="DYNAMITE (arXiv 2310.14906)",
        ),
    ),
)

"""The bound of AdaCoOpt, the precursor of DYNAMITE: h in place of its square, rho a Lipschitz constant."""

from __future__ import annotations

import sympy as sp

from coopt_bounds import dynamite, geometric, published_drift, unroll
from coopt_bounds.algebra import at_most, equal
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, term
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

error = dynamite.error
noise_floor = dynamite.noise_floor
drift_floor = rho * h / (1 - q**tau)
bound = q ** (K * tau) * D0 + (1 - q ** (K * tau)) * (noise_floor + drift_floor)
round_term = (1 - q**tau) * noise_floor + rho * h

_g1, _g2, _start, _central, _mean, _distance = sp.symbols("G_1 G_2 f_0 f_v f_w dist", nonnegative=True)
_unrolled = Assumption(
    "lemmas dynamite/central-step and unroll/round for the centralised iterate v",
    at_most(_central, q**tau * _start + eta**2 * beta * sigma2 / 2 * _g1),
)
_g1_closed = Assumption("lemma geometric/sum", equal(_g1 * (1 - q), 1 - q**tau))
_lipschitz = Assumption("F is rho-Lipschitz", at_most(_mean - _central, rho * _distance))
_close = Assumption("lemma published-drift/mean", at_most(_distance, h))

ROUND = Lemma(
    name="adacoopt/round",
    words="One round: f <= q^tau f_0 + (1-q^tau) eta beta sigma^2/(2c) + rho h.",
    hypotheses=(_unrolled, _g1_closed, dynamite.contraction, _lipschitz, _close),
    steps=(
        Combine(
            at_most(_mean, q**tau * _start + round_term),
            (
                term(1, _unrolled.relation),
                term(1, _lipschitz.relation),
                term(rho, _close.relation),
                term(-eta * beta * sigma2 / (2 * c), _g1_closed.relation),
                term(-eta * beta * sigma2 / (2 * c) * _g1, dynamite.contraction.relation),
            ),
        ),
    ),
    source="AdaCoOpt (IWQoS 2023)",
)

_rounds = Assumption(
    "lemma unroll/rounds with Q = q^tau", at_most(error, q ** (K * tau) * D0 + _g2 * round_term)
)
_g2_closed = Assumption(
    "lemma geometric/sum with q^tau in place of q", equal(_g2, (1 - q ** (K * tau)) / (1 - q**tau))
)

STATEMENT = Lemma(
    name="adacoopt/statement",
    words="The bound of AdaCoOpt.",
    hypotheses=(_rounds, _g2_closed),
    steps=(
        Combine(at_most(error, bound), (term(1, _rounds.relation), term(-round_term, _g2_closed.relation))),
    ),
    source="AdaCoOpt (IWQoS 2023)",
)

theorem = Theorem(
    name="adacoopt",
    title="The precursor of the published bound: centralised SGD plus a Lipschitz constant",
    number="A",
    citation="Liu et al., AdaCoOpt, IEEE/ACM IWQoS 2023; DYNAMITE (arXiv 2310.14906) eq. 11 with rho h in "
    "place of rho h^2",
    assumptions=(
        *dynamite.assumptions[:4],
        Assumption(
            "F is rho-Lipschitz: |F(w) - F(v)| <= rho ||w - v|| (impossible on all of space with the "
            "Polyak-Lojasiewicz inequality, unless F is constant: read it as on the region that training "
            "visits)"
        ),
        dynamite.assumptions[5],
    ),
    left=error,
    bound=bound,
    definitions=((sigma2, sigma2_sum), (delta, delta_sum), (q, 1 - eta * c)),
    lemmas=(
        *published_drift.LEMMAS,
        geometric.LEMMAS[0],
        geometric.LEMMAS[1],
        unroll.ROUND,
        unroll.ROUNDS,
        dynamite.CENTRAL_STEP,
        ROUND,
        STATEMENT,
    ),
    quantities=(Quantity(rho, "Lipschitz constant of F", "gradient", "Constants.lipschitz"),),
)

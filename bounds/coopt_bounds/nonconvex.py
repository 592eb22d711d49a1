"""The nonconvex bound: the mean squared gradient norm, without the Polyak-Lojasiewicz inequality."""

from __future__ import annotations

import sympy as sp

from coopt_bounds import averaging, certified, descent, drift, geometric, unroll
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.geometric import S_a, S_b
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, term
from coopt_bounds.symbols import (
    D0,
    K,
    Quantity,
    beta_d,
    beta_F,
    d_h,
    d_h_root,
    ell,
    eta,
    gamma,
    nu2,
    nu2_sum,
    r,
    sigma2,
    sigma2_sum,
    tau,
    z,
)
from coopt_bounds.symbols import C as DRIFT_WEIGHT
from coopt_bounds.theorem import Theorem

gradient = sp.Symbol("grad2", nonnegative=True)
"""The mean over all T = K tau steps of E ||grad F||^2 at the averaged model."""
m = sp.Symbol("m", positive=True)

coupling_factor = sp.Rational(1, 2) * (eta * beta_F + (1 - eta * beta_F) / gamma) * beta_d**2
drift_average = (
    eta**2 * ((1 + z) * d_h**2 * S_a(sp.S.One, r, tau) + (1 + 1 / z) * nu2 * S_b(sp.S.One, r, tau)) / tau
)
bound = (D0 / (eta * K * tau) + eta * beta_F * sigma2 / 2 + coupling_factor * drift_average) / m

assumptions: tuple[Assumption, ...] = (
    *(a for a in certified.assumptions if "Polyak" not in a.words),
    Assumption(
        "F is bounded from below by inf F; D_0 = F(w_0) - inf F (F(w_0) itself for a nonnegative loss)"
    ),
)

_total, _drifts, _last, _one_round = sp.symbols("X_sum D_sum f_T S", nonnegative=True)
_telescoped = Assumption(
    "lemma unroll/telescope with gain eta m and T = K tau",
    at_most(eta * m * _total + _last, D0 + K * tau * descent.step_noise + DRIFT_WEIGHT * _drifts),
)
_periodic = Assumption("drift restarts at 0 in each of the K rounds", equal(_drifts, K * _one_round))
_drift = Assumption("lemma unroll/drift-sum with q = 1", at_most(_one_round, tau * drift_average))
_mean = Assumption("grad2 is the mean over T steps", equal(gradient * K * tau, _total))
_weight = Assumption("C, the weight of the drift", equal(DRIFT_WEIGHT, descent.drift_weight))

STATEMENT = Lemma(
    name="nonconvex/statement",
    words="The nonconvex bound.",
    hypotheses=(_telescoped, _periodic, _drift, _mean, _weight),
    steps=(
        Combine(
            at_most(gradient, bound),
            (
                term(1 / (eta * m * K * tau), _telescoped.relation),
                term(_last / (eta * m * K * tau)),
                term(-DRIFT_WEIGHT / (eta * m * K * tau), _periodic.relation),
                term(DRIFT_WEIGHT / (eta * m * tau), _drift.relation),
                term(-1 / (K * tau), _mean.relation),
                term(-drift_average / (eta * m), _weight.relation),
            ),
        ),
    ),
    source="coopt",
)

SHARE = Lemma(
    name="nonconvex/share",
    words="m >= 1/2: every step gains at least half of eta ||grad F||^2.",
    hypotheses=(descent.short_step, descent.gamma_range),
    steps=(
        Combine(
            at_least(descent.descent_share, sp.Rational(1, 2)),
            (term(sp.Rational(1, 2), descent.short_step.relation, descent.gamma_range.relation),),
        ),
    ),
    source="coopt",
)

theorem = Theorem(
    name="nonconvex",
    title="Federated averaging of smooth functions: mean squared gradient norm",
    number="N",
    citation="coopt; tau = 1, gamma = 1 is Bottou, Curtis & Nocedal 2018, SIAM Review 60(2), Theorem 4.8",
    assumptions=assumptions,
    left=gradient,
    bound=bound,
    definitions=(
        (sigma2, sigma2_sum),
        (nu2, nu2_sum),
        (d_h, d_h_root),
        (m, descent.descent_share),
        (r, 1 - eta * ell),
    ),
    lemmas=(
        *averaging.LEMMAS,
        *(
            lemma
            for lemma in descent.LEMMAS
            if lemma not in (descent.STEP, descent.CONTRACTION, descent.PROGRESS)
        ),
        *drift.LEMMAS,
        *geometric.LEMMAS,
        unroll.DRIFT_SUM,
        unroll.TELESCOPE,
        SHARE,
        STATEMENT,
    ),
    quantities=(
        Quantity(gradient, "mean over all steps of E ||grad F||^2 at the averaged model", "gradient^2"),
        Quantity(m, "part of eta ||grad F||^2 that every step gains, at least 1/2", "-"),
    ),
)

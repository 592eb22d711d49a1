"""The certified bound: federated averaging under the Polyak-Lojasiewicz inequality.

>>> from coopt_bounds import certified
>>> value = certified.theorem.evaluate(
...     {"K": 10, "tau": 4, "eta": "0.1", "beta": 1, "beta_F": 1, "beta_d": "0.5", "ell": 0,
...      "c": "0.1", "D_0": 2,
...      "sigma2": "0.01", "nu2": "0.01", "d_h": "0.1", "gamma": 1, "z": 1})
>>> print(f"{float(value):.12f}")
1.340016606390
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import averaging, descent, drift, geometric, unroll
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.geometric import S_a, S_b
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, term
from coopt_bounds.symbols import (
    D0,
    C,
    K,
    beta,
    beta_d,
    beta_F,
    c,
    d_h,
    d_h_root,
    ell,
    eta,
    gamma,
    nu2,
    nu2_sum,
    q,
    r,
    sigma2,
    sigma2_sum,
    tau,
    z,
)
from coopt_bounds.theorem import Theorem

error = sp.Symbol("E_K", real=True)
"""E F(w_K) - F*: the expected gap of the averaged model after K rounds."""

rounds_factor = (1 - q ** (K * tau)) / (1 - q**tau)
noise_floor = descent.step_noise * (1 - q**tau) / (1 - q)
drift_floor = C * eta**2 * ((1 + z) * d_h**2 * S_a(q, r, tau) + (1 + 1 / z) * nu2 * S_b(q, r, tau))
bound = q ** (K * tau) * D0 + rounds_factor * (noise_floor + drift_floor)

assumptions: tuple[Assumption, ...] = (
    Assumption("F is beta_F-smooth and eta <= 1/beta_F", at_most(eta * beta_F, 1)),
    Assumption("F satisfies the Polyak-Lojasiewicz inequality with c <= beta_F", at_most(c, beta_F)),
    Assumption("every F_i has curvature at least ell (ell = -beta: smooth only)", at_least(ell, -beta)),
    Assumption("every F_i has curvature at most beta", at_most(ell, beta)),
    Assumption("eta <= 2/(beta + ell)", at_most(eta * (beta + ell), 2)),
    Assumption("the mean is no rougher than its parts", at_most(beta_F, beta)),
    Assumption(
        "beta_d <= beta couples drift to the averaged gradient: ||sum p_i (grad F_i(w_i) - grad F_i(w))|| <= "
        "beta_d (sum p_i ||w_i - w||^2)^(1/2); (beta - ell)/2 always does (lemma averaging/midpoint)",
        at_most(beta_d, beta),
    ),
    Assumption("||grad F_i - grad F|| <= delta_i everywhere, d_h^2 = sum p_i delta_i^2"),
    Assumption(
        "given the past, gradient noise has mean zero, is independent across devices, and has variance at "
        "most "
        "M_i/s_i + V_i on device i (fresh draws with replacement; shuffled epochs do not qualify)"
    ),
    Assumption("every device starts each round from the average, and takes tau steps of size eta"),
    Assumption("0 < gamma <= 1 (gamma = 0 allowed at tau = 1, where there is no drift)", at_most(gamma, 1)),
    Assumption("z > 0", sp.Gt(z, 0, evaluate=False)),
)

_phi, _g1, _g2, _sum = sp.symbols("Phi G_1 G_2 S", nonnegative=True)
_rounds = Assumption("lemma unroll/rounds with Q = q^tau", at_most(error, q ** (K * tau) * D0 + _g2 * _phi))
_round = Assumption("lemma unroll/round", equal(_phi, descent.step_noise * _g1 + C * _sum))
_drift = Assumption(
    "lemma unroll/drift-sum",
    at_most(_sum, eta**2 * ((1 + z) * d_h**2 * S_a(q, r, tau) + (1 + 1 / z) * nu2 * S_b(q, r, tau))),
)
_g1_closed = Assumption("lemma geometric/sum", equal(_g1, (1 - q**tau) / (1 - q)))
_g2_closed = Assumption("lemma geometric/sum with q^tau in place of q", equal(_g2, rounds_factor))

STATEMENT = Lemma(
    name="certified/statement",
    words="The certified bound.",
    hypotheses=(_rounds, _round, _drift, _g1_closed, _g2_closed),
    steps=(
        Combine(
            at_most(error, bound),
            (
                term(1, _rounds.relation),
                term(-_g2, _round.relation),
                term(_g2 * C, _drift.relation),
                term(-_g2 * descent.step_noise, _g1_closed.relation),
                term(-(noise_floor + drift_floor), _g2_closed.relation),
            ),
        ),
    ),
    source="coopt",
)

_weight = sp.Symbol("w_tau", positive=True)
_average = sp.Symbol("A_tau", nonnegative=True)
_floor = (noise_floor + drift_floor) / (1 - q**tau)
_weights_sum = Assumption("w_tau = G(q, 1, tau)", equal(_weight * (1 - q), 1 - q**tau))
_drift_average = Assumption(
    "A_tau is the average of (1+z) a_j^2 + (1+1/z) b_j^2 over the round",
    equal(
        _weight * _average,
        eta**2 * ((1 + z) * d_h**2 * S_a(q, r, tau) + (1 + 1 / z) * nu2 * S_b(q, r, tau)),
    ),
)

FLOOR = Lemma(
    name="certified/floor",
    words="The floor is the noise of one endless training run plus C/(1-q) times the drift average of a "
    "round, so it "
    "never falls in tau (lemma monotone/drift-average).",
    hypotheses=(_weights_sum, _drift_average),
    steps=(
        Combine(
            equal(_floor, (descent.step_noise + C * _average) / (1 - q)),
            (
                term(-C / (1 - q**tau), _drift_average.relation),
                term(C * _average / ((1 - q) * (1 - q**tau)), _weights_sum.relation),
            ),
        ),
    ),
    source="coopt",
)

theorem = Theorem(
    name="certified",
    title="Federated averaging under the Polyak-Lojasiewicz inequality, no quadratic continuity",
    number="C",
    citation="coopt; its one-step case tau = 1, gamma = 1 is Bottou, Curtis & Nocedal 2018, SIAM Review "
    "60(2), Theorem 4.6",
    assumptions=assumptions,
    left=error,
    bound=bound,
    definitions=(
        (sigma2, sigma2_sum),
        (nu2, nu2_sum),
        (d_h, d_h_root),
        (q, descent.contraction),
        (C, descent.drift_weight),
        (r, 1 - eta * ell),
    ),
    lemmas=(
        *averaging.LEMMAS,
        *descent.LEMMAS,
        *drift.LEMMAS,
        *geometric.LEMMAS,
        unroll.ROUND,
        unroll.DRIFT_SUM,
        unroll.ROUNDS,
        FLOOR,
        STATEMENT,
    ),
)

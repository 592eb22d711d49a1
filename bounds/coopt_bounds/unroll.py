"""From one step to a round and from a round to a training run: first-order recursions unrolled."""

from __future__ import annotations

from typing import Any

import sympy as sp

from coopt_bounds.algebra import at_most, equal
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Induct, Term, term
from coopt_bounds.symbols import C, d_h, eta, nu2, q, z

f, D, G1, S, SA, SB = (sp.Function(name, nonnegative=True) for name in ("f", "D", "G_1", "S", "S_A", "S_B"))
A2, B2 = (sp.Function(name, nonnegative=True) for name in ("a2", "b2"))
noise, Phi, Q = sp.symbols("noise Phi Q", nonnegative=True)
E, G2 = (sp.Function(name, nonnegative=True) for name in ("E", "G_2"))


def _sum_of(
    sequence: Any, factor: sp.Expr, forcing: sp.Expr | int, words: str
) -> tuple[Assumption, Assumption]:
    return (
        Assumption(f"{words}: it starts at 0", equal(sequence(0), 0)),
        Assumption(f"{words}: recurrence", equal(sequence(n + 1), factor * sequence(n) + forcing)),
    )


_g1 = _sum_of(G1, q, 1, "G_1(n) = G(q, 1, n)")
_s = _sum_of(S, q, D(n), "S(n), the sum of q^(n-1-j) D_j")
_step = Assumption(
    "lemma descent/step for every step of a round", at_most(f(n + 1), q * f(n) + noise + C * D(n))
)
_after = at_most(f(n), q**n * f(0) + noise * G1(n) + C * S(n))

ROUND = Lemma(
    name="unroll/round",
    words="After tau local steps: f <= q^tau f_0 + noise G(q,1,tau) + C sum_j q^(tau-1-j) D_j.",
    hypotheses=(_step, *_g1, *_s),
    steps=(
        Induct(
            _after,
            index=n,
            start=0,
            base=(
                Combine(
                    at_most(f(0), q**0 * f(0) + noise * G1(0) + C * S(0)),
                    (term(noise, _g1[0].relation), term(C, _s[0].relation)),
                ),
            ),
            step=(
                Combine(
                    at_most(f(n + 1), q ** (n + 1) * f(0) + noise * G1(n + 1) + C * S(n + 1)),
                    (
                        term(1, _step.relation),
                        term(q, _after),
                        term(noise, _g1[1].relation),
                        term(C, _s[1].relation),
                    ),
                ),
            ),
        ),
    ),
    source="geometric recursion",
)

_young = Assumption(
    "lemmas drift/split and drift/young: D_j <= (1+z) a_j^2 + (1+1/z) b_j^2, with a_j^2 = eta^2 d_h^2 a2(j) "
    "and "
    "b_j^2 = eta^2 nu^2 b2(j) by lemmas drift/divergence and drift/noise",
    at_most(D(n), eta**2 * ((1 + z) * d_h**2 * A2(n) + (1 + 1 / z) * nu2 * B2(n))),
)
_sa = _sum_of(SA, q, A2(n), "S_A(n) = S_a(q, r, n)")
_sb = _sum_of(SB, q, B2(n), "S_B(n) = S_b(q, r, n)")
_bounded = at_most(S(n), eta**2 * ((1 + z) * d_h**2 * SA(n) + (1 + 1 / z) * nu2 * SB(n)))


def _both(at: int) -> tuple[Term, ...]:
    return (
        term(eta**2 * (1 + z) * d_h**2, _sa[at].relation),
        term(eta**2 * (1 + 1 / z) * nu2, _sb[at].relation),
        term(-1, _s[at].relation),
    )


DRIFT_SUM = Lemma(
    name="unroll/drift-sum",
    words="The drift of a whole round: sum_j q^(tau-1-j) D_j <= eta^2 ((1+z) d_h^2 S_a + (1+1/z) nu^2 S_b).",
    hypotheses=(_young, *_s, *_sa, *_sb),
    steps=(
        Induct(
            _bounded,
            index=n,
            start=0,
            base=(Combine(at_most(S(0), _bounded.rhs.subs(n, 0)), _both(0)),),
            step=(
                Combine(
                    at_most(S(n + 1), _bounded.rhs.subs(n, n + 1)),
                    (*_both(1), term(1, _young.relation), term(q, _bounded)),
                ),
            ),
        ),
    ),
    source="linearity",
)

_g2 = _sum_of(G2, Q, 1, "G_2(K) = G(Q, 1, K)")
_round = Assumption(
    "lemma unroll/round for every round, with Q = q^tau: drift restarts at 0",
    at_most(E(n + 1), Q * E(n) + Phi),
)
_total = at_most(E(n), Q**n * E(0) + Phi * G2(n))

ROUNDS = Lemma(
    name="unroll/rounds",
    words="After K rounds: E <= Q^K E_0 + Phi (1-Q^K)/(1-Q).",
    hypotheses=(_round, *_g2),
    steps=(
        Induct(
            _total,
            index=n,
            start=0,
            base=(Combine(at_most(E(0), Q**0 * E(0) + Phi * G2(0)), (term(Phi, _g2[0].relation),)),),
            step=(
                Combine(
                    at_most(E(n + 1), Q ** (n + 1) * E(0) + Phi * G2(n + 1)),
                    (term(1, _round.relation), term(Q, _total), term(Phi, _g2[1].relation)),
                ),
            ),
        ),
    ),
    source="geometric recursion",
)

X = sp.Function("X", nonnegative=True)
gain = sp.Symbol("gain", positive=True)
_gained = Assumption(
    "lemma descent/gradient-step for every step t < T of all rounds, with the drift D_t of that step",
    at_most(f(n + 1), f(n) - gain * X(n) + noise + C * D(n)),
)
_x_sum, _d_sum = (sp.Function(name, nonnegative=True) for name in ("X_sum", "D_sum"))
_xs = _sum_of(_x_sum, sp.S.One, X(n), "the sum of ||grad F||^2 over the steps so far")
_ds = _sum_of(_d_sum, sp.S.One, D(n), "the sum of the drifts so far")
_telescoped = at_most(gain * _x_sum(n) + f(n), f(0) + n * noise + C * _d_sum(n))

TELESCOPE = Lemma(
    name="unroll/telescope",
    words="Summed over T steps: gain sum ||grad F||^2 <= f_0 - f_T + T noise + C sum D_t.",
    hypotheses=(_gained, *_xs, *_ds),
    steps=(
        Induct(
            _telescoped,
            index=n,
            start=0,
            base=(
                Combine(
                    at_most(gain * _x_sum(0) + f(0), f(0) + 0 * noise + C * _d_sum(0)),
                    (term(-gain, _xs[0].relation), term(C, _ds[0].relation)),
                ),
            ),
            step=(
                Combine(
                    at_most(gain * _x_sum(n + 1) + f(n + 1), f(0) + (n + 1) * noise + C * _d_sum(n + 1)),
                    (
                        term(1, _gained.relation),
                        term(1, _telescoped),
                        term(-gain, _xs[1].relation),
                        term(C, _ds[1].relation),
                    ),
                ),
            ),
        ),
    ),
    source="telescoping sum",
)

LEMMAS: tuple[Lemma, ...] = (ROUND, DRIFT_SUM, ROUNDS, TELESCOPE)

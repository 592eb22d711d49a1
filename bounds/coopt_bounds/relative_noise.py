"""Relative noise and growing heterogeneity, as in deep networks: a two-dimensional recursion.

The variance may grow with the squared gradient, Var_i <= (M_i + V_i ||grad F_i||^2)/s_i, and heterogeneity
with the gap, sum p_i ||grad F_i - grad F||^2 <= zeta^2 + 2 beta B^2 (F - F*). Gap and drift then feed each
other: x = (E, drift) obeys x <- A x + b with nonnegative A and b, and drift restarts at 0 in every round.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import unroll
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.averaging import DEVICES, over_devices, weights_sum
from coopt_bounds.geometric import G, n, power_11, series_1
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Induct, Substitute, SumOver, term
from coopt_bounds.symbols import D0, K, Quantity, beta, c, ell, eta, i, nu2, p, q, r, sigma2, tau, z
from coopt_bounds.theorem import Theorem

mu1, mu2, nu1, nu2_rel, B, zeta = sp.symbols("mu_1 mu_2 nu_1 nu_2 B zeta", nonnegative=True)
gap_now, drift_now = sp.symbols("E e2", nonnegative=True)

A = sp.Matrix(
    [
        [
            q + 3 * eta**2 * beta**2 * (mu1 * B**2 + mu2),
            eta * beta**2 / 2 + sp.Rational(3, 2) * eta**2 * beta**3 * mu1,
        ],
        [
            2 * (1 + 1 / z) * eta**2 * beta * B**2 + 6 * eta**2 * beta * (nu1 * B**2 + nu2_rel),
            (1 + z) * r**2 + 3 * eta**2 * beta**2 * nu1,
        ],
    ]
)
b = sp.Matrix(
    [
        eta**2 * beta * (sigma2 + 3 * mu1 * zeta**2) / 2,
        (1 + 1 / z) * eta**2 * zeta**2 + eta**2 * (nu2 + 3 * nu1 * zeta**2),
    ]
)

x, y, w = sp.symbols("x y w", real=True)

THREE = Lemma(
    name="relative-noise/three-squares",
    words="(x + y + w)^2 <= 3 (x^2 + y^2 + w^2), coordinate by coordinate: a local gradient is the sum of "
    "its change "
    "along the drift, its difference from the global gradient, and the global gradient.",
    hypotheses=(),
    steps=(
        Combine(
            at_most((x + y + w) ** 2, 3 * (x**2 + y**2 + w**2)),
            (term((x - y) ** 2 + (y - w) ** 2 + (x - w) ** 2),),
        ),
    ),
    source="Cauchy-Schwarz inequality",
)

local2, deviation2, apart2 = (sp.IndexedBase(name, nonnegative=True) for name in ("g2", "u2", "zeta2"))
global2 = sp.Symbol("X", nonnegative=True)
_three = Assumption(
    "lemma relative-noise/three-squares with beta-smoothness of F_i",
    at_most(local2[i], 3 * (beta**2 * deviation2[i] + apart2[i] + global2)),
)
_drift = Assumption("e2 is the drift", equal(drift_now, over_devices(p[i] * deviation2[i])))
_heterogeneity = Assumption(
    "heterogeneity grows with the gap",
    at_most(over_devices(p[i] * apart2[i]), zeta**2 + 2 * beta * B**2 * gap_now),
)
_gradient = Assumption("smoothness: ||grad F||^2 <= 2 beta (F - F*)", at_most(global2, 2 * beta * gap_now))


def _noise_lemma(name: str, words: str, weight: sp.Expr, largest: sp.Expr, total: sp.Expr) -> Lemma:
    """Weighted squared local gradients, weights p_i weight_i, in terms of the gap and the drift."""
    at_largest = Assumption("the largest relative noise weight", at_most(weight, largest))
    summed = Assumption("the total relative noise weight", equal(over_devices(p[i] * weight), total))
    parts = SumOver(_three.relation, p[i] * weight, DEVICES)
    capped = [SumOver(at_largest.relation, p[i] * amount, DEVICES) for amount in (deviation2[i], apart2[i])]
    claim = at_most(
        over_devices(p[i] * weight * local2[i]),
        3 * beta**2 * largest * drift_now
        + 3 * largest * (zeta**2 + 2 * beta * B**2 * gap_now)
        + 6 * beta * total * gap_now,
    )
    return Lemma(
        name=name,
        words=words,
        hypotheses=(_three, _drift, _heterogeneity, _gradient, at_largest, summed),
        steps=(
            parts,
            *capped,
            Combine(
                claim,
                (
                    term(1, parts.conclusion),
                    term(3 * beta**2, capped[0].conclusion),
                    term(3, capped[1].conclusion),
                    term(3 * beta**2 * largest, _drift.relation),
                    term(3 * largest, _heterogeneity.relation),
                    term(3 * total, _gradient.relation),
                    term(-3 * global2, summed.relation),
                ),
            ),
        ),
        source="coopt",
    )


weight_mean, weight_drift = (sp.IndexedBase(name, nonnegative=True) for name in ("pm", "qm"))

MEAN = _noise_lemma(
    "relative-noise/mean",
    "Relative noise of the averaged gradient: weights pm_i = p_i m_i, largest mu_1, sum p_i pm_i = mu_2.",
    weight_mean[i],
    mu1,
    mu2,
)
DRIFT = _noise_lemma(
    "relative-noise/drift",
    "Relative noise that drives drift: weights qm_i = (1-p_i) m_i, largest nu_1, sum p_i qm_i = nu_2.",
    weight_drift[i],
    nu1,
    nu2_rel,
)

noise_mean, noise_drift, gap_next, drift_next = sp.symbols(
    "rel_mean rel_drift E_next e2_next", nonnegative=True
)
_mean_bound = Assumption(
    "lemma relative-noise/mean",
    at_most(
        noise_mean,
        3 * beta**2 * mu1 * drift_now
        + 3 * mu1 * (zeta**2 + 2 * beta * B**2 * gap_now)
        + 6 * beta * mu2 * gap_now,
    ),
)
_drift_bound = Assumption(
    "lemma relative-noise/drift",
    at_most(
        noise_drift,
        3 * beta**2 * nu1 * drift_now
        + 3 * nu1 * (zeta**2 + 2 * beta * B**2 * gap_now)
        + 6 * beta * nu2_rel * gap_now,
    ),
)
_gap_step = Assumption(
    "lemma descent/step with gamma = 1, beta_d = beta_F = beta and sigma^2 plus the relative noise",
    at_most(
        gap_next, q * gap_now + eta * beta**2 / 2 * drift_now + eta**2 * beta / 2 * (sigma2 + noise_mean)
    ),
)
_drift_step = Assumption(
    "lemmas drift/recursion and drift/young, with heterogeneity in place of d_h^2 and the relative noise",
    at_most(
        drift_next,
        (1 + z) * r**2 * drift_now
        + (1 + 1 / z) * eta**2 * (zeta**2 + 2 * beta * B**2 * gap_now)
        + eta**2 * (nu2 + noise_drift),
    ),
)

GAP = Lemma(
    name="relative-noise/gap",
    words="First row: E_next <= A_11 E + A_12 e2 + b_1.",
    hypotheses=(_mean_bound, _gap_step),
    steps=(
        Combine(
            at_most(gap_next, A[0, 0] * gap_now + A[0, 1] * drift_now + b[0]),
            (term(1, _gap_step.relation), term(eta**2 * beta / 2, _mean_bound.relation)),
        ),
    ),
    source="coopt",
)
SPREAD = Lemma(
    name="relative-noise/spread",
    words="Second row: e2_next <= A_21 E + A_22 e2 + b_2.",
    hypotheses=(_drift_bound, _drift_step),
    steps=(
        Combine(
            at_most(drift_next, A[1, 0] * gap_now + A[1, 1] * drift_now + b[1]),
            (term(1, _drift_step.relation), term(eta**2, _drift_bound.relation)),
        ),
    ),
    source="coopt",
)

E, S, P1, P2, c1, c2 = (
    sp.Function(name, nonnegative=True) for name in ("E", "e2", "P_1", "P_2", "c_1", "c_2")
)
a11, a12, a21, a22, b1, b2, E0 = sp.symbols("A_11 A_12 A_21 A_22 b_1 b_2 E_0", nonnegative=True)
_rows = (
    Assumption("lemma relative-noise/gap", at_most(E(n + 1), a11 * E(n) + a12 * S(n) + b1)),
    Assumption("lemma relative-noise/spread", at_most(S(n + 1), a21 * E(n) + a22 * S(n) + b2)),
)
_columns = (
    Assumption("P is the first column of A^n", equal(P1(n + 1), a11 * P1(n) + a12 * P2(n))),
    Assumption("P is the first column of A^n", equal(P2(n + 1), a21 * P1(n) + a22 * P2(n))),
    Assumption("c is the sum of A^j b for j < n", equal(c1(n + 1), a11 * c1(n) + a12 * c2(n) + b1)),
    Assumption("c is the sum of A^j b for j < n", equal(c2(n + 1), a21 * c1(n) + a22 * c2(n) + b2)),
)
_starts = (
    Assumption("the round starts at gap E_0", equal(E(0), E0)),
    Assumption("drift restarts at 0", equal(S(0), 0)),
    Assumption("A^0 = 1", equal(P1(0), 1)),
    Assumption("A^0 = 1", equal(P2(0), 0)),
    Assumption("the empty sum", equal(c1(0), 0)),
    Assumption("the empty sum", equal(c2(0), 0)),
)
u, v = sp.symbols("u v", nonnegative=True)
# Any nonnegative mix (u, v) of the two slacks is nonnegative: one claim carries gap and drift together.
_slack = u * (P1(n) * E0 + c1(n) - E(n)) + v * (P2(n) * E0 + c2(n) - S(n))
_mix = at_least(_slack, 0)
_mixed_next = Substitute(_mix, {u: a11 * u + a21 * v, v: a12 * u + a22 * v})
_gap_claim = Substitute(_mix, {u: sp.S.One, v: sp.S.Zero})

WITHIN = Lemma(
    name="relative-noise/within-a-round",
    words="After tau steps E <= (A^tau)_11 E_0 + [sum_{j<tau} A^j b]_1.",
    hypotheses=(*_rows, *_columns, *_starts),
    steps=(
        Induct(
            _mix,
            index=n,
            start=0,
            base=(
                Combine(
                    at_least(_slack.subs(n, 0), 0),
                    (
                        term(-u, _starts[0].relation),
                        term(-v, _starts[1].relation),
                        term(u * E0, _starts[2].relation),
                        term(v * E0, _starts[3].relation),
                        term(u, _starts[4].relation),
                        term(v, _starts[5].relation),
                    ),
                ),
            ),
            step=(
                _mixed_next,
                Combine(
                    at_least(_slack.subs(n, n + 1), 0),
                    (
                        term(1, _mixed_next.conclusion),
                        term(u, _rows[0].relation),
                        term(v, _rows[1].relation),
                        term(u * E0, _columns[0].relation),
                        term(v * E0, _columns[1].relation),
                        term(u, _columns[2].relation),
                        term(v, _columns[3].relation),
                    ),
                ),
            ),
        ),
        _gap_claim,
        Combine(at_most(E(n), P1(n) * E0 + c1(n)), (term(1, _gap_claim.conclusion),)),
    ),
    source="nonnegative matrices keep the order",
)

error = sp.Symbol("E_K", real=True)
alpha, phi = sp.symbols("alpha phi", nonnegative=True)
_entries = (A[0, 0], A[0, 1], A[1, 0], A[1, 1])
bound = alpha**K * D0 + phi * G(alpha, sp.S.One, K)

_g2 = sp.Symbol("G_2", nonnegative=True)
_rounds = Assumption(
    "lemma unroll/rounds with Q = alpha, Phi = phi (lemma relative-noise/within-a-round)",
    at_most(error, alpha**K * D0 + phi * _g2),
)
_sum = Assumption("G_2 is the geometric sum", equal(_g2, G(alpha, sp.S.One, K)))

STATEMENT = Lemma(
    name="relative-noise/statement",
    words="The bound with relative noise.",
    hypotheses=(_rounds, _sum),
    steps=(Combine(at_most(error, bound), (term(1, _rounds.relation), term(-phi, _sum.relation))),),
    source="coopt",
)

theorem = Theorem(
    name="relative-noise",
    title="Relative noise and growing heterogeneity",
    number="R",
    citation="coopt; the noise model is that of Bottou, Curtis & Nocedal 2018, Assumption 4.3",
    assumptions=(
        Assumption(
            "every F_i is beta-smooth with curvature at least ell, and eta <= 1/beta", at_most(eta * beta, 1)
        ),
        Assumption("F satisfies the Polyak-Lojasiewicz inequality with c <= beta", at_most(c, beta)),
        Assumption("Var_i <= (M_i + V_i ||grad F_i||^2)/s_i, mean zero and independent across devices"),
        Assumption("sum p_i ||grad F_i - grad F||^2 <= zeta^2 + 2 beta B^2 (F - F*)"),
        Assumption(
            "the bound says something only where alpha = (A^tau)_11 < 1: otherwise noise or heterogeneity "
            "grows faster "
            "than a round contracts; take smaller eta, fewer steps, or larger batches",
            sp.Lt(alpha, 1, evaluate=False),
        ),
        weights_sum,
    ),
    left=error,
    bound=bound,
    definitions=(
        (q, 1 - eta * c),
        (r, 1 - eta * ell),
        (alpha, power_11(*_entries, tau)),
        (phi, series_1(*_entries, b[0], b[1], tau)),
    ),
    lemmas=(THREE, MEAN, DRIFT, GAP, SPREAD, WITHIN, unroll.ROUNDS, STATEMENT),
    quantities=(
        Quantity(mu1, "largest p_i V_i/s_i", "-"),
        Quantity(mu2, "sum of p_i^2 V_i/s_i", "-"),
        Quantity(nu1, "largest (1-p_i) V_i/s_i", "-"),
        Quantity(nu2_rel, "sum of p_i (1-p_i) V_i/s_i", "-"),
        Quantity(B, "growth of heterogeneity with the gap", "-"),
        Quantity(zeta, "heterogeneity at the optimum", "gradient"),
        Quantity(alpha, "contraction of a round, (A^tau)_11", "-"),
        Quantity(phi, "error added by a round, the first entry of the sum of A^j b for j < tau", "loss"),
    ),
)

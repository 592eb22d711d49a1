"""One step of the averaged model: the descent inequality with the coupling error of the local models.

Names: X = ||grad F(w)||^2 at the averaged model w, U = ||u||^2 of the mean direction u = sum p_i grad
F_i(w_i), W = <grad F(w), u>, V = ||u - grad F(w)||^2, f and f_next the expected gap F - F* before and after
the step, e2 the drift sum p_i E||w_i - w||^2.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, term
from coopt_bounds.symbols import beta_d, beta_F, c, eta, gamma, sigma2

X, U, V, e2 = sp.symbols("X U V e2", nonnegative=True)
W, f, f_next = sp.symbols("W f f_next", real=True)

slowdown = 1 - eta * beta_F
contraction = 1 - eta * c * (2 - eta * beta_F - slowdown * gamma)
"""q in terms of the constants."""
drift_weight = eta / 2 * (eta * beta_F + slowdown / gamma) * beta_d**2
"""C in terms of the constants."""
descent_share = 1 - eta * beta_F / 2 - slowdown * gamma / 2
"""m of the nonconvex bound: the part of eta ||grad F||^2 that every step gains."""
step_noise = eta**2 * beta_F * sigma2 / 2

norms = Assumption("V is the squared distance of u and grad F", equal(V, X - 2 * W + U))
square = Assumption(
    "the squared norm of (gamma-1) grad F + u is nonnegative",
    at_least((gamma - 1) ** 2 * X + 2 * (gamma - 1) * W + U, 0),
)
smooth = Assumption(
    "descent lemma for the beta_F-smooth F at the averaged model; the noise has conditional mean zero and "
    "variance at most sigma^2",
    at_most(f_next, f - eta * W + beta_F * eta**2 / 2 * (U + sigma2)),
)
short_step = Assumption("eta beta_F <= 1", at_least(slowdown, 0))
gamma_range = Assumption("gamma <= 1", at_most(gamma, 1))
coupling = Assumption(
    "beta_d couples drift to the averaged gradient (default (beta-ell)/2: lemma averaging/midpoint)",
    at_most(V, beta_d**2 * e2),
)
polyak = Assumption("Polyak-Lojasiewicz inequality", at_least(X, 2 * c * f))

POLARISATION = Lemma(
    name="descent/polarisation",
    words="-<x, u> = -||x||^2/2 - ||u||^2/2 + ||x - u||^2/2.",
    hypotheses=(norms,),
    steps=(
        Combine(
            equal(-W, -X / 2 - U / 2 + V / 2),
            (term(-sp.Rational(1, 2), norms.relation),),
        ),
    ),
    source="inner products",
)

YOUNG = Lemma(
    name="descent/young",
    words="A part 1-gamma of the gradient survives in the mean direction, at the price (1/gamma - 1) V.",
    hypotheses=(norms, square),
    steps=(
        Combine(
            at_least(U, (1 - gamma) * X - (1 / gamma - 1) * V),
            (term(1 / gamma, square.relation), term(1 / gamma - 1, norms.relation)),
        ),
    ),
    source="Young's inequality with gamma",
)

GRADIENT_STEP = Lemma(
    name="descent/gradient-step",
    words="One step gains eta m ||grad F||^2 and loses C e2 and the noise; no Polyak-Lojasiewicz inequality "
    "yet.",
    hypotheses=(norms, square, smooth, short_step, gamma_range, coupling),
    steps=(
        Apply(POLARISATION),
        Apply(YOUNG),
        Combine(
            at_most(f_next, f - eta * descent_share * X + drift_weight * e2 + step_noise),
            (
                term(1, smooth.relation),
                term(-eta, POLARISATION.claim),
                term(eta / 2, short_step.relation, YOUNG.claim),
                term(eta**2 * beta_F / 2, coupling.relation),
                term(eta / (2 * gamma), short_step.relation, coupling.relation),
            ),
        ),
    ),
    source="descent lemma; Bottou, Curtis & Nocedal 2018, section 4, without drift",
)

STEP = Lemma(
    name="descent/step",
    words="One step: f_next <= q f + C e2 + eta^2 beta_F sigma^2/2.",
    hypotheses=(*GRADIENT_STEP.hypotheses, polyak),
    steps=(
        Apply(GRADIENT_STEP),
        Combine(
            at_most(f_next, contraction * f + drift_weight * e2 + step_noise),
            (
                term(1, GRADIENT_STEP.claim),
                term(eta / 2, polyak.relation),
                term(eta / 2, short_step.relation, gamma_range.relation, polyak.relation),
            ),
        ),
    ),
    source="coopt; gamma = 1 gives q = 1 - eta c and C = eta beta_d^2/2",
)

curvature_order = Assumption("c <= beta_F", at_most(c, beta_F))

CONTRACTION = Lemma(
    name="descent/contraction",
    words="q >= 0: unrolling keeps the order of both sides.",
    hypotheses=(short_step, gamma_range, curvature_order),
    steps=(
        Combine(
            at_least(contraction, 0),
            (
                term(1, short_step.relation, short_step.relation),
                term(eta * beta_F * gamma, short_step.relation),
                term(eta, curvature_order.relation),
                term(eta, curvature_order.relation, short_step.relation, gamma_range.relation),
            ),
        ),
    ),
    source="coopt",
)

PROGRESS = Lemma(
    name="descent/progress",
    words="1 - q >= eta c: never slower than gamma = 1.",
    hypotheses=(short_step, gamma_range),
    steps=(
        Combine(
            at_least(1 - contraction, eta * c),
            (term(eta * c, short_step.relation, gamma_range.relation),),
        ),
    ),
    source="coopt",
)

LEMMAS: tuple[Lemma, ...] = (POLARISATION, YOUNG, GRADIENT_STEP, STEP, CONTRACTION, PROGRESS)

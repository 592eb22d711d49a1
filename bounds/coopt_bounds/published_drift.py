"""The drift function h of Wang et al. 2019, which the published bounds are written in.

h(tau) = (delta/beta)((1+eta beta)^tau - 1) - eta delta tau bounds the distance between the averaged local
models and centralised gradient descent restarted from them, after tau steps without gradient noise.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.geometric import n, solves
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Grow, Identity, Induct, Root, Substitute, term
from coopt_bounds.symbols import beta, d_h, delta, eta, nu2, tau


def published_drift(steps: sp.Expr) -> sp.Expr:
    """Return h as a function of the local steps."""
    distance: sp.Expr = delta / beta * ((1 + eta * beta) ** steps - 1) - eta * delta * steps
    return distance


h = published_drift(tau)

LOCAL = solves(
    "published-drift/local",
    "Distance of one device to centralised descent: g(n+1) = (1 + eta beta) g(n) + eta delta has the "
    "solution "
    "(delta/beta)((1+eta beta)^n - 1).",
    1 + eta * beta,
    eta * delta,
    delta / beta * ((1 + eta * beta) ** n - 1),
)

_H, _g = (sp.Function(name, nonnegative=True) for name in ("H", "g"))
_start = Assumption("H(0) = 0: the round starts together", equal(_H(0), 0))
_grows = Assumption(
    "the average moves away by eta beta times the mean local distance, at most g(n) (lemma "
    "published-drift/local)",
    at_most(_H(n + 1), _H(n) + eta * beta * (delta / beta * ((1 + eta * beta) ** n - 1))),
)
_claim = at_most(_H(n), published_drift(n))

MEAN = Lemma(
    name="published-drift/mean",
    words="Distance of the average to centralised descent: at most h(tau).",
    hypotheses=(_start, _grows),
    steps=(
        Induct(
            _claim,
            index=n,
            start=0,
            base=(Combine(at_most(_H(0), published_drift(sp.S.Zero)), (term(-1, _start.relation),)),),
            step=(
                Combine(
                    at_most(_H(n + 1), published_drift(n + 1)),
                    (term(1, _grows.relation), term(1, _claim)),
                ),
            ),
        ),
    ),
    source="Wang et al. 2019 (arXiv 1804.05271), Theorem 1",
)

AT_ONE = Lemma(
    name="published-drift/one-step",
    words="h(1) = 0: with one local step federated averaging is centralised descent.",
    hypotheses=(),
    steps=(Identity(published_drift(sp.S.One), sp.S.Zero),),
    source="Wang et al. 2019",
)

t = sp.Symbol("t", nonnegative=True)
L = sp.Symbol("L", positive=True)
"""ln(1 + eta beta)."""
_continuous = delta / beta * (sp.exp(L * t) - 1) - eta * delta * t
_second = at_least(sp.Derivative(_continuous, (t, 2)), 0)
_curved = at_least(t * delta / beta * L**2 * sp.exp(L * t), 0)
_numerator = t * sp.diff(_continuous, t) - _continuous

CONVEX = Lemma(
    name="published-drift/convex",
    words="h is convex in tau (L = ln(1 + eta beta)).",
    hypotheses=(),
    steps=(Combine(_second, (term(delta / beta * L**2 * sp.exp(L * t)),)),),
    source="coopt",
)

RATIO = Lemma(
    name="published-drift/ratio",
    words="h(tau)/tau never falls: the numerator tau h' - h of its derivative is 0 at 0 and grows. With "
    "h(1) = 0 it "
    "is nonnegative for tau >= 1, and h never falls.",
    hypotheses=(),
    steps=(
        Combine(_curved, (term(t * delta / beta * L**2 * sp.exp(L * t)),)),
        Grow(at_least(_numerator, 0), t, _curved),
    ),
    source="coopt",
)

_x = sp.Symbol("x", nonnegative=True)
_u = sp.Symbol("u", positive=True)
_third = at_least(_x**2 * sp.exp(_x), 0)
_ratio_curve = at_least((_x**2 - 2 * _x + 2) * sp.exp(_x) - 2, 0)

RATIO_CONVEX = Lemma(
    name="published-drift/ratio-convex",
    words="(e^u - 1)/u is convex (u = L tau > 0), so h/tau is; h^2/(eta tau (1-q^tau)), the drift floor with "
    "rho = 1/(eta tau), is then convex by lemmas convexity/round and convexity/product.",
    hypotheses=(),
    steps=(
        Combine(_third, (term(_x**2 * sp.exp(_x)),)),
        Grow(_ratio_curve, _x, _third),
        Substitute(_ratio_curve, {_x: _u}),
        Combine(
            at_least(sp.Derivative((sp.exp(_u) - 1) / _u, (_u, 2)), 0),
            (term(1 / _u**3, at_least((_u**2 - 2 * _u + 2) * sp.exp(_u) - 2, 0)),),
        ),
    ),
    source="coopt",
)

_e, _E = sp.Function("e", nonnegative=True), sp.Function("E", nonnegative=True)
total = sp.sqrt(d_h**2 + nu2)
_noisy = Assumption(
    "squared mean distance of the devices to centralised descent driven by the same averaged noise: the "
    "deterministic part stretches by 1 + eta beta and moves by eta d_h, the rest is the projected noise",
    at_most(_e(n + 1) ** 2, ((1 + eta * beta) * _e(n) + eta * d_h) ** 2 + eta**2 * nu2),
)
_noisy_start = Assumption("the round starts together", equal(_e(0), 0))
_E_is = Assumption(
    "E(n) = (d_h^2 + nu^2)^(1/2) ((1+eta beta)^n - 1)/beta: lemma published-drift/local with this in place "
    "of delta",
    equal(_E(n + 1), (1 + eta * beta) * _E(n) + eta * total),
)
_E_start = Assumption("E(0) = 0", equal(_E(0), 0))
_ahead = at_most(_e(n), _E(n))
_next_squared = at_most(_e(n + 1) ** 2, _E(n + 1) ** 2)
_stretched = (1 + eta * beta) * _e(n)

NOISY = Lemma(
    name="published-drift/noisy",
    words="With mini-batch noise the valid drift is (d_h^2 + nu^2)^(1/2) ((1+eta beta)^tau - 1)/beta per "
    "device, hence "
    "(d_h^2 + nu^2)^(1/2) G1(tau) for the average, G1 = ((1+eta beta)^tau - 1)/beta - eta tau: h with "
    "(d_h^2 + nu^2)^(1/2) in place of delta.",
    hypotheses=(_noisy, _noisy_start, _E_is, _E_start),
    steps=(
        Combine(at_least(total**2, d_h**2), (term(nu2),)),
        Root(at_least(total, d_h), at_least(total**2, d_h**2)),
        Induct(
            _ahead,
            index=n,
            start=0,
            base=(
                Combine(
                    at_most(_e(0), _E(0)),
                    (term(-1, _noisy_start.relation), term(1, _E_start.relation)),
                ),
            ),
            step=(
                Combine(
                    _next_squared,
                    (
                        term(1, _noisy.relation),
                        term(2 * eta * _stretched, at_least(total, d_h)),
                        term(
                            (1 + eta * beta) * ((1 + eta * beta) * (_E(n) + _e(n)) + 2 * eta * total),
                            _ahead,
                        ),
                        term(
                            _E(n + 1) + (1 + eta * beta) * _E(n) + eta * total,
                            _E_is.relation,
                        ),
                    ),
                ),
                Root(at_most(_e(n + 1), _E(n + 1)), _next_squared),
            ),
        ),
    ),
    source="coopt; h itself was derived without mini-batch noise",
)

LEMMAS: tuple[Lemma, ...] = (LOCAL, MEAN, AT_ONE, CONVEX, RATIO, RATIO_CONVEX, NOISY)

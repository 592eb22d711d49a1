"""Weighted averages over devices: projection off the mean, Jensen's inequality, the midpoint lemma.

The claims are about one coordinate of the vectors; norms are sums over coordinates, so they carry over.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, SumOver, term
from coopt_bounds.symbols import N, beta, ell, i, nu2, nu2_sum, p, sigma2, sigma2_sum, variance

DEVICES = sp.Tuple(i, 1, N)
x = sp.IndexedBase("x", real=True)
x_mean = sp.Symbol("x_mean", real=True)


def over_devices(summand: sp.Expr) -> sp.Expr:
    """The sum over all devices."""
    return sp.Sum(summand, DEVICES)


weights_sum = Assumption("the weights sum to one", equal(over_devices(p[i]), 1))
mean_of_x = Assumption("x_mean is the weighted mean", equal(over_devices(p[i] * x[i]), x_mean))

PROJECTION = Lemma(
    name="averaging/projection",
    words="Taking off the mean takes its square off the mean square: the projection is nonexpansive.",
    hypotheses=(weights_sum, mean_of_x),
    steps=(
        Combine(
            equal(over_devices(p[i] * (x[i] - x_mean) ** 2), over_devices(p[i] * x[i] ** 2) - x_mean**2),
            (term(x_mean**2, weights_sum.relation), term(-2 * x_mean, mean_of_x.relation)),
        ),
    ),
    source="Koenig-Huygens identity",
)

JENSEN = Lemma(
    name="averaging/jensen",
    words="The square of a weighted mean is at most the weighted mean of the squares.",
    hypotheses=(weights_sum, mean_of_x),
    steps=(
        Apply(PROJECTION),
        Combine(
            at_most(x_mean**2, over_devices(p[i] * x[i] ** 2)),
            (term(-1, PROJECTION.claim), term(over_devices(p[i] * (x[i] - x_mean) ** 2))),
        ),
    ),
    source="Jensen's inequality",
)

_noise = sp.IndexedBase("xi2", nonnegative=True)
_mean_noise, _projected = sp.symbols("xi_mean2 xi_projected2", nonnegative=True)
_noise_bound = Assumption(
    "the squared gradient noise of device i has conditional mean xi2_i <= M_i/s_i + V_i",
    at_most(_noise[i], variance),
)
_independent = Assumption(
    "noise is conditionally mean-zero and independent across devices, so that the squared mean noise has "
    "mean "
    "sum p_i^2 xi2_i",
    equal(_mean_noise, over_devices(p[i] ** 2 * _noise[i])),
)
_projection = Assumption(
    "lemma averaging/projection, in expectation and summed over coordinates",
    equal(_projected, over_devices(p[i] * _noise[i]) - _mean_noise),
)
_weight_at_most_one = Assumption("each weight is at most one", at_most(p[i], 1))

_one_minus = sp.IndexedBase("w", nonnegative=True)
_complement = Assumption("w_i stands for 1 - p_i, which is nonnegative", equal(_one_minus[i], 1 - p[i]))

MEAN_NOISE = Lemma(
    name="averaging/mean-noise",
    words="The averaged gradient has variance at most sigma^2 = sum p_i^2 (M_i/s_i + V_i).",
    hypotheses=(
        _noise_bound,
        _independent,
        Assumption("definition of sigma^2", equal(sigma2, sigma2_sum)),
    ),
    steps=(
        SumOver(_noise_bound.relation, p[i] ** 2, DEVICES),
        Combine(
            at_most(_mean_noise, sigma2),
            (
                term(1, SumOver(_noise_bound.relation, p[i] ** 2, DEVICES).conclusion),
                term(-1, _independent.relation),
                term(1, equal(sigma2, sigma2_sum)),
            ),
        ),
    ),
    source="Wang et al. 2019 and DYNAMITE use the same sum",
)

_weighted = SumOver(_noise_bound.relation, p[i] * _one_minus[i], DEVICES)
_rewritten = Combine(
    equal(_one_minus[i] * (variance - _noise[i]), (1 - p[i]) * (variance - _noise[i])),
    (term(variance - _noise[i], _complement.relation),),
)
_rewritten_sum = SumOver(_rewritten.conclusion, p[i], DEVICES)

PROJECTED_NOISE = Lemma(
    name="averaging/projected-noise",
    words="The noise that drives drift is exactly sum p_i (1-p_i) Var_i, at most nu^2.",
    hypotheses=(
        _noise_bound,
        _independent,
        _projection,
        _complement,
        Assumption("definition of nu^2", equal(nu2, nu2_sum)),
    ),
    steps=(
        _weighted,
        _rewritten,
        _rewritten_sum,
        Combine(
            at_most(_projected, nu2),
            (
                term(1, _weighted.conclusion),
                term(-1, _rewritten_sum.conclusion),
                term(-1, _projection.relation),
                term(1, _independent.relation),
                term(1, equal(nu2, nu2_sum)),
            ),
        ),
    ),
    source="independence across devices",
)

curvature = sp.Symbol("lambda", real=True)
_above = Assumption("curvature at least ell", at_least(curvature, ell))
_below = Assumption("curvature at most beta", at_most(curvature, beta))

SHIFTED_CURVATURE = Lemma(
    name="averaging/shifted-curvature",
    words="With the midpoint (beta+ell)/2 taken off, the curvature is at most (beta-ell)/2 in size.",
    hypotheses=(_above, _below),
    steps=(
        Combine(
            at_most((curvature - (beta + ell) / 2) ** 2, ((beta - ell) / 2) ** 2),
            (term(1, _above.relation, _below.relation),),
        ),
    ),
    source="(beta - lambda)(lambda - ell) >= 0",
)

_change = sp.IndexedBase("g", real=True)
_deviation = sp.IndexedBase("u", real=True)
_zero_mean = Assumption("deviations from the mean sum to zero", equal(over_devices(p[i] * _deviation[i]), 0))
_slope = sp.Symbol("m", real=True)

SHIFT = Lemma(
    name="averaging/shift",
    words="Taking the same linear map m u_i off every gradient change g_i leaves the averaged change as it "
    "is.",
    hypotheses=(_zero_mean,),
    steps=(
        Combine(
            equal(
                over_devices(p[i] * (_change[i] - _slope * _deviation[i])), over_devices(p[i] * _change[i])
            ),
            (term(-_slope, _zero_mean.relation),),
        ),
    ),
    source="the deviations w_i - w_mean sum to zero",
)

_change2 = sp.IndexedBase("k2", nonnegative=True)
_deviation2 = sp.IndexedBase("u2", nonnegative=True)
_coupled2, _drift2 = sp.symbols("V e2", nonnegative=True)
_jensen = Assumption(
    "lemmas averaging/shift and averaging/jensen, summed over coordinates: V, the squared norm of the "
    "averaged "
    "gradient change, is at most the mean of the squared shifted changes k2_i",
    at_most(_coupled2, over_devices(p[i] * _change2[i])),
)
_lipschitz = Assumption(
    "lemma averaging/shifted-curvature along the segment from w_mean to w_i: the shifted gradient is "
    "(beta-ell)/2-Lipschitz",
    at_most(_change2[i], ((beta - ell) / 2) ** 2 * _deviation2[i]),
)
_drift_is = Assumption("e2 is the drift", equal(_drift2, over_devices(p[i] * _deviation2[i])))
_summed = SumOver(_lipschitz.relation, p[i], DEVICES)

MIDPOINT = Lemma(
    name="averaging/midpoint",
    words="Midpoint lemma: beta_d = (beta-ell)/2 couples drift to the averaged gradient, without more "
    "information.",
    hypotheses=(_jensen, _lipschitz, _drift_is),
    steps=(
        _summed,
        Combine(
            at_most(_coupled2, ((beta - ell) / 2) ** 2 * _drift2),
            (
                term(1, _jensen.relation),
                term(1, _summed.conclusion),
                term(((beta - ell) / 2) ** 2, _drift_is.relation),
            ),
        ),
    ),
    source="coopt",
)

_average = Assumption(
    "quadratic counterexample: two devices whose curvatures are ell and beta and whose deviations are +1 "
    "and -1",
    None,
)

TIGHT = Lemma(
    name="averaging/midpoint-tight",
    words="No smaller beta_d holds for all functions with curvature in [ell, beta]: two devices with "
    "curvatures "
    "ell and beta and opposite unit deviations reach (beta-ell)/2.",
    hypotheses=(_average,),
    steps=(
        Combine(
            equal(
                (beta * 1 + ell * (-1)) / 2, (beta - ell) / 2 * sp.sqrt(sp.Rational(1, 2) + sp.Rational(1, 2))
            ),
            (),
        ),
    ),
    source="coopt",
)

LEMMAS: tuple[Lemma, ...] = (
    PROJECTION,
    JENSEN,
    MEAN_NOISE,
    PROJECTED_NOISE,
    SHIFTED_CURVATURE,
    SHIFT,
    MIDPOINT,
    TIGHT,
)

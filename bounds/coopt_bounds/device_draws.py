"""Drawing some devices a round: what the draw itself makes of the changes of all devices, entry by entry."""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import equal
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, term
from coopt_bounds.quadratic_rounds import devices, half
from coopt_bounds.symbols import N, i, p

p_i = sp.Symbol("p_i", positive=True)
c = sp.Symbol("n_c", positive=True)
kappa = N * (N - c) / (c * (N - 1))
"""What the draw of c distinct devices makes of the spread of their weighted changes."""

squares, pairs, entry, one_draw, total = sp.symbols("squares pairs xi_ab draw_ab total_ab", real=True)
balanced = Assumption(
    "e_i = p_i y_i - (sum of p_j y_j)/N add up to zero, so products of their entries over all pairs do",
    equal(squares + pairs, 0),
)
drawn = Assumption(
    "xi = (N/c) sum of e_i over those drawn: a device with probability c/N, an ordered pair with "
    "c(c-1)/(N(N-1))",
    equal(c**2 * (N - 1) * entry, N * (c * (N - 1) * squares + c * (c - 1) * pairs)),
)
several = Assumption("at least two devices", sp.Gt(N, 1, evaluate=False))

DISTINCT = Lemma(
    name="device-draws/distinct",
    words="c distinct devices of N: the covariance of the averaged change is kappa sum e_i e_i', none at c "
    "= N.",
    hypotheses=(balanced, drawn, several),
    steps=(
        Combine(
            equal(entry, kappa * squares),
            (
                term(1 / (c**2 * (N - 1)), drawn.relation),
                term(N * (c - 1) / (c * (N - 1)), balanced.relation),
            ),
        ),
    ),
    source="variance of a total estimated without replacement",
)

x_entry, y_entry = sp.IndexedBase("x", real=True), sp.IndexedBase("y", real=True)
x_mean, y_mean = sp.symbols("xbar ybar", real=True)
_summing = Assumption("the weights sum to one", equal(sp.Sum(p[i], devices), 1))
_x_mean = Assumption(
    "xbar is the weighted mean of an entry x_i", equal(sp.Sum(p[i] * x_entry[i], devices), x_mean)
)
_y_mean = Assumption("ybar that of another one", equal(sp.Sum(p[i] * y_entry[i], devices), y_mean))
_one = Assumption(
    "one draw is device i with probability p_i",
    equal(one_draw, sp.Sum(p[i] * (x_entry[i] - x_mean) * (y_entry[i] - y_mean), devices)),
)
_independent = Assumption("draws are independent: their covariances add up", equal(total, c * one_draw))
_plain = Assumption("the server takes their plain mean", equal(entry, total / c**2))

DRAWS = Lemma(
    name="device-draws/draws",
    words="c independent draws and a plain mean: covariance (sum p_i y_i y_i' - ybar ybar')/c.",
    hypotheses=(_summing, _x_mean, _y_mean, _one, _independent, _plain),
    steps=(
        Combine(
            equal(entry, (sp.Sum(p[i] * x_entry[i] * y_entry[i], devices) - x_mean * y_mean) / c),
            (
                term(1, _plain.relation),
                term(1 / c**2, _independent.relation),
                term(1 / c, _one.relation),
                term(-y_mean / c, _x_mean.relation),
                term(-x_mean / c, _y_mean.relation),
                term(x_mean * y_mean / c, _summing.relation),
            ),
        ),
    ),
    source="variance of a mean of independent draws; the scheme is that of Li et al. 2020, ICLR, Scheme I",
)

noise_in, noise_out = sp.symbols("noise_i noise_out", nonnegative=True)
_weighted = Assumption(
    "drawn with probability c/N, the noise of device i enters with the weight N p_i/c",
    equal(noise_out, c / N * (N * p_i / c) ** 2 * noise_in),
)
_repeated = Assumption(
    "each of c draws is device i with probability p_i and enters with the weight 1/c; a device that is drawn "
    "twice trains twice, on batches of their own",
    equal(noise_out, c * p_i / c**2 * noise_in),
)

NOISE_DISTINCT = Lemma(
    name="device-draws/noise-distinct",
    words="With distinct devices N/c times the noise of all devices is left in a round.",
    hypotheses=(_weighted,),
    steps=(Combine(equal(noise_out, N / c * p_i**2 * noise_in), (term(1, _weighted.relation),)),),
    source="coopt",
)

NOISE_DRAWS = Lemma(
    name="device-draws/noise-draws",
    words="With independent draws p_i/c stands for p_i^2 in the noise.",
    hypotheses=(_repeated,),
    steps=(Combine(equal(noise_out, p_i / c * noise_in), (term(1, _repeated.relation),)),),
    source="coopt",
)

second_moment = sp.Symbol("E(n^2)", nonnegative=True)
_counted = Assumption(
    "device i is drawn n times, binomial of c with p_i: E n^2 = c p_i (1 - p_i) + (c p_i)^2",
    equal(second_moment, c * p_i * (1 - p_i) + (c * p_i) ** 2),
)
_at_once = Assumption(
    "it trains once and its change enters with the weight n/c",
    equal(noise_out, second_moment / c**2 * noise_in),
)

NOISE_ONCE = Lemma(
    name="device-draws/noise-once",
    words="Where a device that is drawn twice trains once and counts twice, p_i^2 + p_i (1 - p_i)/c stands "
    "for p_i^2: more noise than p_i/c, and the same draw otherwise.",
    hypotheses=(_counted, _at_once),
    steps=(
        Combine(
            equal(noise_out, (p_i**2 + p_i * (1 - p_i) / c) * noise_in),
            (term(1, _at_once.relation), term(noise_in / c**2, _counted.relation)),
        ),
    ),
    source="coopt",
)

y_1, y_2, share = sp.symbols("y_1 y_2 p_1", real=True)

NORMALISED = Lemma(
    name="device-draws/normalised-weights",
    words="Weights normalised over those drawn are biased: with one of two devices by (1/2 - p_1)(y_1 - "
    "y_2).",
    hypotheses=(),
    steps=(Identity((y_1 + y_2) / 2 - (share * y_1 + (1 - share) * y_2), (half - share) * (y_1 - y_2)),),
    source="elementary",
)

ALL = Lemma(
    name="device-draws/all-devices",
    words="All N distinct devices a round: nothing is drawn, and (QC) is (Q).",
    hypotheses=(),
    steps=(Identity(kappa.subs(c, N), sp.S.Zero), Identity((N / c).subs(c, N), sp.S.One)),
    source="elementary",
)

"""The covariance of a mini-batch gradient, exactly: with and without replacement, each with its divisor.

Entry (a, b) of the covariance of one sample's gradient is the mean product of the a-th and b-th deviations
x_j and y_j over the d samples of a device. One convention divides by d, the other by d - 1, and each way of
drawing has its own.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import equal
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, term

d = sp.Symbol("d", positive=True)
s = sp.Symbol("s", positive=True)
squares, pairs, entry, entry_d, entry_d1 = sp.symbols("squares pairs c_ab c_d c_d1", real=True)

centred = Assumption(
    "deviations from the device's gradient add up to zero, so the products x_j y_k over all pairs do: those "
    "of equal and those of distinct samples cancel",
    equal(squares + pairs, 0),
)
divisor_d = Assumption("C with divisor d: the mean of x_j y_j", equal(d * entry_d, squares))
divisor_d1 = Assumption("C with divisor d - 1", equal((d - 1) * entry_d1, squares))
several = Assumption("at least two samples", sp.Gt(d, 1, evaluate=False))
independent = Assumption(
    "s independent draws: each is sample j with probability 1/d, products of different draws have mean zero",
    equal(s**2 * entry, s * squares / d),
)
distinct = Assumption(
    "s distinct samples: one is drawn with probability s/d, an ordered pair with s(s-1)/(d(d-1))",
    equal(s**2 * d * (d - 1) * entry, s * (d - 1) * squares + s * (s - 1) * pairs),
)

WITH_REPLACEMENT = Lemma(
    name="quadratic-noise/with-replacement",
    words="Batches drawn with replacement have covariance C/s where C has divisor d.",
    hypotheses=(independent, divisor_d),
    steps=(
        Combine(
            equal(entry, entry_d / s),
            (term(1 / s**2, independent.relation), term(-1 / (s * d), divisor_d.relation)),
        ),
    ),
    source="variance of a mean of independent draws",
)

WITHOUT_REPLACEMENT = Lemma(
    name="quadratic-noise/without-replacement",
    words="Batches of distinct samples have covariance (1/s - 1/d) C where C has divisor d - 1: none at s = "
    "d.",
    hypotheses=(centred, distinct, divisor_d1, several),
    steps=(
        Combine(
            equal(d * s * (d - 1) * entry, (d - 1) * (d - s) * entry_d1),
            (
                term(1 / s, distinct.relation),
                term(s - 1, centred.relation),
                term(-(d - s), divisor_d1.relation),
            ),
        ),
    ),
    source="variance of a mean of draws without replacement",
)

DIVISORS = Lemma(
    name="quadratic-noise/divisors",
    words="(1/s - 1/d) with divisor d - 1 is (d - s)/(d - 1) of what draws with replacement have: the other "
    "divisor is wrong by d/(d - 1) in either case.",
    hypotheses=(),
    steps=(Identity((1 / s - 1 / d) * squares / (d - 1), (d - s) / (d - 1) * (squares / d) / s),),
    source="elementary",
)

LEMMAS: tuple[Lemma, ...] = (WITH_REPLACEMENT, WITHOUT_REPLACEMENT, DIVISORS)

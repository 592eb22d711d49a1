"""Buffers over a data stream: who is still in them, and how far they are from the whole history.

A buffer of size B has seen n > B arrivals. "reservoir" keeps a uniform sample of the history (Vitter 1985),
"random" overwrites a random slot with every arrival, "fifo" overwrites the oldest.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, Induct, SumOver, term

B, n = sp.symbols("B n", integer=True, positive=True)
i = sp.Symbol("i", integer=True, positive=True)
k = sp.Symbol("k", integer=True, nonnegative=True)
m = sp.Symbol("m", integer=True, nonnegative=True)
x, y = sp.symbols("x y", positive=True)
a = 1 - 1 / B

INCLUSION: dict[str, sp.Expr] = {
    "reservoir": B / n,
    "random": a ** (n - sp.Max(i, B)),
    "fifo": sp.Piecewise((1, i > n - B), (0, True)),
}
"""Probability that arrival i is in the buffer after n > B arrivals."""

RECENT = sp.ceiling(sp.log(n / B) / -sp.log(a))
"""m: the arrivals that a randomly overwritten buffer holds more often than the history does."""

TOTAL_VARIATION: dict[str, sp.Expr] = {
    "reservoir": sp.S.Zero,
    "random": sp.Piecewise((1 - 1 / n, sp.Eq(B, 1)), (1 - a**RECENT - RECENT / n, True)),
    "fifo": 1 - B / n,
}
"""Distance between the buffer's expected distribution over arrivals and the whole history."""

FACTOR: dict[str, sp.Expr] = {
    "reservoir": sp.S.One,
    "random": y / (1 + y),
    "fifo": 1 - (1 - sp.exp(-y)) / y,
}
"""What turnover leaves of the buffer's sampling variance; y = eta c B/lambda, lambda arrivals per step."""

_P = sp.Function("P", nonnegative=True)
_full = Assumption("the first B arrivals fill the buffer", equal(_P(0), 1))
_thinned = Assumption(
    "arrival n+1 enters with probability B/(n+1) and overwrites a uniform slot, so an element stays with "
    "probability "
    "1 - 1/(n+1); n = B + k",
    equal(_P(k + 1), _P(k) * (1 - 1 / (B + k + 1))),
)
_uniform = equal(_P(k), B / (B + k))

RESERVOIR = Lemma(
    name="buffers/reservoir",
    words="A reservoir holds every arrival with the same probability B/n: no bias.",
    hypotheses=(_full, _thinned),
    steps=(
        Induct(
            _uniform,
            index=k,
            start=0,
            base=(Combine(equal(_P(0), B / (B + 0)), (term(1, _full.relation),)),),
            step=(
                Combine(
                    equal(_P(k + 1), B / (B + k + 1)),
                    (term(1, _thinned.relation), term(1 - 1 / (B + k + 1), _uniform)),
                ),
            ),
        ),
    ),
    source="Vitter 1985, Algorithm R",
)

_kept = Assumption("each arrival overwrites a uniform slot", equal(_P(k + 1), _P(k) * a))
_power = equal(_P(k), a**k)

RANDOM = Lemma(
    name="buffers/random",
    words="Under random replacement an arrival survives k later ones with probability (1-1/B)^k.",
    hypotheses=(_full, _kept),
    steps=(
        Induct(
            _power,
            index=k,
            start=0,
            base=(Combine(equal(_P(0), a**0), (term(1, _full.relation),)),),
            step=(Combine(equal(_P(k + 1), a ** (k + 1)), (term(1, _kept.relation), term(a, _power))),),
        ),
    ),
    source="elementary",
)

RANDOM_TOTAL = Lemma(
    name="buffers/random-total",
    words="These probabilities, over B, sum to one: the first B arrivals together hold a^(n-B).",
    hypotheses=(),
    steps=(Identity(a**k + (1 - a**k) / (1 - a) / B, sp.S.One),),
    source="geometric sum",
)

RANDOM_VARIATION = Lemma(
    name="buffers/random-variation",
    words="The m newest arrivals, those with a^k/B > 1/n, hold 1 - a^m against m/n in the history.",
    hypotheses=(),
    steps=(Identity((1 - a**m) / (1 - a) / B - m / n, 1 - a**m - m / n),),
    source="total variation is the surplus of the favoured set",
)


RANDOM_OLDEST = Lemma(
    name="buffers/random-oldest",
    words="a^(n-B) <= B/n: the first B arrivals are never favoured, so m <= n - B.",
    hypotheses=(),
    steps=(
        Induct(
            at_least(1 - a**k * (1 + k / B), 0),
            index=k,
            start=0,
            base=(Combine(at_least(1 - a**0 * (1 + sp.S.Zero / B), 0), ()),),
            step=(
                Combine(
                    at_least(1 - a ** (k + 1) * (1 + (k + 1) / B), 0),
                    (
                        term(1, at_least(1 - a**k * (1 + k / B), 0)),
                        term((k + 1) / B**2 * ((B - 1) / B) ** k),
                    ),
                ),
            ),
        ),
    ),
    source="Bernoulli's inequality",
)

RANDOM_LIMIT = Lemma(
    name="buffers/random-limit",
    words="For large buffers with x = n/B the distance is 1 - (1 + ln x)/x (m/n tends to ln(x)/x, a^m to "
    "1/x).",
    hypotheses=(),
    steps=(
        Identity(
            sp.Limit(1 - sp.exp(sp.log(x) * y * sp.log(1 - 1 / y)) - sp.log(x) / x, y, sp.oo),
            1 - (1 + sp.log(x)) / x,
        ),
    ),
    source="coopt",
)

FIFO_VARIATION = Lemma(
    name="buffers/fifo-variation",
    words="The B newest arrivals hold everything against B/n in the history.",
    hypotheses=(),
    steps=(Identity(B * (1 / B - 1 / n), 1 - B / n),),
    source="total variation is the surplus of the favoured set",
)

share = sp.IndexedBase("P", nonnegative=True)
overlap = sp.IndexedBase("O", nonnegative=True)
_history = sp.Tuple(i, 1, n)
_one_slot = Assumption("an arrival holds at most one of B slots", at_most(share[i], 1 / B))
_longer = Assumption("more arrivals than slots", at_most(B, n))
_sums_to_one = Assumption("the buffer's shares sum to one", equal(sp.Sum(share[i], _history), 1))
_when_share = at_least(share[i], share[i] * B / n)
_when_history = at_least(1 / n, share[i] * B / n)
_overlap = Assumption(
    "O_i = min(P_i, 1/n); both of its values are at least P_i B/n (the two first steps)",
    at_least(overlap[i], share[i] * B / n),
)
_overlaps = SumOver(_overlap.relation, sp.S.One, _history)
distance = sp.Symbol("TV", nonnegative=True)
_distance = Assumption(
    "total variation is one minus the overlap", equal(distance, 1 - sp.Sum(overlap[i], _history))
)

FIFO_WORST = Lemma(
    name="buffers/fifo-worst",
    words="No buffer of B slots is farther from its history than FIFO: TV <= 1 - B/n.",
    hypotheses=(_one_slot, _longer, _sums_to_one, _overlap, _distance),
    steps=(
        Combine(_when_share, (term(share[i] / n, _longer.relation),)),
        Combine(_when_history, (term(B / n, _one_slot.relation),)),
        _overlaps,
        Combine(
            at_most(distance, 1 - B / n),
            (
                term(1, _overlaps.conclusion),
                term(-1, _distance.relation),
                term(B / n, _sums_to_one.relation),
            ),
        ),
    ),
    source="coopt",
)

_u = sp.Symbol("u", nonnegative=True)
_rate = sp.Symbol("kappa", positive=True)
_life = sp.Symbol("L", positive=True)
_filter = (
    "the error follows the buffer's mean with rate kappa = eta c per step, so its variance is multiplied by "
)

FIFO_FACTOR = Lemma(
    name="buffers/fifo-factor",
    words=_filter + "kappa int e^(-kappa u) (1 - u/L) du over one life L = B/lambda of the buffer: "
    "1 - (1-e^-y)/y at y = kappa L.",
    hypotheses=(
        Assumption("i.i.d. arrivals; the correlation of a FIFO buffer with itself u steps later is 1 - u/L"),
    ),
    steps=(
        Identity(
            _rate * sp.Integral(sp.exp(-_rate * _u) * (1 - _u / _life), (_u, 0, _life)),
            FACTOR["fifo"].subs(y, _rate * _life),
        ),
    ),
    source="coopt",
)
RANDOM_FACTOR = Lemma(
    name="buffers/random-factor",
    words=_filter + "kappa int e^(-kappa u) e^(-u/L) du = y/(1+y).",
    hypotheses=(Assumption("i.i.d. arrivals; the correlation of a randomly replaced buffer is e^(-u/L)"),),
    steps=(
        Identity(
            _rate * sp.Integral(sp.exp(-_rate * _u) * sp.exp(-_u / _life), (_u, 0, sp.oo)),
            FACTOR["random"].subs(y, _rate * _life),
        ),
    ),
    source="coopt",
)

LEMMAS: tuple[Lemma, ...] = (
    RESERVOIR,
    RANDOM,
    RANDOM_TOTAL,
    RANDOM_VARIATION,
    RANDOM_OLDEST,
    RANDOM_LIMIT,
    FIFO_VARIATION,
    FIFO_WORST,
    FIFO_FACTOR,
    RANDOM_FACTOR,
)

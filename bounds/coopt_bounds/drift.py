"""How far the local models drift from their average within a round.

e_j is the root of sum p_i E||w_i - w||^2 after j local steps; it restarts at 0 in every round.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.geometric import n, solves
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, Induct, Root, term
from coopt_bounds.symbols import beta, d_h, ell, eta, j, nu2, r, z

curvature = sp.Symbol("lambda", real=True)
above = Assumption("curvature at least ell", at_least(curvature, ell))
below = Assumption("curvature at most beta", at_most(curvature, beta))
step_limit = Assumption("eta <= 2/(beta + ell)", at_least(2 - eta * (beta + ell), 0))

_UPPER = at_most(1 - eta * curvature, 1 - eta * ell)

CONTRACTION = Lemma(
    name="drift/local-map",
    words="A local gradient step stretches distances by at most r = 1 - eta ell: |1 - eta lambda| <= r for "
    "every "
    "curvature lambda (stated as squares).",
    hypotheses=(above, below, step_limit),
    steps=(
        Combine(
            at_most((1 - eta * curvature) ** 2, (1 - eta * ell) ** 2),
            (
                term(eta, step_limit.relation, above.relation),
                term(eta**2, above.relation, below.relation),
            ),
        ),
    ),
    source="mean value theorem along the segment from w to w_i",
)

m, m1, m2, n2 = sp.symbols("m m_1 m_2 n2", nonnegative=True)
e, e_next = sp.symbols("e e_next", nonnegative=True)

triangle = Assumption("Minkowski's inequality for the two parts of the mean move", at_most(m, m1 + m2))
stretched = Assumption(
    "lemma drift/local-map, and the projection off the mean is nonexpansive", at_most(m1, r * e)
)
pushed = Assumption(
    "at the common average the gradients differ by at most delta_i, in root mean square d_h",
    at_most(m2, eta * d_h),
)
orthogonal = Assumption(
    "the noise has conditional mean zero, so the squared next drift has mean m^2 + eta^2 n2",
    equal(e_next**2, m**2 + eta**2 * n2),
)
noise = Assumption("lemma averaging/projected-noise", at_most(n2, nu2))
_mean_move = at_most(m, r * e + eta * d_h)

RECURSION = Lemma(
    name="drift/recursion",
    words="e_{j+1}^2 <= (r e_j + eta d_h)^2 + eta^2 nu^2.",
    hypotheses=(triangle, stretched, pushed, orthogonal, noise),
    steps=(
        Combine(
            _mean_move,
            (term(1, triangle.relation), term(1, stretched.relation), term(1, pushed.relation)),
        ),
        Combine(
            at_most(e_next**2, (r * e + eta * d_h) ** 2 + eta**2 * nu2),
            (
                term(r * e + eta * d_h + m, _mean_move),
                term(eta**2, noise.relation),
                term(-1, orthogonal.relation),
            ),
        ),
    ),
    source="coopt",
)

E, a, b = (sp.Function(name, nonnegative=True) for name in ("e", "a", "b"))
a_is = Assumption("a_0 = 0, a_{j+1} = r a_j + eta d_h", equal(a(j + 1), r * a(j) + eta * d_h))
b_is = Assumption(
    "b_0 = 0, b_{j+1}^2 = r^2 b_j^2 + eta^2 nu^2", equal(b(j + 1) ** 2, r**2 * b(j) ** 2 + eta**2 * nu2)
)
e_is = Assumption("lemma drift/recursion", at_most(E(j + 1) ** 2, (r * E(j) + eta * d_h) ** 2 + eta**2 * nu2))
starts = tuple(
    Assumption(f"{word} starts at 0", equal(f(0), 0)) for word, f in (("e", E), ("a", a), ("b", b))
)

_split = at_most(E(j), a(j) + b(j))
_b_squared = at_least(b(j + 1) ** 2, (r * b(j)) ** 2)
_b_grows = at_least(b(j + 1), r * b(j))
_squared = at_most(E(j + 1) ** 2, (a(j + 1) + b(j + 1)) ** 2)

SPLIT = Lemma(
    name="drift/split",
    words="Drift is at most a part a_j from divergence plus a part b_j from noise.",
    hypotheses=(a_is, b_is, e_is, *starts),
    steps=(
        Induct(
            _split,
            index=j,
            start=0,
            base=(
                Combine(
                    at_most(E(0), a(0) + b(0)),
                    (
                        term(-1, starts[0].relation),
                        term(1, starts[1].relation),
                        term(1, starts[2].relation),
                    ),
                ),
            ),
            step=(
                Combine(_b_squared, (term(1, b_is.relation), term(eta**2 * nu2))),
                Root(_b_grows, _b_squared),
                Combine(
                    _squared,
                    (
                        term(1, e_is.relation),
                        term(r * (r * (a(j) + b(j)) + r * E(j) + 2 * eta * d_h), _split),
                        term(2 * a(j + 1), _b_grows),
                        term(1, b_is.relation),
                        term(a(j + 1) + r * a(j) + eta * d_h + 2 * r * b(j), a_is.relation),
                    ),
                ),
                Root(at_most(E(j + 1), a(j + 1) + b(j + 1)), _squared),
            ),
        ),
    ),
    source="Minkowski's inequality over steps",
)

x, y = sp.symbols("x y", nonnegative=True)

YOUNG = Lemma(
    name="drift/young",
    words="(a + b)^2 <= (1+z) a^2 + (1+1/z) b^2 for every z > 0.",
    hypotheses=(),
    steps=(
        Combine(at_most((x + y) ** 2, (1 + z) * x**2 + (1 + 1 / z) * y**2), (term((z * x - y) ** 2 / z),)),
    ),
    source="Young's inequality",
)

A, B = sp.symbols("A B", positive=True)

BEST_Z = Lemma(
    name="drift/best-z",
    words="For sums A of a_j^2 and B of b_j^2 the best z = sqrt(B/A) gives (sqrt A + sqrt B)^2.",
    hypotheses=(),
    steps=(
        Identity(
            (1 + sp.sqrt(B) / sp.sqrt(A)) * A + (1 + sp.sqrt(A) / sp.sqrt(B)) * B,
            (sp.sqrt(A) + sp.sqrt(B)) ** 2,
        ),
        Combine(
            at_least((1 + z) * A + (1 + 1 / z) * B, (sp.sqrt(A) + sp.sqrt(B)) ** 2),
            (term((z * sp.sqrt(A) - sp.sqrt(B)) ** 2 / z),),
        ),
    ),
    source="calculus",
)


DIVERGENCE = solves(
    "drift/divergence",
    "a_j = eta d_h (r^j - 1)/(r - 1) solves a_{j+1} = r a_j + eta d_h.",
    r,
    eta * d_h,
    eta * d_h * (r**n - 1) / (r - 1),
)
DIVERGENCE_FLAT = solves(
    "drift/divergence-r1", "At r = 1, a_j = eta d_h j.", sp.S.One, eta * d_h, eta * d_h * n
)
NOISE = solves(
    "drift/noise",
    "b_j^2 = eta^2 nu^2 (r^(2j) - 1)/(r^2 - 1) solves b_{j+1}^2 = r^2 b_j^2 + eta^2 nu^2.",
    r**2,
    eta**2 * nu2,
    eta**2 * nu2 * (r ** (2 * n) - 1) / (r**2 - 1),
)
NOISE_FLAT = solves(
    "drift/noise-r1", "At r = 1, b_j^2 = eta^2 nu^2 j.", sp.S.One, eta**2 * nu2, eta**2 * nu2 * n
)

LEMMAS: tuple[Lemma, ...] = (
    CONTRACTION,
    RECURSION,
    SPLIT,
    YOUNG,
    BEST_Z,
    DIVERGENCE,
    DIVERGENCE_FLAT,
    NOISE,
    NOISE_FLAT,
)

"""Matrices that do not commute: powers, sums of powers, sandwiches, and when a product is symmetric.

Symbols declared ``commutative=False`` stand for square matrices and column vectors, and their equations are
multiplied out exactly. Inequalities are about numbers: an order of symmetric matrices is one of x'Ax for
every x. A transpose is a symbol of its own, whose recurrence is that of the matrix with all products turned
around.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from coopt_bounds.algebra import equal
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Induct, Substitute, term


def matrix_symbols(names: str) -> Any:
    """Symbols for matrices or vectors."""
    return sp.symbols(names, commutative=False)


def matrix_function(name: str) -> Any:
    """A sequence of matrices or vectors."""
    return sp.Function(name, commutative=False)


def partial_sums(sequence: Any, member: Any, words: str) -> tuple[Assumption, Assumption]:
    """``sequence(n)`` is the sum of the first n members, ``member`` the one with index n."""
    return (
        Assumption(f"{words}: it starts at 0", equal(sequence(0), 0)),
        Assumption(f"{words}: one term more", equal(sequence(n + 1), sequence(n) + member)),
    )


A, P, x0, f = matrix_symbols("A P x_0 f")
G, x, S, X = (matrix_function(name) for name in ("G", "x", "S", "X"))

powers_sum = partial_sums(G, A**n, "G(n), the sum of A^k for k < n")
horner = equal(G(n + 1), A * G(n) + 1)

_first = Substitute(powers_sum[1].relation, {n: sp.S.Zero})
_next = Substitute(powers_sum[1].relation, {n: n + 1})

SUM_OF_POWERS = Lemma(
    name="matrices/sum-of-powers",
    words="The sum of the first n powers obeys G(n+1) = A G(n) + I.",
    hypotheses=powers_sum,
    steps=(
        Induct(
            horner,
            index=n,
            start=0,
            base=(
                _first,
                Combine(
                    equal(G(1), A * G(0) + 1),
                    (term(1, _first.conclusion), term(1 - A, powers_sum[0].relation)),
                ),
            ),
            step=(
                _next,
                Combine(
                    equal(G(n + 2), A * G(n + 1) + 1),
                    (term(1, _next.conclusion), term(1, horner), term(-A, powers_sum[1].relation)),
                ),
            ),
        ),
    ),
    source="geometric sum",
)

map_start = Assumption("x(0) = x_0", equal(x(0), x0))
map_step = Assumption("every step: x <- A x - f", equal(x(n + 1), A * x(n) - f))
_horner = Assumption("lemma matrices/sum-of-powers", horner)
_reached = equal(x(n), A**n * x0 - G(n) * f)

AFFINE_MAP = Lemma(
    name="matrices/affine-map",
    words="n steps of x <- A x - f lead to A^n x_0 - (sum of A^k for k < n) f.",
    hypotheses=(map_start, map_step, powers_sum[0], _horner),
    steps=(
        Induct(
            _reached,
            index=n,
            start=0,
            base=(
                Combine(
                    equal(x(0), A**0 * x0 - G(0) * f),
                    (term(1, map_start.relation), term(1, powers_sum[0].relation, right=f)),
                ),
            ),
            step=(
                Combine(
                    equal(x(n + 1), A ** (n + 1) * x0 - G(n + 1) * f),
                    (
                        term(1, map_step.relation),
                        term(A, _reached),
                        term(1, _horner.relation, right=f),
                    ),
                ),
            ),
        ),
    ),
    source="linearity",
)

spread = partial_sums(X, A**n * P * A**n, "X(n), the sum of A^k P A^k for k < n")
noise_start = Assumption("no noise at the start", equal(S(0), 0))
noise_step = Assumption("every step: S <- A S A + P", equal(S(n + 1), A * S(n) * A + P))
_x_first = Substitute(spread[1].relation, {n: sp.S.Zero})
_x_next = Substitute(spread[1].relation, {n: n + 1})
_turned = equal(X(n + 1), A * X(n) * A + P)
_sums = equal(S(n), X(n))

SANDWICH = Lemma(
    name="matrices/sandwich",
    words="Covariance that grows by S <- A S A + P from 0, with a symmetric A, is the sum of A^k P A^k.",
    hypotheses=(*spread, noise_start, noise_step),
    steps=(
        Induct(
            _turned,
            index=n,
            start=0,
            base=(
                _x_first,
                Combine(
                    equal(X(1), A * X(0) * A + P),
                    (
                        term(1, _x_first.conclusion),
                        term(1, spread[0].relation),
                        term(-A, spread[0].relation, right=A),
                    ),
                ),
            ),
            step=(
                _x_next,
                Combine(
                    equal(X(n + 2), A * X(n + 1) * A + P),
                    (
                        term(1, _x_next.conclusion),
                        term(1, _turned),
                        term(-A, spread[1].relation, right=A),
                    ),
                ),
            ),
        ),
        Induct(
            _sums,
            index=n,
            start=0,
            base=(Combine(equal(S(0), X(0)), (term(1, noise_start.relation), term(-1, spread[0].relation))),),
            step=(
                Combine(
                    equal(S(n + 1), X(n + 1)),
                    (
                        term(1, noise_step.relation),
                        term(A, _sums, right=A),
                        term(-1, _turned),
                    ),
                ),
            ),
        ),
    ),
    source="linearity; independent noise of mean zero",
)

At = sp.Symbol("A^T", commutative=False)
T = matrix_function("T")
symmetric = Assumption("A is symmetric", equal(At, A))
turned_power = (
    Assumption("T(n) is the transpose of A^n: that of I is I", equal(T(0), 1)),
    Assumption("(A A^n)^T = (A^n)^T A^T", equal(T(n + 1), T(n) * At)),
)
_same = equal(T(n), A**n)

POWER_SYMMETRIC = Lemma(
    name="matrices/symmetric-power",
    words="Powers of a symmetric matrix are symmetric.",
    hypotheses=(symmetric, *turned_power),
    steps=(
        Induct(
            _same,
            index=n,
            start=0,
            base=(Combine(equal(T(0), A**0), (term(1, turned_power[0].relation),)),),
            step=(
                Combine(
                    equal(T(n + 1), A ** (n + 1)),
                    (
                        term(1, turned_power[1].relation),
                        term(T(n), symmetric.relation),
                        term(1, _same, right=A),
                    ),
                ),
            ),
        ),
    ),
    source="elementary",
)

B11, B12, B21, B22, Y = matrix_symbols("B_11 B_12 B_21 B_22 Y")
a, b, a_t, b_t = (matrix_function(name) for name in ("a", "b", "a^T", "b^T"))
t = sp.Symbol("t", real=True)
BLOCKS = (B11, B12, B21, B22)

block_start = (
    Assumption("the first row of the n-th power, (a, b): (I, 0) at n = 0", equal(a(0), 1)),
    Assumption("b(0) = 0", equal(b(0), 0)),
)
block_step = (
    Assumption("a(n+1) = a(n) B_11 + b(n) B_21", equal(a(n + 1), a(n) * B11 + b(n) * B21)),
    Assumption("b(n+1) = a(n) B_12 + b(n) B_22", equal(b(n + 1), a(n) * B12 + b(n) * B22)),
)
commuting = tuple(Assumption(f"Y commutes with {block}", equal(Y * block, block * Y)) for block in BLOCKS)
_either = equal((a(n) + t * b(n)) * Y, Y * (a(n) + t * b(n)))
_a_commutes = Substitute(_either, {t: sp.S.Zero})
_sum_commutes = Substitute(_either, {t: sp.S.One})
_b_commutes = Combine(
    equal(b(n) * Y, Y * b(n)), (term(1, _sum_commutes.conclusion), term(-1, _a_commutes.conclusion))
)

BLOCKS_COMMUTE = Lemma(
    name="matrices/blocks-commute",
    words="What commutes with all blocks of a 2 x 2 block matrix commutes with the first row of its powers, "
    "a(n) + t b(n) for every number t.",
    hypotheses=(*block_start, *block_step, *commuting),
    steps=(
        Induct(
            _either,
            index=n,
            start=0,
            base=(
                Combine(
                    equal((a(0) + t * b(0)) * Y, Y * (a(0) + t * b(0))),
                    (
                        term(1, block_start[0].relation, right=Y),
                        term(t, block_start[1].relation, right=Y),
                        term(-Y, block_start[0].relation),
                        term(-t * Y, block_start[1].relation),
                    ),
                ),
            ),
            step=(
                _a_commutes,
                _sum_commutes,
                _b_commutes,
                Combine(
                    equal((a(n + 1) + t * b(n + 1)) * Y, Y * (a(n + 1) + t * b(n + 1))),
                    (
                        term(1, block_step[0].relation, right=Y),
                        term(t, block_step[1].relation, right=Y),
                        term(-Y, block_step[0].relation),
                        term(-t * Y, block_step[1].relation),
                        term(-a(n), commuting[0].relation),
                        term(-b(n), commuting[2].relation),
                        term(-t * a(n), commuting[1].relation),
                        term(-t * b(n), commuting[3].relation),
                        term(1, _a_commutes.conclusion, right=B11 + t * B12),
                        term(1, _b_commutes.conclusion, right=B21 + t * B22),
                    ),
                ),
            ),
        ),
    ),
    source="elementary",
)

turned_start = (
    Assumption("transposes of the first row: that of I", equal(a_t(0), 1)),
    Assumption("that of 0", equal(b_t(0), 0)),
)
turned_step = (
    Assumption(
        "B_11 and B_21 are symmetric: (a B_11 + b B_21)^T = B_11 a^T + B_21 b^T",
        equal(a_t(n + 1), B11 * a_t(n) + B21 * b_t(n)),
    ),
    Assumption(
        "B_12 and B_22 are symmetric: (a B_12 + b B_22)^T = B_12 a^T + B_22 b^T",
        equal(b_t(n + 1), B12 * a_t(n) + B22 * b_t(n)),
    ),
)
row_commutes = tuple(
    Assumption(f"lemma matrices/blocks-commute with Y = {block}", equal(row(n) * block, block * row(n)))
    for row, block in ((a, B11), (b, B21), (a, B12), (b, B22))
)
_symmetric_row = equal(a_t(n) + t * b_t(n), a(n) + t * b(n))
_a_symmetric = Substitute(_symmetric_row, {t: sp.S.Zero})
_sum_symmetric = Substitute(_symmetric_row, {t: sp.S.One})
_b_symmetric = Combine(
    equal(b_t(n), b(n)), (term(1, _sum_symmetric.conclusion), term(-1, _a_symmetric.conclusion))
)

BLOCKS_SYMMETRIC = Lemma(
    name="matrices/blocks-symmetric",
    words="Where the blocks are symmetric and commute with one another (polynomials in one symmetric "
    "matrix), the blocks in the first row of every power are symmetric.",
    hypotheses=(*block_start, *turned_start, *block_step, *turned_step, *row_commutes),
    steps=(
        Induct(
            _symmetric_row,
            index=n,
            start=0,
            base=(
                Combine(
                    equal(a_t(0) + t * b_t(0), a(0) + t * b(0)),
                    (
                        term(1, turned_start[0].relation),
                        term(t, turned_start[1].relation),
                        term(-1, block_start[0].relation),
                        term(-t, block_start[1].relation),
                    ),
                ),
            ),
            step=(
                _a_symmetric,
                _sum_symmetric,
                _b_symmetric,
                Combine(
                    equal(a_t(n + 1) + t * b_t(n + 1), a(n + 1) + t * b(n + 1)),
                    (
                        term(1, turned_step[0].relation),
                        term(t, turned_step[1].relation),
                        term(-1, block_step[0].relation),
                        term(-t, block_step[1].relation),
                        term(B11 + t * B12, _a_symmetric.conclusion),
                        term(B21 + t * B22, _b_symmetric.conclusion),
                        term(-1, row_commutes[0].relation),
                        term(-1, row_commutes[1].relation),
                        term(-t, row_commutes[2].relation),
                        term(-t, row_commutes[3].relation),
                    ),
                ),
            ),
        ),
    ),
    source="elementary",
)

LEMMAS: tuple[Lemma, ...] = (
    SUM_OF_POWERS,
    AFFINE_MAP,
    SANDWICH,
    POWER_SYMMETRIC,
    BLOCKS_COMMUTE,
    BLOCKS_SYMMETRIC,
)

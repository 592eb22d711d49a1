"""What m Krylov directions know of gradient descent on a quadratic: exact for m steps, never above the truth.

The basis Q holds m orthonormal directions that span g, Hg, ..., H^(m-1) g. With one local step a round, or
with equal curvatures, T steps of learning rate eta have the gap

    E_T = sum_a g_a^2 f(lambda_a),   f(lambda) = (1 - eta lambda)^(2T)/(2 lambda),

and the model in the basis, Q'HQ and Q'g, has the same with its m Ritz values: Gauss quadrature. It is exact
for polynomials up to degree 2m - 1, and its error is a nonnegative number times the 2m-th derivative of f.
That derivative is never negative for lambda > 0, whatever the learning rate, so the model's gap is at most
the true one. Nothing of the kind holds for noise, nor for drift between devices that differ.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.matrices import matrix_function, matrix_symbols
from coopt_bounds.proof import Combine, Identity, Induct, Substitute, term
from coopt_bounds.symbols import Quantity, eta
from coopt_bounds.theorem import Theorem

H, Q, Q_t, g = matrix_symbols("H Q Q^T g")
x, y, w, u = (matrix_function(name) for name in ("x", "y", "w", "u"))
half = sp.Rational(1, 2)


def _inside(vector: Any, words: str) -> Assumption:
    return Assumption(words, equal(Q * Q_t * vector, vector))


_first = Assumption("the gradient is in the basis: x(0) = g = QQ'g, y(0) = Q'g", equal(x(0), Q * y(0)))
_power = Assumption("x(j) = H^j g", equal(x(n + 1), H * x(n)))
_ritz_power = Assumption("y(j) = (Q'HQ)^j Q'g", equal(y(n + 1), Q_t * H * Q * y(n)))
_krylov = _inside(x(n + 1), "H^(j+1) g is in the basis, for j + 1 <= m - 1: read n <= m - 2")
_same_power = equal(x(n), Q * y(n))

POWERS = Lemma(
    name="krylov/powers",
    words="H^j g is Q (Q'HQ)^j Q'g for j <= m - 1.",
    hypotheses=(_first, _power, _ritz_power, _krylov),
    steps=(
        Induct(
            _same_power,
            index=n,
            start=0,
            base=(Combine(_same_power.subs(n, 0), (term(1, _first.relation),)),),
            step=(
                Combine(
                    equal(x(n + 1), Q * y(n + 1)),
                    (
                        term(-1, _krylov.relation),
                        term(Q * Q_t, _power.relation),
                        term(Q * Q_t * H, _same_power),
                        term(-Q, _ritz_power.relation),
                    ),
                ),
            ),
        ),
    ),
    source="Lanczos 1950",
)

x_j, x_k, y_j, y_k = matrix_symbols("x_j^T x_k y_j^T y_k")
orthonormal = Assumption("the directions are orthonormal: Q'Q = I", equal(Q_t * Q, 1))
_left_power = Assumption("lemma krylov/powers for j <= m - 1, transposed", equal(x_j, y_j * Q_t))
_right_power = Assumption("lemma krylov/powers for k <= m - 1", equal(x_k, Q * y_k))

MOMENTS = Lemma(
    name="krylov/moments",
    words="g'H^j g is exact for j <= 2m - 1: products of two powers up to m - 1, with H between them or not.",
    hypotheses=(orthonormal, _left_power, _right_power),
    steps=(
        Combine(
            equal(x_j * x_k, y_j * y_k),
            (
                term(1, _left_power.relation, right=x_k),
                term(y_j * Q_t, _right_power.relation),
                term(y_j, orthonormal.relation, right=y_k),
            ),
        ),
        Combine(
            equal(x_j * H * x_k, y_j * (Q_t * H * Q) * y_k),
            (
                term(1, _left_power.relation, right=H * x_k),
                term(y_j * Q_t * H, _right_power.relation),
            ),
        ),
    ),
    source="Golub & Meurant 2010, Matrices, Moments and Quadrature with Applications, chapter 6",
)

_w_start = Assumption("descent starts at w_0: w(0) = 0", equal(w(0), 0))
_u_start = Assumption("so does the model's", equal(u(0), 0))
_w_step = Assumption("a step of descent", equal(w(n + 1), (1 - eta * H) * w(n) - eta * g))
_u_step = Assumption("a step in the basis", equal(u(n + 1), (1 - eta * Q_t * H * Q) * u(n) - eta * Q_t * g))
_w_inside = _inside(
    w(n + 1), "after n + 1 <= m steps the iterate is a combination of g, ..., H^n g: in the basis"
)
_same_iterate = equal(w(n), Q * u(n))

ITERATES = Lemma(
    name="krylov/iterates",
    words="For T <= m steps the iterates of descent are those of the model: w = Q u.",
    hypotheses=(orthonormal, _w_start, _u_start, _w_step, _u_step, _w_inside),
    steps=(
        Induct(
            _same_iterate,
            index=n,
            start=0,
            base=(Combine(equal(w(0), Q * u(0)), (term(1, _w_start.relation), term(-Q, _u_start.relation))),),
            step=(
                Combine(
                    equal(w(n + 1), Q * u(n + 1)),
                    (
                        term(-1, _w_inside.relation),
                        term(Q * Q_t, _w_step.relation),
                        term(Q * Q_t * (1 - eta * H), _same_iterate),
                        term(-Q, _u_step.relation),
                        term(Q, orthonormal.relation, right=u(n)),
                    ),
                ),
            ),
        ),
    ),
    source="coopt",
)

w_T, w_T_t, u_T, u_T_t, g_t = matrix_symbols("w w^T u u^T g^T")
_reached = Assumption("lemma krylov/iterates", equal(w_T, Q * u_T))
_reached_t = Assumption("the same, transposed", equal(w_T_t, u_T_t * Q_t))

DECREASE = Lemma(
    name="krylov/decrease",
    words="For T <= m steps the model's decrease of the loss is the true one.",
    hypotheses=(_reached, _reached_t),
    steps=(
        Combine(
            equal(g_t * w_T + half * w_T_t * H * w_T, (g_t * Q) * u_T + half * u_T_t * (Q_t * H * Q) * u_T),
            (
                term(g_t, _reached.relation),
                term(half * w_T_t * H, _reached.relation),
                term(half, _reached_t.relation, right=H * Q * u_T),
            ),
        ),
    ),
    source="coopt",
)

L = sp.Symbol("L", integer=True, nonnegative=True)
order = sp.Symbol("r", integer=True, nonnegative=True)
t = sp.Symbol("t", real=True)
plain, tail, slope, tail_next = (sp.Function(name, real=True) for name in ("R_0", "R", "R_slope", "R_next"))
binomial, binomial_next = (sp.Function(name, nonnegative=True) for name in ("c", "c_next"))

_plain = (
    Assumption("R_0(0) = 1/(1 - t)", equal(plain(0), 1 / (1 - t))),
    Assumption("R_0(L) leaves out the powers below L", equal(plain(L + 1), plain(L) - t**L)),
)
_fraction = equal(plain(L), t**L / (1 - t))

TAIL_OF_PLAIN = Lemma(
    name="krylov/plain-tail",
    words="With t = 1 - eta lambda, f(lambda) is eta/2 times t^(2T)/(1 - t), the tail R_0(2T) of 1/(1 - t).",
    hypotheses=_plain,
    steps=(
        Induct(
            _fraction,
            index=L,
            start=0,
            base=(Combine(equal(plain(0), t**0 / (1 - t)), (term(1, _plain[0].relation),)),),
            step=(
                Combine(
                    equal(plain(L + 1), t ** (L + 1) / (1 - t)),
                    (term(1, _plain[1].relation), term(1, _fraction)),
                ),
            ),
        ),
    ),
    source="geometric sum",
)

_tail = (
    Assumption("R_r(0) = (1 - t)^-(r+1)", equal(tail(0), (1 - t) ** (-order - 1))),
    Assumption(
        "R_r(L) leaves out the powers below L, with c(k) = binom(r + k, k)",
        equal(tail(L + 1), tail(L) - binomial(L) * t**L),
    ),
)
_slope = (
    Assumption("derivative of R_r(0) in t", equal(slope(0), (order + 1) * (1 - t) ** (-order - 2))),
    Assumption(
        "derivative of what is left out", equal(slope(L + 1), slope(L) - L * binomial(L) * t ** (L - 1))
    ),
)
_binomial = Assumption("ratio of binomials", equal((L + 1) * binomial(L + 1), (order + L + 1) * binomial(L)))
_next_tail = (
    Assumption("R_(r+1)(0)", equal(tail_next(0), (1 - t) ** (-order - 2))),
    Assumption("R_(r+1)(L)", equal(tail_next(L + 1), tail_next(L) - binomial_next(L) * t**L)),
)
_next_binomial = Assumption(
    "binom(r + 1 + k, k) (r + 1) = binom(r + k + 1, k + 1) (k + 1)",
    equal((order + 1) * binomial_next(L), (L + 1) * binomial(L + 1)),
)
_slope_first = Substitute(_slope[1].relation, {L: sp.S.Zero})
_slope_next = Substitute(_slope[1].relation, {L: L + 1})
_derived = equal(slope(L + 1), (order + 1) * tail_next(L))

DERIVATIVES = Lemma(
    name="krylov/derivatives",
    words="The derivative of R_r(L+1) is (r+1) R_(r+1)(L), of R_r(0) it is (r+1) R_(r+1)(0): the r-th "
    "derivative of t^(2T)/(1 - t) is r! R_r(max(2T - r, 0)).",
    hypotheses=(*_slope, *_next_tail, _next_binomial),
    steps=(
        Induct(
            _derived,
            index=L,
            start=0,
            base=(
                _slope_first,
                Combine(
                    equal(slope(1), (order + 1) * tail_next(0)),
                    (
                        term(1, _slope_first.conclusion),
                        term(1, _slope[0].relation),
                        term(-(order + 1), _next_tail[0].relation),
                    ),
                ),
            ),
            step=(
                _slope_next,
                Combine(
                    equal(slope(L + 2), (order + 1) * tail_next(L + 1)),
                    (
                        term(1, _slope_next.conclusion),
                        term(1, _derived),
                        term(-(order + 1), _next_tail[1].relation),
                        term(t**L, _next_binomial.relation),
                    ),
                ),
            ),
        ),
    ),
    source="elementary",
)

_equation = equal((1 - t) * slope(L) - (order + 1) * tail(L), L * binomial(L) * t ** (L - 1))

TAIL = Lemma(
    name="krylov/tail",
    words="(1 - t) R' - (r+1) R = L c(L) t^(L-1): the derivative of (1 - t)^(r+1) R_r(L) is one term.",
    hypotheses=(*_tail, *_slope, _binomial),
    steps=(
        Induct(
            _equation,
            index=L,
            start=0,
            base=(
                Combine(
                    equal((1 - t) * slope(0) - (order + 1) * tail(0), 0 * binomial(0) * t ** (-1)),
                    (term(1 - t, _slope[0].relation), term(-(order + 1), _tail[0].relation)),
                ),
            ),
            step=(
                Combine(
                    equal(
                        (1 - t) * slope(L + 1) - (order + 1) * tail(L + 1),
                        (L + 1) * binomial(L + 1) * t**L,
                    ),
                    (
                        term(1 - t, _slope[1].relation),
                        term(-(order + 1), _tail[1].relation),
                        term(1, _equation),
                        term(-(t**L), _binomial.relation),
                    ),
                ),
            ),
        ),
    ),
    source="coopt",
)

k = sp.Symbol("k", integer=True, positive=True)
below = sp.Symbol("x", positive=True)

EVEN = Lemma(
    name="krylov/even-tail",
    words="For t = -x < 0 and even L the derivative of (1 + x)^(r+1) R in x is L c(L) x^(L-1) (1 + x)^r >= "
    "0.",
    hypotheses=(),
    steps=(Identity(-((-below) ** (2 * k - 1)), below ** (2 * k - 1)),),
    source="coopt",
)

span = sp.Symbol("eta_lambda", positive=True)
amount, integral = sp.symbols("c_L I", nonnegative=True)
rest = sp.Symbol("R", real=True)
_integrated = Assumption(
    "(1 - t)^(r+1) R_r(L) is 0 at t = 0 for L > 0, and has the sign of its derivative away from 0: lemmas "
    "krylov/tail (0 < t < 1) and krylov/even-tail (t < 0), I an integral of what is nonnegative; at L = 0 it "
    "is 1. 1 - t = eta lambda > 0",
    equal(span ** (order + 1) * rest, amount * integral),
)

SIGN = Lemma(
    name="krylov/sign",
    words="R_r(L) >= 0 for even L, so even derivatives of f are nonnegative for lambda > 0, at any learning "
    "rate.",
    hypotheses=(_integrated,),
    steps=(
        Combine(
            at_least(rest, 0),
            (
                term(span ** (-order - 1), _integrated.relation),
                term(span ** (-order - 1) * amount * integral),
            ),
        ),
    ),
    source="coopt",
)

true_gap, model_gap = sp.symbols("E_T E_Q", real=True)
nodes = sp.Symbol("nodes", nonnegative=True)
_positive = Assumption("lemma krylov/sign with r = 2m", at_least(rest, 0))
_gauss = Assumption(
    "error of Gauss quadrature: the 2m-th derivative of f over (2m)!, somewhere between the eigenvalues, "
    "times the sum of g_a^2 prod_j (lambda_a - theta_j)^2; that derivative is eta^(2m+1)/2 (2m)! R",
    equal(true_gap - model_gap, eta ** (order + 1) / 2 * rest * nodes),
)

STATEMENT = Lemma(
    name="krylov/statement",
    words="The model's gap is never above the true one.",
    hypotheses=(_positive, _gauss),
    steps=(
        Combine(
            at_most(model_gap, true_gap),
            (
                term(1, _gauss.relation),
                term(eta ** (order + 1) / 2 * nodes, _positive.relation),
            ),
        ),
    ),
    source="Golub & Meurant 2010, chapter 6, for the error of Gauss quadrature",
)

true_start, model_start, polynomial, cg = sp.symbols("E_0 E_Q0 poly F_CG", real=True)
_true_parts = Assumption(
    "f(lambda) is 1/(2 lambda) and a polynomial of degree 2T - 1: true gap",
    equal(true_gap, true_start + polynomial),
)
_model_parts = Assumption(
    "the same for the model, whose polynomial part is exact for 2T - 1 <= 2m - 1 (lemma krylov/moments)",
    equal(model_gap, model_start + polynomial),
)
_best = Assumption(
    "the model's least loss is that of conjugate gradients after m steps, so E_Q at T = 0 is F(w_0) - "
    "F(CG_m)",
    equal(cg, true_start - model_start),
)

DEFICIT = Lemma(
    name="krylov/deficit",
    words="For T <= m the model's gap is too low by exactly F(CG_m) - F*, whatever T: differences are exact.",
    hypotheses=(_true_parts, _model_parts, _best),
    steps=(
        Combine(
            equal(true_gap - model_gap, cg),
            (
                term(1, _true_parts.relation),
                term(-1, _model_parts.relation),
                term(-1, _best.relation),
            ),
        ),
    ),
    source="coopt; conjugate gradients: Hestenes & Stiefel 1952",
)

_a, _b, _m = sp.symbols("a b m", integer=True, positive=True)
_lam, _theta, _weight, _omega = (sp.IndexedBase(name) for name in ("lambda", "theta", "g", "omega"))
_steps, _dimension = sp.symbols("T n", integer=True, positive=True)


def _sum(weights: Any, values: Any, index: sp.Symbol, last: sp.Symbol) -> sp.Expr:
    value = values[index]
    return sp.Sum(weights[index] ** 2 * (1 - eta * value) ** (2 * _steps) / (2 * value), (index, 1, last))


theorem = Theorem(
    name="krylov",
    title="Gradient descent on a quadratic seen in m Krylov directions: never above the truth",
    number="QK",
    citation="coopt; Gauss quadrature by Lanczos: Golub & Meurant 2010, Matrices, Moments and Quadrature "
    "with Applications",
    assumptions=(
        Assumption("one local step a round, or the same curvature on every device: T steps of one descent"),
        Assumption("no noise"),
        Assumption("m orthonormal directions span g, Hg, ..., H^(m-1) g"),
        Assumption(
            "H is symmetric, positive on those directions (eigenvalues that g does not meet do not count)"
        ),
    ),
    left=model_gap,
    bound=true_gap,
    definitions=(),
    lemmas=(
        POWERS,
        MOMENTS,
        ITERATES,
        DECREASE,
        TAIL_OF_PLAIN,
        DERIVATIVES,
        TAIL,
        EVEN,
        SIGN,
        DEFICIT,
        STATEMENT,
    ),
    quantities=(
        Quantity(true_gap, "true gap F(w_T) - F* after T steps", "loss"),
        Quantity(model_gap, "the gap of the model in m Krylov directions, above its own least value", "loss"),
    ),
    matrices=(
        (true_gap, _sum(_weight, _lam, _a, _dimension)),
        (model_gap, _sum(_omega, _theta, _b, _m)),
    ),
)

"""Take a formula apart: offset, weights of 1/s_i, and the monotone form where it is proved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.symbolic.bound import Compiled, Monotone, Reading
from coopt.objectives.symbolic.prove import NotProvedError, split
from coopt_bounds import symbols as documented
from coopt_bounds.algebra import nonnegative as visibly_nonnegative

Floats = NDArray[np.float64]

# Digits at which a formula is evaluated, so that cancellation in it does no harm.
DIGITS = 30

i, N, K, tau = documented.i, documented.N, documented.K, documented.tau
s, p = documented.s, documented.p
d = sp.IndexedBase("d", positive=True)
COLUMNS = {"s": s, "p": p, "M": documented.M, "V": documented.V, "delta": documented.delta_i, "d": d}
SCALARS: dict[str, sp.Symbol] = {
    str(symbol): symbol
    for symbol in (
        K,
        tau,
        N,
        documented.eta,
        documented.beta,
        documented.beta_F,
        documented.beta_d,
        documented.ell,
        documented.c,
        documented.q,
        documented.D0,
        documented.rho,
        documented.sigma2,
        documented.nu2,
        documented.delta,
        documented.d_h,
    )
}
DERIVED = {documented.sigma2: documented.sigma2_sum, documented.nu2: documented.nu2_sum}

steps = sp.Symbol("T", positive=True)
real_tau = sp.Symbol("tau", positive=True)
_shrink = sp.Symbol("w", positive=True)


def read(
    expression: sp.Expr, values: Mapping[str, float], learning_rate_limit: sp.Expr | None
) -> tuple[Reading, Monotone | None, str]:
    """The formula taken apart, its monotone form if proved, and otherwise the reason."""
    formula = _documented(sp.sympify(expression), values).subs(DERIVED)
    formula = formula.subs(documented.q, 1 - documented.eta * documented.c)
    bases = {entry.base for entry in formula.atoms(sp.Indexed)}
    offset, shares, basis = _affine(formula)
    sums = sorted({total for part in (offset, *shares) for total in part.atoms(sp.Sum)}, key=str)
    stand_ins = {total: sp.Symbol(f"sum_{k}", nonnegative=_sign(total)) for k, total in enumerate(sums)}
    offset, *others = (_in_steps(part.xreplace(stand_ins)) for part in (offset, *shares))
    constants = {str(v) for part in (offset, *others) for v in part.free_symbols}
    limit = None
    if learning_rate_limit is not None:
        limit_formula = _documented(sp.sympify(learning_rate_limit), values)
        constants |= {str(symbol) for symbol in limit_formula.free_symbols}
        limit = _limit(limit_formula)
    reading = Reading(
        offset=_compiled(offset),
        shares=tuple(_compiled(share) for share in others),
        basis=tuple(_column(summand) for summand in basis),
        constants=frozenset(constants - {"T", "tau"} - {str(v) for v in stand_ins.values()}),
        sums={str(symbol): _total(total) for total, symbol in stand_ins.items()},
        limit=limit,
        leaves_out_step_noise=documented.M in bases and documented.V not in bases,
    )
    rate = documented.eta * documented.c
    # For the proof only: 1 - eta c = 1/(1 + w) says that it lies between 0 and 1.
    shown = [part.subs(1 - rate, 1 / (1 + _shrink)) for part in (offset, *others)]
    try:
        found = split(shown[0], tuple(shown[1:]), steps, real_tau)
    except NotProvedError as error:
        return reading, None, str(error)
    back = {_shrink: 1 / (1 - rate) - 1}
    start, slope, floor, *parts = (
        _compiled(part.subs(back)) for part in (found.start, found.slope, found.floor, *found.shares)
    )
    return reading, Monotone(start, slope, floor, tuple(parts)), ""


def _documented(expression: sp.Expr, values: Mapping[str, float]) -> sp.Expr:
    """The expression with its symbols replaced by the documented ones of the same name, or by numbers."""
    replacement: dict[Any, Any] = {}
    for total in expression.atoms(sp.Sum):
        index, *ends = total.limits[0]
        if len(total.limits) != 1 or list(map(str, ends)) != ["1", "N"]:
            raise InvalidProblemError(f"{total}: sums must run over the devices, as Sum(..., (i, 1, N))")
        replacement[index] = i
    for entry in expression.atoms(sp.Indexed):
        if str(entry.base) not in COLUMNS:
            raise InvalidProblemError(f"unknown quantity {entry}: use one of {', '.join(COLUMNS)}")
        if entry.indices[0] not in replacement:
            raise InvalidProblemError(f"{entry}: only allowed inside Sum(..., (i, 1, N))")
        replacement[entry] = COLUMNS[str(entry.base)][i]
    bare = expression.xreplace({entry: sp.Dummy("entry") for entry in expression.atoms(sp.Indexed)})
    for symbol in bare.free_symbols & expression.free_symbols:
        replacement.setdefault(symbol, _scalar(str(symbol), values))
    result: sp.Expr = expression.xreplace(replacement)
    return result


def _scalar(name: str, values: Mapping[str, float]) -> sp.Expr:
    if name in values:
        return sp.Rational(values[name])
    if name in SCALARS:
        return SCALARS[name]
    valid = [*values, *SCALARS]
    close = get_close_matches(name, valid, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InvalidProblemError(
        f"unknown symbol {name!r}: give its number in values, or use one of {', '.join(valid)}{hint}"
    )


def _affine(formula: sp.Expr) -> tuple[sp.Expr, list[sp.Expr], list[sp.Expr]]:
    """Offset, shares and bases such that formula = offset + sum_k share_k sum_i basis_k / s_i."""
    x = sp.Symbol("x_i", positive=True)
    stand_ins: dict[sp.Expr, sp.Symbol] = {}
    replacement: dict[sp.Expr, sp.Expr] = {}
    for total in formula.atoms(sp.Sum):
        if s not in {entry.base for entry in total.atoms(sp.Indexed)}:
            continue
        summand = sp.expand(total.function.subs(s[i], 1 / x))
        slope = sp.expand(sp.diff(summand, x))
        if slope.has(x):
            raise InvalidProblemError(f"{total}: must be affine in 1/s[i]")
        replaced: sp.Expr = (
            sp.Sum(summand.subs(x, 0), (i, 1, N)) if summand.subs(x, 0) != sp.S.Zero else sp.S.Zero
        )
        for part in _grouped(slope):
            outside, inside = part
            replaced += outside * stand_ins.setdefault(inside, sp.Symbol(f"Y_{len(stand_ins)}"))
        replacement[total] = replaced
    plain = formula.xreplace(replacement)
    noise = list(stand_ins.values())
    shares = [sp.simplify(sp.diff(plain, symbol)) for symbol in noise]
    if any(share.has(*noise) for share in shares):
        raise InvalidProblemError(
            "the formula must be affine in 1/s_i: noise terms may not be multiplied together"
        )
    return plain.subs(dict.fromkeys(noise, 0)), shares, list(stand_ins)


def _grouped(slope: sp.Expr) -> list[tuple[sp.Expr, sp.Expr]]:
    """The slope as sums of (factor that is the same for all devices, nonnegative factor of the device)."""
    same: dict[sp.Expr, sp.Expr] = {}
    for part in slope.as_ordered_terms():
        outside, inside = part.as_independent(i, as_Add=False)
        # Constants of opposite sign belong to one weight, such as p_i (1 - p_i) M_i.
        number, outside = outside.as_coeff_Mul()
        same[outside] = same.get(outside, sp.S.Zero) + number * inside
    groups = []
    for outside, inside in same.items():
        if inside.has(K) or inside.has(tau):
            raise InvalidProblemError(f"{inside}: K and tau must be factors that all devices share")
        if _weight_is_nonnegative(inside):
            groups.append((outside, inside))
        elif _weight_is_nonnegative(-inside):
            groups.append((-outside, -inside))
        else:
            raise InvalidProblemError(f"the weight {sp.factor(inside)} of 1/s[i] is not visibly nonnegative")
    return groups


def _weight_is_nonnegative(inside: sp.Expr) -> bool:
    """Whether the form shows it, given that no p_i exceeds one."""
    rest = sp.IndexedBase("w", nonnegative=True)
    factored = sp.factor(inside).subs(p[i] - 1, -rest[i]).subs(1 - p[i], rest[i])
    return visibly_nonnegative(factored)


def _in_steps(expression: sp.Expr) -> sp.Expr:
    result: sp.Expr = sp.powsimp(sp.expand_power_base(expression.subs(K, steps / tau).subs(tau, real_tau)))
    return result


def _sign(total: sp.Sum) -> bool | None:
    return True if _weight_is_nonnegative(total.function) else None


def _compiled(expression: sp.Expr) -> Compiled:
    symbols = sorted(expression.free_symbols - {steps, real_tau}, key=str)
    names = [str(symbol) for symbol in symbols]
    function = sp.lambdify([steps, real_tau, *symbols], expression, "mpmath")

    def evaluate(total: float, local_steps: int, constants: Mapping[str, float]) -> float:
        with mpmath.workdps(DIGITS):
            numbers = [mpmath.mpf(constants[name]) for name in names]
            return _rounded(function(mpmath.mpf(total), mpmath.mpf(local_steps), *numbers))

    return evaluate


def _rounded(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _limit(expression: sp.Expr) -> Callable[[Mapping[str, float]], float]:
    names = sorted(expression.free_symbols, key=str)
    function = sp.lambdify(names, expression, "mpmath")
    return lambda constants: float(function(*(mpmath.mpf(constants[str(name)]) for name in names)))


def _column(summand: sp.Expr) -> Callable[[Mapping[str, Floats]], Floats]:
    entries = sorted(summand.atoms(sp.Indexed), key=str)
    stand_ins = [sp.Dummy("entry") for _ in entries]
    function = sp.lambdify(stand_ins, summand.xreplace(dict(zip(entries, stand_ins, strict=True))), "numpy")
    names = [str(entry.base) for entry in entries]

    def evaluate(columns: Mapping[str, Floats]) -> Floats:
        values: Floats = np.asarray(function(*(columns[name] for name in names)), dtype=np.float64)
        return values

    return evaluate


def _total(total: sp.Sum) -> Callable[[Mapping[str, Floats]], float]:
    column = _column(total.function)
    return lambda columns: float(np.sum(column(columns) + np.zeros(columns["p"].size)))

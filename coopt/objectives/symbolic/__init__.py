"""Bring your own bound: a formula in sympy becomes a Bound that solvers plan with.

The formula is read as a sum over devices of what multiplies 1/s_i, and its monotonicity in K and tau is
proved symbolically where it can be. What is proved lets the exact solver prune; what is not proved is said,
and the search then tries every (K, tau) one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from coopt.objectives.symbolic.bound import MonotoneSymbolicBound, SymbolicBound

if TYPE_CHECKING:
    import sympy as sp

__all__ = ["MonotoneSymbolicBound", "SymbolicBound", "from_sympy"]


def from_sympy(
    expression: sp.Expr,
    *,
    name: str,
    values: Mapping[str, float] | None = None,
    learning_rate_limit: sp.Expr | None = None,
) -> SymbolicBound | MonotoneSymbolicBound:
    """Make a bound from a sympy expression in the documented symbols.

    Parameters
    ----------
    expression : sympy expression
        In ``K``, ``tau``, ``N``; in the constants ``eta``, ``beta``, ``beta_F``, ``beta_d``, ``ell``, ``c``,
        ``q`` = 1 - eta c, ``D_0``, ``rho``; in ``sigma2``, ``nu2``, ``deltabar``, ``d_h``; and in sums over
        devices ``Sum(..., (i, 1, N))`` of ``p[i]``, ``M[i]``, ``s[i]``, ``delta[i]``, ``d[i]``. Symbols are
        recognised by their names; :mod:`coopt_bounds.symbols` has them with meanings and units. For fixed
        K and tau the expression must be affine in the 1/s_i. Where batches are drawn without replacement,
        1/s_i stands for 1/s_i - 1/d_i.
    name : str
        For tables and messages.
    values : mapping, optional
        Numbers for any other symbols of the expression.
    learning_rate_limit : sympy expression, optional
        The largest learning rate for which the bound holds, such as ``1/beta``.

    Returns
    -------
    SymbolicBound or MonotoneSymbolicBound
        ``monotone`` says whether the exact solver may prune; where it may not, ``reason`` says why, and
        solving tries every (K, tau), up to :data:`coopt.solvers.exhaustive.MOST_PAIRS` of them.

    Raises
    ------
    InvalidProblemError
        If a symbol is unknown, the expression is not affine in 1/s_i, or a weight may be negative.

    Examples
    --------
    Noise, and a drift that grows with the local steps:

    >>> import sympy as sp
    >>> from coopt.objectives.symbolic import from_sympy
    >>> K, tau, eta, D_0, sigma2, B = sp.symbols("K tau eta D_0 sigma2 B")
    >>> formula = 2 * D_0 / (eta * K * tau) + eta * sigma2 + B * (tau - 1)
    >>> bound = from_sympy(formula, name="mine", values={"B": 0.01})
    >>> bound.monotone
    True

    A formula that falls in tau at fixed K tau is searched exhaustively:

    >>> from_sympy(D_0 / (K * tau) + eta * sigma2 / tau, name="mine").reason
    'the floor is not proved nondecreasing in tau'
    """
    from coopt.objectives.symbolic.read import read

    reading, form, reason = read(expression, values or {}, learning_rate_limit)
    return (
        SymbolicBound(name, reading, reason) if form is None else MonotoneSymbolicBound(name, reading, form)
    )

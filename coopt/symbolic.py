"""A bound of one's own from a formula: the public path of the module in :mod:`coopt.objectives`."""

from coopt.objectives.symbolic import MonotoneSymbolicBound, SymbolicBound, from_sympy

__all__ = ["MonotoneSymbolicBound", "SymbolicBound", "from_sympy"]

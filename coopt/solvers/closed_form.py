"""The public path of the closed forms."""

from coopt.solvers.proposers.closed_form import ClosedForm, co_optimised, relaxation

__all__ = ["ClosedForm", "co_optimised", "relaxation"]

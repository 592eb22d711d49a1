"""The inner loops of the exact search as machine code: the extra ``fast``, which needs numba.

Everything here has a form in numpy as well, in :mod:`coopt.solvers`, and tests hold the two equal. Whether
these loops are used is decided in :mod:`coopt.loops`.
"""

from coopt.compiled import data, drift, inner, passes, search

__all__ = ["data", "drift", "inner", "passes", "search"]

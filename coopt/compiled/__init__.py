"""The inner loops of the exact search as machine code: the extra ``fast``, which needs numba.

Everything here has a form in numpy as well, in :mod:`coopt.solvers`, and tests hold the two equal. The first
call compiles, which takes about half a minute; the code is then kept on disk.
"""

from coopt.compiled import data, drift, inner, passes, search

__all__ = ["data", "drift", "inner", "passes", "search"]

"""How far rounding can carry the numbers of a solver: all tolerances that cover nothing else, in one place.

Each is relative to the size of what is computed.
"""

from __future__ import annotations

from coopt.problem.limits import TOLERANCE

# The value of a plan, from two orders of evaluation of the sums over its fleet.
SAME_VALUE = 2e-12
# Quotients and sums that rule something out are loosened by this first: it costs nothing but tightness.
LOOSENED = 1e-12
# What a sum over a whole fleet has lost, or a difference of two such sums.
LOST_IN_SUMS = 1e-14
# Two numbers that are the same but for their last digits.
LAST_DIGITS = 1e-15
# A limit with its own tolerance, loosened.
LOOSENED_LIMIT = (1.0 + TOLERANCE) * (1.0 + LOOSENED)

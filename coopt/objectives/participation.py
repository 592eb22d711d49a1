"""Only some devices a round: what drawing them adds to the error.

At the end of a round the server averages the models of m devices with equal weights. Either each of the m is
drawn independently, device i with the probability p_i (one drawn twice trains once and counts twice), or,
where all p_i are equal, m distinct devices are drawn. Both are unbiased: the mean of what the server holds is
the average over all devices, and its variance is a known share of their drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from coopt.errors import InvalidProblemError
from coopt.objectives.drift import geometric


@dataclass(frozen=True)
class EndSums:
    """What limits the drift at the end of a round of tau steps, over eta^2.

    It is at most (1+z) d_h^2 divergence^2 + nu^2 ((1+1/z) noise + 1).
    """

    divergence: float
    noise: float


def end_sums(log_q: float, log_r: float, local_steps: int) -> EndSums:
    """Geometric sums of max(r, q) and max(r^2, q): with these the sampling term never falls in tau."""
    squared = max(2.0 * log_r, log_q)
    # The noise of the last step stands apart: what it is multiplied with is free of z.
    earlier = geometric(squared, local_steps - 1) if local_steps > 1 else 0.0
    return EndSums(geometric(max(log_r, log_q), local_steps), math.exp(squared) * earlier)


def variance_share(devices: int, participants: int | None, distinct: bool) -> Fraction:
    """kappa: the share of the drift that drawing `participants` of `devices` adds; 0 where all take part."""
    if participants is None or (distinct and participants == devices):
        return Fraction(0)
    if distinct:
        return Fraction(devices - participants, participants * (devices - 1))
    return Fraction(1, participants)


def refuse_absence(participants: int | None, bias: float | None, bound: str) -> None:
    """Raise InvalidProblemError where not all devices take part and `bound` holds where they do."""
    if bias:
        raise InvalidProblemError(
            f"gradient_bias = {bias!r}: the {bound} bound holds for unbiased gradients; use 'certified' or "
            "'nonconvex'"
        )
    if participants is not None:
        raise InvalidProblemError(
            f"participants = {participants}: the {bound} bound holds where every device takes part in every "
            "round; use 'certified' or 'nonconvex'"
        )

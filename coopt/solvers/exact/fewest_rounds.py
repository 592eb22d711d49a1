"""The fewest rounds that reach a value, where more of them change nothing.

The bound falls with K until q^(K tau) is lost in the digits of its floor. From there on the last digits of
the value go up and down with K: halving the range of K finds where they begin to, and the rounds from there
on are tried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import MonotoneForm, inverse_batches, weighted
from coopt.solvers.contract import Incumbent
from coopt.solvers.roundoff import LAST_DIGITS

Floats = NDArray[np.float64]

# So many K are tried; on a wider plateau, evenly spread ones.
PLATEAU = 2**16


def fewest_rounds(form: MonotoneForm, best: Incumbent, first: int) -> int:
    """The smallest K, of those from `first` on, at which the plan has the same value or a smaller one.

    Parameters
    ----------
    form : MonotoneForm
    best : Incumbent
        The plan; its bound is a member of the form.
    first : int
        The smallest K to consider.
    """
    member = np.array([form.members.index(best.bound)])
    floor = form.floor(best.local_steps, member)
    inverse = inverse_batches(best.batch_sizes.astype(np.float64), form.population)
    level = floor.offsets + weighted(floor.shares, np.array([float(each @ inverse) for each in floor.basis]))

    def values(rounds: Floats) -> Floats:
        start, slope = form.progress(rounds * best.local_steps, member)
        total: Floats = start[0] + slope[0] * level
        return total

    about = best.value + LAST_DIGITS * abs(best.value)
    begin, end = first, best.rounds
    # Mostly one round fewer already tells.
    middle = end - 1
    while begin < end:
        if values(np.array([float(middle)]))[0] <= about:
            end = middle
        else:
            begin = middle + 1
        middle = (begin + end) // 2
    if end == best.rounds:
        return end
    tried = np.unique(np.linspace(end, best.rounds, min(best.rounds - end + 1, PLATEAU)).round())
    reached = np.flatnonzero(values(tried) <= best.value)
    return int(tried[reached[0]]) if len(reached) else best.rounds

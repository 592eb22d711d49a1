"""Sums that describe how far devices drift apart, for several q at several numbers of local steps."""

from __future__ import annotations

from coopt.compiled.data import Floats, Ints, exact
from coopt.drift import sums_of

sums = exact(sums_of)


@exact
def fill(
    log_q: Floats, log_r: float, local_steps: Ints, scales: Floats, noise_scales: Floats, found: Floats
) -> None:
    """What :func:`coopt.drift.sums_on_grid` returns."""
    for i in range(local_steps.size):
        for j in range(log_q.size):
            at = sums(log_q[j], log_r, local_steps[i], scales[i, j], noise_scales[i, j])
            found[0, i, j], found[1, i, j], found[2, i, j] = at

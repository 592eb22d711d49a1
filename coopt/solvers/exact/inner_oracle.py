"""Rows and whole batches from any inner problem at one (K, tau)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import MonotoneForm
from coopt.problem.problem import Problem
from coopt.solvers import fleet_passes as passes
from coopt.solvers.contract import Inner
from coopt.solvers.exact.oracle import Oracle, Row, WholeBatches, mix

Floats = NDArray[np.float64]


class InnerOracle(Oracle):
    """What an inner problem proves in one direction, for all plans with as many rounds and steps as a corner.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    inner : Inner
        That of the search, which goes on from the mixtures of limits that are found here.
    corner : tuple of (rounds, local_steps)
    """

    def __init__(self, problem: Problem, form: MonotoneForm, inner: Inner, corner: tuple[int, int]) -> None:
        super().__init__(problem, form)
        self._inner, self._corner = inner, corner
        # A direction fixes the weights, whatever the number of local steps.
        self._floor = form.floor(1, np.zeros(1, dtype=np.intp))

    def row(self, rounds: int, local_steps: int, angle: float) -> Row:
        """A row from the continuous optimum at (K, tau)."""
        self.solves += 1
        cut, _ = self._inner.cut(self._floor, rounds, local_steps, np.array([angle]), self._corner)
        return Row.of(angle, float(cut.constant[0]), float(cut.slope[0]), float(cut.rise[0]))

    def whole(self, rounds: int, local_steps: int, angle: float, cutoff: float | None = None) -> WholeBatches:
        """Whole batches at (K, tau); with a cutoff, the best ones as far as the inner problem can close."""
        self.solves += 1
        found = self._inner.exact(self._floor, rounds, local_steps, angle, cutoff=cutoff)
        noise = np.array(passes.noise(self.devices, found.batch_sizes)[: self.terms]) / self.scales
        level = min(found.lower_bound, float(mix(angle, self.terms) @ noise))
        return WholeBatches(
            found.batch_sizes, noise, level, cutoff is not None or found.lower_bound >= found.value
        )

"""How many rows and directions a budget allows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from coopt.errors import MeasurementWarning
from coopt.measuring.parts import FRESH

# A measurement is to take at most this share of the budget: what it takes is not trained with.
SHARE = 0.05
# With fewer of either, plans become much worse; see `benchmarks.forecast.effort`.
ENOUGH_ROWS, ENOUGH_DIRECTIONS, FEWEST_ROWS, FEWEST_DIRECTIONS = 4, 8, 2, 4


@dataclass(frozen=True)
class Effort:
    """Rows and directions.

    Attributes
    ----------
    rows, directions : int
    """

    rows: int
    directions: int

    def samples(self, held: Sequence[int], gradients_a_product: int) -> int:
        """Samples that all devices together process, at most: the Krylov space may end early.

        Two gradients of the rows, a product with the curvature for each direction, and gradients of single
        rows, on fresh rows too, with a product for each of the first.
        """
        each = 2 + gradients_a_product * (self.directions + 1)
        first = sum(min(self.rows, d) for d in held)
        return first * each + sum(min(self.rows * (1 + FRESH), d) for d in held)


def fitting_effort(
    wanted: Effort, held: Sequence[int], gradients_a_product: int, budget: float | None
) -> Effort:
    """Rows and directions whose samples are at most a twentieth of the budget.

    Parameters
    ----------
    wanted : Effort
        What to take where the budget allows it.
    held : sequence of int
        Samples of each measured device.
    gradients_a_product : int
        Gradients that a product with the curvature costs: one by differences, two in torch.
    budget : float, optional
        Samples that all devices together are to process in training.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     effort = fitting_effort(Effort(16, 24), [500] * 10, 1, 25_000)
    >>> effort
    Effort(rows=8, directions=8)
    >>> print(caught[0].message)
    measuring 16 rows in 24 directions takes 4,800 samples, more than a twentieth of the budget of 25,000: ...
    """
    if budget is None or wanted.samples(held, gradients_a_product) <= SHARE * budget:
        return wanted
    found = next((e for e in _fewer(wanted) if e.samples(held, gradients_a_product) <= SHARE * budget), None)
    chosen = found or _fewer(wanted)[-1]
    needed, taken = (e.samples(held, gradients_a_product) for e in (wanted, chosen))
    warnings.warn(
        f"measuring {wanted.rows} rows in {wanted.directions} directions takes {needed:,} samples, more than "
        f"a twentieth of the budget of {budget:,.0f}: measuring {chosen.rows} rows in {chosen.directions} "
        f"directions instead, {taken:,} samples"
        + (
            ""
            if found
            else f", still {taken / budget:.0%}: with so little to spend, fewer devices could be measured"
        ),
        MeasurementWarning,
        stacklevel=4,
    )
    return chosen


def _fewer(wanted: Effort) -> list[Effort]:
    """Less and less: fewer directions, then fewer rows, then as few of both as say anything.

    Each direction is an exchange with all devices too, besides its samples.
    """
    rows, directions = wanted.rows, wanted.directions
    steps = [Effort(rows, m) for m in range(directions - 1, ENOUGH_DIRECTIONS - 1, -1)]
    directions = min(directions, ENOUGH_DIRECTIONS)
    steps += [Effort(r, directions) for r in range(rows - 1, ENOUGH_ROWS - 1, -1)]
    rows = min(rows, ENOUGH_ROWS)
    steps += [Effort(rows, m) for m in range(directions - 1, FEWEST_DIRECTIONS - 1, -1)]
    directions = min(directions, FEWEST_DIRECTIONS)
    steps += [Effort(r, directions) for r in range(rows - 1, FEWEST_ROWS - 1, -1)]
    return steps or [wanted]

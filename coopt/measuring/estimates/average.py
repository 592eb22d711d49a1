"""Exponentially weighted averages that know their own standard error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.problem.saved_state import LARGEST_SAVED, consistent, numbers, same, table

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Average:
    """Bias-corrected exponential average of one quantity, or of one quantity per device.

    Attributes
    ----------
    decay : float
        Weight of the past in [0, 1): about 1 / (1 - decay) observations count.
    weight, squares : numpy.ndarray
        Sum of the weights and of their squares.
    mean, scatter : numpy.ndarray
        Weighted mean, and weighted sum of squared deviations from it.

    Notes
    -----
    Dividing by the sum of the weights corrects the bias of a start at zero. An entry that is never observed
    keeps weight 0 and mean 0. The update of `scatter` is that of West (CACM 22(9), 1979) with decaying
    weights.

    Examples
    --------
    >>> average = Average.empty(decay=0.5)
    >>> for value in (1.0, 2.0, 4.0):
    ...     average = average.add(value)
    >>> round(float(average.mean), 4)
    3.0
    """

    decay: float
    weight: Floats
    squares: Floats
    mean: Floats
    scatter: Floats

    @classmethod
    def empty(cls, decay: float, shape: tuple[int, ...] = ()) -> Self:
        """Average of nothing yet, of a scalar or of an array of quantities."""
        zero = np.zeros(shape)
        return cls(decay, zero, zero, zero, zero)

    def add(self, value: npt.ArrayLike, observed: npt.ArrayLike = True) -> Self:
        """Average with one more observation; entries that were not observed stay as they are."""
        seen = np.asarray(observed, dtype=bool)
        x = np.where(seen, value, 0.0)
        past = self.decay * self.weight
        weight = past + 1
        deviation = x - self.mean
        mean = self.mean + deviation / weight
        scatter = self.decay * self.scatter + np.where(past > 0, deviation, 0.0) ** 2 * past / weight
        squares = self.decay**2 * self.squares + 1
        return replace(
            self,
            weight=np.where(seen, weight, self.weight),
            squares=np.where(seen, squares, self.squares),
            mean=np.where(seen, mean, self.mean),
            scatter=np.where(seen, scatter, self.scatter),
        )

    def joined(self, other: Average) -> Self:
        """The averages of more devices appended."""
        names = ("weight", "squares", "mean", "scatter")
        arrays = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in names)
        return type(self)(self.decay, *arrays)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether anything was observed."""
        return np.asarray(self.weight > 0)

    @property
    def standard_error(self) -> Floats:
        """Standard error of the mean, from the scatter of the observations; infinite for fewer than two."""
        count = np.divide(
            self.weight**2, self.squares, out=np.zeros_like(self.weight), where=self.squares > 0
        )
        several = count > 1 + 1e-9
        error = np.full_like(self.weight, np.inf)
        np.divide(self.scatter, self.weight * (count - 1), out=error, where=several)
        return np.sqrt(error, out=error, where=several)

    def state_dict(self) -> dict[str, Any]:
        """Numbers and lists that `restored` turns back into the same average, bit for bit."""
        return {
            "decay": self.decay,
            **{name: getattr(self, name).tolist() for name in ("weight", "squares", "mean", "scatter")},
        }

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of an average with this decay and shape; `place` is for messages."""
        shape = self.mean.shape
        read = table(
            place,
            state,
            {
                "decay": same(self.decay),
                "weight": numbers(shape, minimum=0.0),
                "squares": numbers(shape, minimum=0.0),
                "mean": numbers(shape),
                "scatter": numbers(shape, minimum=0.0, largest=LARGEST_SAVED**2),
            },
        )
        weight, squares = read["weight"], read["squares"]
        # No more than all observations that count, and no less than one of them.
        most = (1 + ROUNDING) / (1 - self.decay)
        consistent(f"{place}.weight", weight <= most, f"at most {most:.6g} has this decay")
        consistent(
            f"{place}.squares",
            (squares <= (1 + ROUNDING) * weight**2) & ((squares > 0) == (weight > 0)),
            "a sum of squares is at most the square of the sum, and both are 0 where nothing was observed",
        )
        nothing = (weight > 0) | ((read["mean"] == 0) & (read["scatter"] == 0))
        consistent(f"{place}.mean", nothing, "mean and scatter are 0 where nothing was observed")
        return replace(self, **read)

"""One phase of a schedule: rounds that are all alike."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.phases import Setting
from coopt.problem.readable import readable
from coopt.problem.validation import (
    count,
    float_array,
    integer_array,
    numeric_array,
    real,
    same_value,
)


@readable
@dataclass(frozen=True, init=False, eq=False)
class Phase:
    """Rounds that are all alike.

    Parameters
    ----------
    rounds : int
        K >= 1.
    local_steps : int
        tau >= 1, in every round.
    batch_sizes : array_like of int, shape (N,) or scalar
        s_i >= 1 of every device.
    learning_rate : float
        eta > 0 [1 / curvature].

    Raises
    ------
    InvalidProblemError
        If a value is out of range.

    Notes
    -----
    Phases compare by value and do not hash.

    Examples
    --------
    >>> from coopt import Phase
    >>> Phase(rounds=20, local_steps=5, batch_sizes=[8, 16], learning_rate=0.1)
    Phase(rounds=20, local_steps=5, batch_sizes=[8, 16], learning_rate=0.1)
    """

    __module__ = "coopt"

    rounds: int
    local_steps: int
    batch_sizes: NDArray[np.int64]
    learning_rate: float

    def __init__(self, rounds: int, local_steps: int, batch_sizes: ArrayLike, learning_rate: float) -> None:
        given = np.atleast_1d(numeric_array("batch_sizes", batch_sizes))
        values = {
            "rounds": count("rounds", rounds),
            "local_steps": count("local_steps", local_steps),
            "batch_sizes": integer_array("batch_sizes", given, given.size, minimum=1),
            "learning_rate": real("learning_rate", learning_rate, minimum=0.0, strict=True),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    @classmethod
    def each_round(
        cls, learning_rates: ArrayLike, local_steps: int, batch_sizes: ArrayLike
    ) -> tuple[Self, ...]:
        """The phases of a plan that differs from round to round in its learning rate alone.

        Parameters
        ----------
        learning_rates : array_like, shape (K,)
            eta > 0 of every round [1 / curvature]; rounds in a row that have the same one are one phase.
        local_steps : int
        batch_sizes : array_like of int, shape (N,) or scalar

        Raises
        ------
        InvalidProblemError
            If there is no rate, or a value is out of range.

        Examples
        --------
        Two rounds of warming up, then half a cosine:

        >>> import numpy as np
        >>> from coopt import Phase
        >>> warm, cosine = np.linspace(0.1, 0.2, 2), 0.1 * (1 + np.cos(np.linspace(0, 3, 4)))
        >>> [round(phase.learning_rate, 3) for phase in Phase.each_round([*warm, *cosine], 5, 8)]
        [0.1, 0.2, 0.154, 0.058, 0.001]
        """
        given = numeric_array("learning_rates", learning_rates)
        if given.ndim != 1 or given.size == 0:
            raise InvalidProblemError(
                f"learning_rates has shape {given.shape}: must have one rate for every round"
            )
        rates = float_array("learning_rates", given, given.size, minimum=0.0, strict=True).tolist()
        return tuple(
            cls(len(list(rounds)), local_steps, batch_sizes, rate)
            for rate, rounds in itertools.groupby(rates)
        )

    @property
    def setting(self) -> Setting:
        """The phase without its batches."""
        return Setting(self.rounds, self.local_steps, self.learning_rate)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and one list; :meth:`from_dict` gives back an equal phase."""
        return {
            "rounds": self.rounds,
            "local_steps": self.local_steps,
            "batch_sizes": self.batch_sizes.tolist(),
            "learning_rate": self.learning_rate,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild a phase from :meth:`to_dict`; wrong or missing keys are InvalidProblemError."""
        try:
            return cls(**data)
        except TypeError as error:
            raise InvalidProblemError(f"not a phase: {error}") from error

"""How much each client's model counts in the average."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def aggregation_shares(weights: npt.ArrayLike, arrived: npt.ArrayLike) -> Floats:
    """Share the average among the clients whose models arrived, in proportion to their weights.

    Parameters
    ----------
    weights : array_like, shape (N,)
        Aggregation weights, or the samples that the devices hold.
    arrived : array_like of bool, shape (N,)
        Whose models are averaged.

    Returns
    -------
    numpy.ndarray, shape (N,)
        Shares that sum to one; all zero where nobody that counts has arrived, and the model should stay.

    Examples
    --------
    >>> aggregation_shares([60, 20, 20], [True, True, False])
    array([0.75, 0.25, 0.  ])
    """
    present = np.where(np.asarray(arrived, dtype=bool), np.asarray(weights, dtype=np.float64), 0.0)
    total = float(present.sum())
    return present / total if total > 0 else np.zeros_like(present)

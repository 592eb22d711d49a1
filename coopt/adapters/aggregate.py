"""How much each client's model counts in the average, also where some did fewer local steps than others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def aggregation_shares(weights: npt.ArrayLike, arrived: npt.ArrayLike) -> Floats:
    """Share the average among the clients whose models arrived, in proportion to their weights.

    Parameters
    ----------
    weights : array_like, shape (N,)
        Aggregation weights, or the samples that the devices hold, or how often each was drawn.
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


def step_factors(shares: npt.ArrayLike, steps: npt.ArrayLike, norms: npt.ArrayLike | None = None) -> Floats:
    """By how much to multiply each client's change, so that few steps count as much as many.

    The model of the next round is ``start + sum(shares * factors * (models - start))``.

    Parameters
    ----------
    shares : array_like, shape (m,)
        p_i, which sum to one over those that are averaged.
    steps : array_like, shape (m,)
        tau_i > 0: local steps that each did, or :func:`effective_steps` of the optimiser.
    norms : array_like, shape (m,), optional
        Norms of the changes, where the server did not see how many steps there were. A client that claims few
        steps then gains no more than its change is shorter than the median one.

    Returns
    -------
    numpy.ndarray, shape (m,)
        tau_eff / tau_i with tau_eff = sum p_i tau_i, and 1 everywhere where all did as many steps.

    Notes
    -----
    The change of client i is -eta tau_i times the mean of its gradients on the way. With these factors the
    sum is -eta tau_eff sum p_i (mean gradient of i), which vanishes where the gradient of sum p_i F_i does,
    up to the drift within a round, which is there at equal steps as well. Plain averaging weights client i by
    p_i tau_i, and so minimises another function. Wang et al., Tackling the objective inconsistency problem in
    heterogeneous federated optimization, NeurIPS 2020 (arXiv 2007.07481, eq. (9)).

    Examples
    --------
    >>> step_factors([0.5, 0.5], [10, 1])
    array([0.55, 5.5 ])

    The second one says 1 step, and its change is as long as that of ten: nothing is gained by it.

    >>> step_factors([0.5, 0.5], [10, 1], norms=[1.0, 1.0])
    array([0.55, 1.  ])
    """
    weight, tau = (np.asarray(value, dtype=np.float64) for value in (shares, steps))
    counted = weight > 0
    if not counted.any() or np.all(tau[counted] == tau[counted][0]):
        return np.ones_like(weight)
    factors: Floats = float(weight @ tau) / tau
    if norms is not None:
        length = np.asarray(norms, dtype=np.float64)
        usual = float(np.median(length[counted]))
        with np.errstate(divide="ignore", invalid="ignore"):
            shorter = np.where(length > 0, usual / length, 1.0)
        factors = np.minimum(factors, np.maximum(shorter, 1.0))
    return factors

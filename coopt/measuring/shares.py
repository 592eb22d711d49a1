"""Which devices are measured, and who speaks for the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.parts import Shares
from coopt.problem.validation import count, entries, numeric_array

Floats = NDArray[np.float64]

# Strata by the samples that devices hold, where none are given.
STRATA = 8


def choose_shares(
    weights: Floats,
    samples: NDArray[np.int64],
    *,
    most: int | None,
    strata: Sequence[object] | None,
    left_out: ArrayLike,
    seed: int,
) -> Shares:
    """Choose the devices to measure.

    Parameters
    ----------
    weights : numpy.ndarray, shape (N,)
    samples : numpy.ndarray of int64, shape (N,)
    most : int, optional
        Devices to measure at most. They are drawn within strata, as many of each as its weight asks for and
        one at least; every other device takes over the values of one of them, so that the differences among
        devices stay as large as they are.
    strata : sequence, optional
        A label for each device; default: eight groups by samples held.
    left_out : array_like of int
        Devices that cannot be measured: they take over the weighted mean of all others.
    seed : int

    Returns
    -------
    Shares

    Raises
    ------
    InvalidProblemError
        If no device is left to measure, or labels do not fit.

    Examples
    --------
    >>> shares = choose_shares(np.full(6, 1 / 6), np.array([9, 9, 9, 50, 50, 50]), most=2, strata=None,
    ...                        left_out=[], seed=0)
    >>> shares.fill
    array([[1., 0.],
           [1., 0.],
           [1., 0.],
           [0., 1.],
           [0., 1.],
           [0., 1.]])
    """
    devices = len(weights)
    out = _left_out(left_out, devices)
    if strata is not None:
        strata = entries("strata", strata)
    if strata is not None and len(strata) != devices:
        raise InvalidProblemError(f"strata has {len(strata)} labels: must have {devices}, one a device")
    usable = np.flatnonzero(~out)
    if most is not None and count("devices", most) < len(usable):
        labels = _labels(samples, most) if strata is None else _numbered(strata)
        donors = _donors(weights, labels, usable, most, np.random.default_rng(seed))
    else:
        donors = np.arange(devices)
    measured = np.unique(donors[usable])
    fill = np.zeros((devices, len(measured)))
    fill[usable, np.searchsorted(measured, donors[usable])] = 1.0
    counts = weights[usable] @ fill[usable]
    if not counts.sum() > 0.0:
        raise InvalidProblemError("left_out leaves no device of positive weight to measure")
    fill[out] = counts / counts.sum()
    return Shares(measured, fill, weights)


def _left_out(left_out: ArrayLike, devices: int) -> NDArray[np.bool_]:
    indices = numeric_array("left_out", left_out)
    out = np.zeros(devices, dtype=bool)
    if indices.size == 0:
        return out
    if (
        indices.ndim != 1
        or indices.dtype.kind not in "iu"
        or not ((indices >= 0) & (indices < devices)).all()
    ):
        raise InvalidProblemError(f"left_out = {left_out!r}: must be indices of devices, 0 to {devices - 1}")
    out[indices] = True
    return out


def _labels(samples: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Groups of about as many devices each, by the samples that they hold."""
    groups = min(STRATA, most)
    edges = np.quantile(samples, np.linspace(0.0, 1.0, groups + 1)[1:-1])
    labels: NDArray[np.int64] = np.searchsorted(edges, samples, side="right").astype(np.int64)
    return labels


def _numbered(strata: Sequence[object]) -> NDArray[np.int64]:
    first: dict[object, int] = {}
    try:
        return np.array([first.setdefault(label, len(first)) for label in strata], dtype=np.int64)
    except TypeError as error:
        raise InvalidProblemError(f"strata holds what is no label: {error}; give texts or numbers") from error


def _donors(
    weights: Floats,
    labels: NDArray[np.int64],
    usable: NDArray[np.intp],
    most: int,
    generator: np.random.Generator,
) -> NDArray[np.intp]:
    """For each device the one whose values it takes."""
    groups = [usable[labels[usable] == label] for label in np.unique(labels[usable])]
    if len(groups) > most:
        raise InvalidProblemError(
            f"devices = {most}: must be at least the {len(groups)} strata, so that each has one measured"
        )
    seats = _seats(np.array([weights[g].sum() for g in groups]), np.array([len(g) for g in groups]), most)
    donors = np.arange(len(weights))
    for group, seat in zip(groups, seats, strict=True):
        mixed = generator.permutation(group)
        chosen = mixed[:seat]
        # In turn, so that each speaks for as many as any other.
        donors[mixed[seat:]] = chosen[np.arange(len(mixed) - seat) % seat]
    return donors


def _seats(weights: Floats, sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """How many of each group: one, then always where the weight for each is largest."""
    seats = np.ones(len(sizes), dtype=np.int64)
    for _ in range(most - len(sizes)):
        load = np.where(seats < sizes, weights / seats, -1.0)
        seats[int(load.argmax())] += 1
    return seats

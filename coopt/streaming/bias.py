"""What a bounded buffer does to the gradient: inclusion probabilities, bias, variance, the buffer to use.

Everything here is exact for the buffers of :mod:`coopt.streaming.buffers`, except where a docstring says
"heuristic".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem.validation import choice, count, real

Floats = npt.NDArray[np.float64]
Sampler = Literal["reservoir", "random", "fifo"]
SAMPLERS: tuple[Sampler, ...] = ("reservoir", "random", "fifo")


def _check(sampler: str, capacity: int, arrivals: int) -> None:
    choice("sampler", sampler, SAMPLERS)
    count("capacity", capacity)
    count("arrivals", arrivals)


def inclusion_probability(sampler: Sampler, capacity: int, arrivals: int) -> Floats:
    """Probability that each arrival is in the buffer after `arrivals` of them.

    Parameters
    ----------
    sampler : {"reservoir", "random", "fifo"}
        The kind of buffer.
    capacity : int
        Items that the buffer holds, B.
    arrivals : int
        Items that have arrived, n.

    Returns
    -------
    numpy.ndarray, shape (arrivals,)
        B/n for the reservoir; (1 - 1/B)^(n - i) for random replacement, the first B arrivals alike; 1 for the
        latest B and 0 before them for first-in first-out. Sums to min(B, n).

    Examples
    --------
    >>> inclusion_probability("random", 2, 4)
    array([0.25, 0.25, 0.5 , 1.  ])
    """
    _check(sampler, capacity, arrivals)
    if arrivals <= capacity:
        return np.ones(arrivals)
    index = np.arange(1, arrivals + 1)
    if sampler == "reservoir":
        return np.full(arrivals, capacity / arrivals)
    if sampler == "fifo":
        return (index > arrivals - capacity).astype(np.float64)
    return np.asarray((1 - 1 / capacity) ** (arrivals - np.maximum(index, capacity)), dtype=np.float64)


def total_variation(sampler: Sampler, capacity: int, arrivals: int) -> float:
    """Total variation distance between what the buffer holds on average and everything that arrived.

    Parameters
    ----------
    sampler : {"reservoir", "random", "fifo"}
        The kind of buffer.
    capacity : int
        Items that the buffer holds, B.
    arrivals : int
        Items that have arrived, n.

    Returns
    -------
    float
        0 for the reservoir; 1 - B/n for first-in first-out; 1 - a^m - m/n with a = 1 - 1/B and
        m = ceil(ln(n/B) / -ln a) for random replacement, which tends to 1 - (1 + ln x)/x for x = n/B.

    Examples
    --------
    >>> [round(total_variation(sampler, 100, 400), 3) for sampler in ("reservoir", "random", "fifo")]
    [0.0, 0.405, 0.75]
    """
    _check(sampler, capacity, arrivals)
    if sampler == "reservoir" or arrivals <= capacity:
        return 0.0
    if sampler == "fifo" or capacity == 1:
        return 1 - capacity / arrivals
    decay = -math.log1p(-1 / capacity)
    favoured = math.ceil(math.log(arrivals / capacity) / decay)
    return -math.expm1(-decay * favoured) - favoured / arrivals


def group_total_variation(inclusion: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Total variation distance between the group mix of the buffer, on average, and that of the stream.

    Parameters
    ----------
    inclusion : array_like, shape (n,)
        Inclusion probability of every arrival.
    groups : array_like, shape (n,)
        Group (class) of every arrival.

    Returns
    -------
    float
        At most the distance over single arrivals; 0 when every group is represented as it arrived.

    Examples
    --------
    >>> group_total_variation(inclusion_probability("fifo", 2, 4), ["a", "b", "a", "b"])
    0.0
    >>> group_total_variation(inclusion_probability("fifo", 2, 4), ["a", "a", "b", "b"])
    0.5
    """
    share = np.asarray(inclusion, dtype=np.float64)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    held = np.bincount(member, weights=share) / share.sum()
    arrived = np.bincount(member) / len(share)
    return float(0.5 * np.abs(held - arrived).sum())


def variance_factor(sampler: Sampler, turnover: float) -> float:
    """How much of a buffer's own sampling variance reaches the model, for a stream without order.

    Parameters
    ----------
    sampler : {"reservoir", "random", "fifo"}
        The kind of buffer.
    turnover : float
        y = eta c B / lambda: learning rate times Polyak-Lojasiewicz constant, times the local steps that it
        takes to turn the buffer over once (lambda arrivals per step). Infinite when nothing arrives.

    Returns
    -------
    float
        1 - (1 - exp(-y))/y for first-in first-out, y/(1 + y) for random replacement, 1 for the reservoir,
        which hardly changes any more.

    Notes
    -----
    A heuristic: the linear response of the model to a stationary disturbance with the autocorrelation of
    the buffer.

    Examples
    --------
    >>> [round(variance_factor(sampler, 1.0), 4) for sampler in ("reservoir", "random", "fifo")]
    [1.0, 0.5, 0.3679]
    """
    _check(sampler, 1, 1)
    turnover = real("turnover", turnover, minimum=0.0, infinite=True)
    if sampler == "reservoir" or math.isinf(turnover):
        return 1.0
    if sampler == "random":
        return turnover / (1 + turnover)
    if turnover < 1e-4:  # the closed form cancels: two terms of its series are exact to 1e-12 here
        return turnover / 2 - turnover**2 / 6 + turnover**3 / 24
    return 1 + math.expm1(-turnover) / turnover


@dataclass(frozen=True)
class SamplerAdvice:
    """Which buffer to use, and the squared gradient errors that say so.

    Attributes
    ----------
    sampler : {"reservoir", "random", "fifo"}
        The kind of buffer with the smallest error; the reservoir on a tie.
    squared_error : dict
        Squared bias plus effective variance of the gradient, gradient^2, by kind of buffer.
    """

    sampler: Sampler
    squared_error: dict[str, float]


def recommend_sampler(
    *,
    gradient_diameter: float,
    distances: dict[Sampler, float],
    sample_variance: float,
    capacity: int,
    turnover: float,
) -> SamplerAdvice:
    """Choose the buffer: a reservoir against bias, the others against the noise of a sample kept forever.

    Parameters
    ----------
    gradient_diameter : float
        G, diameter of the per-sample gradients; with distances between class mixes, of the class means.
    distances : dict
        Total variation distance of each kind of buffer to choose from, by its name, for example from
        `total_variation` or `group_total_variation`.
    sample_variance : float
        S^2, trace of the covariance of per-sample gradients, gradient^2.
    capacity : int
        Items that the buffer holds, B.
    turnover : float
        eta c B / lambda, see `variance_factor`.

    Returns
    -------
    SamplerAdvice
        The reservoir wins against another buffer exactly if
        G^2 TV^2 > (S^2/B) (phi_reservoir - phi_other), phi the variance factors. A heuristic: the model
        depends on the buffer, so the variance term is no bound.

    Examples
    --------
    One class after the other: only a reservoir remembers them all.

    >>> advice = recommend_sampler(
    ...     gradient_diameter=2.0, distances={"reservoir": 0.0, "random": 0.4, "fifo": 0.75},
    ...     sample_variance=4.0, capacity=100, turnover=0.5)
    >>> advice.sampler
    'reservoir'

    No order at all: a buffer that is renewed averages its own noise away.

    >>> recommend_sampler(
    ...     gradient_diameter=2.0, distances={"reservoir": 0.0, "random": 0.0, "fifo": 0.0},
    ...     sample_variance=4.0, capacity=100, turnover=0.5).sampler
    'fifo'
    """
    gradient_diameter = real("gradient_diameter", gradient_diameter, minimum=0.0)
    sample_variance = real("sample_variance", sample_variance, minimum=0.0)
    if not distances:
        raise InvalidProblemError("distances is empty: give the distance of at least one kind of buffer")
    squared: dict[str, float] = {}
    for sampler, distance in distances.items():
        _check(sampler, capacity, 1)
        if not 0 <= distance <= 1:
            raise InvalidProblemError(
                f"distances[{sampler!r}] = {distance!r} is invalid: give a number in [0, 1]"
            )
        variance = sample_variance / capacity * variance_factor(sampler, turnover)
        bias = gradient_diameter * distance
        squared[sampler] = bias * bias + variance
    ordered = [sampler for sampler in SAMPLERS if sampler in squared]
    best = min(ordered, key=lambda sampler: squared[sampler])
    return SamplerAdvice(best, squared)


def gradient_error(
    *,
    weights: npt.ArrayLike,
    target_weights: npt.ArrayLike,
    gradient_diameter: npt.ArrayLike,
    distance: npt.ArrayLike,
    divergence: npt.ArrayLike,
    sample_variance: npt.ArrayLike,
    capacity: npt.ArrayLike,
) -> float:
    """Size of the error that buffers and shifting weights add to the averaged gradient.

    Parameters
    ----------
    weights, target_weights : array_like, shape (N,)
        Aggregation weights used now, p_i(k), and those of the objective, p_i.
    gradient_diameter : array_like, shape (N,)
        G_i, diameter of the per-sample gradients on each device.
    distance : array_like, shape (N,)
        Total variation distance between each buffer and its stream.
    divergence : array_like, shape (N,)
        delta_i, distance between each device's gradient and the global one.
    sample_variance : array_like, shape (N,)
        S_i^2, trace of the covariance of per-sample gradients, gradient^2.
    capacity : array_like, shape (N,)
        Samples in each buffer, B_i.

    Returns
    -------
    float
        eps with eps^2 = (sum p_i(k) G_i TV_i + sum abs(p_i(k) - p_i) delta_i)^2 + sum p_i(k)^2 S_i^2 / B_i,
        in units of the gradient. The first part bounds the bias; the last is a heuristic, since the model
        depends on the buffer.

    Examples
    --------
    >>> gradient_error(weights=[0.5, 0.5], target_weights=[0.5, 0.5], gradient_diameter=2.0,
    ...                distance=[0.0, 0.5], divergence=1.0, sample_variance=0.0, capacity=10)
    0.5
    """
    now, target = np.asarray(weights, dtype=np.float64), np.asarray(target_weights, dtype=np.float64)
    mixing = float(np.sum(now * np.asarray(gradient_diameter) * np.asarray(distance)))
    shift = float(np.sum(np.abs(now - target) * np.asarray(divergence)))
    sampling = float(np.sum(now**2 * np.asarray(sample_variance) / np.asarray(capacity)))
    return math.sqrt((mixing + shift) ** 2 + sampling)

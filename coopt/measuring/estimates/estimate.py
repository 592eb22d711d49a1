"""Estimate the constants of a running training from client reports: pure functions (state, reports) -> state.

Every estimator subtracts what mini-batch noise adds. Two independent halves of a batch share the gradient and
nothing else, so the inner product of their gradients has the squared gradient as its mean, and half the
squared difference is the noise (as in McCandlish et al. 2018, arXiv 1812.06162, eq. (A.2), with the same
batch twice).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.trend import Trend
from coopt.measuring.ignored import Ignored
from coopt.measuring.observations import Observations
from coopt.measuring.report import ClientReport
from coopt.measuring.robust import reach
from coopt.measuring.screening import SMALLEST, remember, screen
from coopt.problem.limits import parts

Floats = npt.NDArray[np.float64]

SIGNAL = 3.0  # squared gradient over the noise in it, from which a point counts for that relation
# Rounds from the start in which the squared gradient may fall to this share of its average at once.
EARLY, COLLAPSE = 10, 0.5
# Factor over the median by which the data of a device may grow in any case.
MOST_GROWTH = 2.0


def update(
    state: Estimates,
    reports: Iterable[ClientReport],
    *,
    round: int,
    local_steps: int = 1,
    replacement: bool = True,
    streaming: bool = False,
) -> tuple[Estimates, list[Ignored]]:
    """Take in the reports of one round.

    Parameters
    ----------
    state : Estimates
        What was known before.
    reports : iterable of ClientReport
        What arrived; may be empty, late, incomplete or wrong.
    round : int
        Round that just ended.
    local_steps : int, default 1
        Local steps of that round, tau.
    replacement : bool, default True
        Whether mini-batches are drawn with replacement.
    streaming : bool, default False
        Whether reported numbers of samples are taken over, because devices receive data while training.

    Returns
    -------
    state : Estimates
        What is known now.
    ignored : list of Ignored
        What was not believed, and why.

    Examples
    --------
    >>> from coopt.measuring.report import ClientReport, HalfBatches
    >>> report = ClientReport(client=0, round=0, samples=9, local_steps=1, batch_size=4,
    ...                       samples_processed=4, loss=float("nan"), seconds_computing=2.0,
    ...                       halves=HalfBatches(2, 2, 1.0, 0.25))
    >>> state, ignored = update(Estimates.empty([9, 9]), [report], round=0)
    >>> state.noise.mean, [str(line) for line in ignored]
    (array([1., 0.]), ['client 0: ignored loss = nan: not a possible value'])
    """
    seen, ignored = screen(reports, devices=len(state.samples), round=round, memory=state.memory)
    state = absorb(state, seen, local_steps=local_steps, replacement=replacement, streaming=streaming)
    return state, ignored


def absorb(
    state: Estimates,
    seen: Observations,
    *,
    local_steps: int,
    replacement: bool,
    streaming: bool,
    step_cost: npt.ArrayLike = 0.0,
    micro_batch: npt.NDArray[np.int64] | None = None,
    weight: Floats | None = None,
) -> Estimates:
    """Take in what is believed of the reports of one round; see `update`.

    `step_cost` is what a local step costs on each device whatever its batch, `micro_batch` the most samples
    that it takes at once, and `weight` what each client that reported counts in averages, by default the
    samples that it holds.
    """
    if streaming:
        reported = np.isfinite(seen["samples"])
        samples = state.samples.copy()
        samples[seen.client[reported]] = seen["samples"][reported].astype(np.int64)
        state = replace(state, samples=_held_growth(samples, state.given))
    if weight is None:
        weight = state.samples[seen.client].astype(np.float64)
    step_costs = np.broadcast_to(np.asarray(step_cost), state.samples.shape)
    state = _update_devices(state, seen, step_costs, micro_batch)
    state = _update_gradients(state, seen, weight, replacement)
    state = _update_pairs(state, seen, weight)
    return replace(state, steps=state.steps + local_steps, memory=remember(state.memory, seen))


def _held_growth(samples: npt.NDArray[np.int64], given: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Hold by how much devices say that their data grew: it is their weight in all averages."""
    growth = np.log(samples / np.maximum(given, 1))
    far = max(reach(growth), math.log(MOST_GROWTH))
    if not math.isfinite(far):
        return samples
    most = np.exp(np.median(growth) + far) * np.maximum(given, 1)
    held: npt.NDArray[np.int64] = np.minimum(samples, np.maximum(most, 1.0).astype(np.int64))
    return held


def gradients_evaluated(
    local_steps: npt.NDArray[np.floating | np.integer] | int,
    batch_sizes: npt.NDArray[np.floating | np.integer],
    halves: npt.NDArray[np.bool_],
    extra: npt.NDArray[np.bool_],
    micro_batch: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Give how many gradients clients evaluate in a round, shape (m,).

    Parameters
    ----------
    local_steps, batch_sizes : numpy.ndarray, shape (m,)
        tau and s_i.
    halves : numpy.ndarray of bool, shape (m,)
        Whose first batch comes in two parts, from which its noise is measured.
    extra : numpy.ndarray of bool, shape (m,)
        Who evaluates two batches of a quarter more, which shows curvature.
    micro_batch : numpy.ndarray of int64, shape (m,), optional
        Most samples at once: larger batches are taken in parts.
    """

    def taken(sizes: npt.NDArray[np.floating | np.integer]) -> Floats:
        return np.ones(sizes.shape) if micro_batch is None else parts(micro_batch, sizes)

    half = batch_sizes // 2
    first = np.where(halves, taken(half) + taken(batch_sizes - half), taken(batch_sizes))
    pair = np.where(extra, 2.0 * taken(np.maximum(batch_sizes // 4, 1)), 0.0)
    return np.asarray((local_steps - 1) * taken(batch_sizes) + first + pair)


def _update_devices(
    state: Estimates, seen: Observations, step_cost: Floats, micro_batch: npt.NDArray[np.int64] | None
) -> Estimates:
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = {
            "noise": seen.noise,
            "round_seconds": seen["seconds_communicating"],
            "sample_cost": np.maximum(seen["cost"] - step_cost[seen.client] * seen["local_steps"], 0.0)
            / seen["samples_processed"],
        }
    new: dict[str, Any] = {}
    for name, values in measured.items():
        known = np.isfinite(values)
        full, where = np.zeros(len(state.samples)), np.zeros(len(state.samples), dtype=bool)
        # Below the smallest that makes sense in any unit, only quotients could still overflow.
        full[seen.client[known]] = np.where(values[known] < SMALLEST, 0.0, values[known])
        where[seen.client[known]] = True
        new[name] = getattr(state, name).add(full, where)
    planned = seen["local_steps"] * seen["batch_size"]
    gradients = gradients_evaluated(
        seen["local_steps"],
        seen["batch_size"],
        np.isfinite(seen["halves_first"]),
        seen["samples_processed"] > planned,
        None if micro_batch is None else micro_batch[seen.client],
    )
    new["timing"] = state.timing.add_of(
        seen.client, seen["seconds_computing"], gradients, seen["samples_processed"]
    )
    noise = measured["noise"]
    known = np.isfinite(noise)
    if known.any():
        new["fleet_noise"] = state.fleet_noise.add(float(np.mean(noise[known])))
    return replace(state, **new)


def _update_gradients(state: Estimates, seen: Observations, weight: Floats, replacement: bool) -> Estimates:
    loss, gradient, level = math.nan, math.nan, 0.0
    new: dict[str, Any] = {}
    rows = np.isfinite(seen["loss"])
    if rows.any():
        loss = float(_shares(weight, rows)[rows] @ seen["loss"][rows])
    rows = np.isfinite(seen["halves_product"]) & np.isfinite(seen["gradient"])
    if rows.any():
        p = _shares(weight, rows)
        variance = _batch_variance(seen, state.samples[seen.client], replacement)
        mean = _combine(p, seen.vectors["gradient"])
        square = float(mean @ mean)
        partial = _partial_noise(state, seen, p, mean, variance)
        level = float(np.sum(p[rows] ** 2 * variance[rows])) + partial
        gradient = square - level
        new["partial"] = state.partial.add(partial)
        # Whoever reported has trained, even if the report is not believed; only the others are missing from
        # the model.
        held = state.samples[seen.client]
        untold = 1 - float(held[rows].sum() / state.samples.sum())
        silent = 1 - float(held.sum() / state.samples.sum())
        new["participation"] = state.participation.add(partial * silent / untold if partial > 0 else 0.0)
        state = _forget_collapse(state, gradient, level)
        new["gradient"] = state.gradient.add(gradient)
        if rows.sum() > 1:
            raw = float(np.sum(p[rows] * seen["gradient"][rows])) - square
            noise = float(np.sum(p[rows] * (1 - p[rows]) * variance[rows]))
            new["divergence"] = state.divergence.add(raw - noise)
    if math.isfinite(loss):
        new["loss"] = state.loss.add(loss)
    if gradient > SIGNAL * level:
        new["decay"] = state.decay.add(float(state.steps), math.log(gradient))
    if math.isfinite(loss) and gradient > SIGNAL * level:
        # The variance of a squared gradient grows with it: 4 ||grad F||^2 times the noise, and the noise
        # squared.
        new["line"] = state.line.add(loss, gradient, 1 / max(gradient, level))
    return replace(state, **new)


def _forget_collapse(state: Estimates, gradient: float, level: float) -> Estimates:
    """Start the trends anew where the steep directions converge at once: an average would be late."""
    before = float(state.gradient.averages[-1].mean)
    uncertain = math.sqrt(4 * max(before, 0.0) * level + 2 * level**2)
    if not 0 < state.gradient.count < EARLY or gradient > COLLAPSE * before - 2 * uncertain:
        return state
    return replace(state, loss=Trend.empty(), gradient=Trend.empty())


def _partial_noise(state: Estimates, seen: Observations, p: Floats, mean: Floats, variance: Floats) -> float:
    """Estimate what missing devices add to the squared gradient, as if they were missing at random.

    The variance of a weighted mean over a part of a finite population, from the spread within that part.
    """
    rows = p > 0
    count = int(rows.sum())
    missing = 1 - float(state.samples[seen.client[rows]].sum() / state.samples.sum())
    if count < 2 or missing <= 0:
        return 0.0
    q, v = p[rows] ** 2, variance[rows]
    spread = float(q @ seen["gradient"][rows] + q.sum() * (mean @ mean)) - 2 * float(
        mean @ _combine(p**2, seen.vectors["gradient"])
    )
    noise = float(q @ (v * (1 - 2 * p[rows]))) + float(q.sum() * (q @ v))
    return missing * count / (count - 1) * max(spread - noise, 0.0)


def _update_pairs(state: Estimates, seen: Observations, weight: Floats) -> Estimates:
    new: dict[str, Any] = {}
    rows = np.isfinite(seen["pair_step"])
    if rows.any():
        p = _shares(weight, rows)[rows]
        new["pair_change"] = state.pair_change.add(float(p @ seen["pair_product"][rows]))
        new["pair_slope"] = state.pair_slope.add(float(p @ seen["pair_slope"][rows]))
        new["pair_step"] = state.pair_step.add(float(p @ seen["pair_step"][rows]))
    rows &= np.isfinite(seen["change"])
    if rows.sum() > 1:
        p = _shares(weight, rows)
        mean = _combine(p, seen.vectors["change"])
        # The mean of two equal batches has a quarter of the variance that their difference shows.
        noise = float(np.sum(p[rows] ** 2 * seen["pair_difference"][rows])) / 4
        new["coupling_change"] = state.coupling_change.add(float(mean @ mean) - noise)
        new["coupling_step"] = state.coupling_step.add(float(p[rows] @ seen["pair_step"][rows]))
    return replace(state, **new)


def _shares(weight: Floats, rows: npt.NDArray[np.bool_]) -> Floats:
    chosen = np.where(rows, weight, 0.0)
    return np.asarray(chosen / chosen.sum())


def _combine(shares: Floats, vectors: list[Floats | None]) -> Floats:
    total: Floats | None = None
    for share, vector in zip(shares.tolist(), vectors, strict=True):
        if share and vector is not None:
            total = share * vector if total is None else total + share * vector
    return np.zeros(0) if total is None else total


def _batch_variance(seen: Observations, samples: npt.NDArray[np.int64], replacement: bool) -> Floats:
    """Variance of each client's mini-batch gradient, from its own two halves."""
    first, second = seen["halves_first"], seen["halves_second"]
    return seen.noise * (1 / (first + second) - (0.0 if replacement else 1 / samples))

"""Estimate the constants of a running training from client reports: pure functions (state, reports) -> state.

Every estimator subtracts what mini-batch noise adds. Two independent halves of a batch share the gradient and
nothing else, so the inner product of their gradients has the squared gradient as its mean, and half the
squared difference is the noise (as in McCandlish et al. 2018, arXiv 1812.06162, eq. (A.2), with the same
batch twice).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.average import Average
from coopt.measuring.estimates.regression import FadingLine
from coopt.measuring.estimates.step_timing import StepTiming
from coopt.measuring.estimates.trend import Estimate, Trend
from coopt.measuring.ignored import Ignored
from coopt.measuring.report import ClientReport
from coopt.measuring.screening import (
    SMALLEST,
    Memory,
    Observations,
    remember,
    restored_memory,
    screen,
)
from coopt.problem.limits import parts
from coopt.problem.saved_state import Reader, consistent, table, whole, wholes

Floats = npt.NDArray[np.float64]

DEVICE_DECAY = 0.9  # gradient noise changes with the model, but slowly: some 10 reports
FLEET_DECAY = 0.85  # some 7 rounds
PAIR_DECAY = 0.5  # curvature depends on the model, and pairs are rare but precise: 2 of them
SPEED_DECAY = 0.5  # links jump: 2 reports
SIGNAL = 3.0  # squared gradient over the noise in it, from which a point counts for that relation
# Rounds from the start in which the squared gradient may fall to this share of its average at once.
EARLY, COLLAPSE = 10, 0.5
LINE_DECAY = 0.9  # the relation of loss and gradient needs a range of losses: some 10 rounds


@dataclass(frozen=True, eq=False)
class Estimates:
    """What is known so far; frozen, `update` returns a new one.

    Attributes
    ----------
    samples : numpy.ndarray, shape (N,)
        Samples that each device holds, d_i.
    noise : Average, shape (N,)
        Gradient noise M_i of each device, gradient^2 * samples.
    timing : StepTiming
        Seconds per step and per sample of each device.
    round_seconds, sample_cost : Average, shape (N,)
        Seconds of communication per round, cost per sample.
    fleet_noise : Average
        Mean M_i over the devices that reported, for those that never did.
    loss : Trend
        Global loss F.
    gradient : Trend
        Squared norm of the global gradient.
    partial : Average
        What missing devices add to it, already subtracted.
    participation : Average
        The same, of devices that did not take part at all: noise of the averaged gradient, gradient^2.
    divergence : Trend
        Squared gradient divergence, d_h^2 = sum p_i ||grad F_i - grad F||^2.
    pair_change, pair_slope, pair_step : Average
        Same-batch pairs: squared gradient change, its product with the step, squared step.
    coupling_change, coupling_step : Average
        Squared change of the averaged gradient by drift, weighted squared drift.
    line : FadingLine
        Squared gradient norm over loss, round by round.
    decay : FadingLine
        Logarithm of the squared gradient norm over the local steps taken so far.
    steps : int
        Local steps taken so far.
    memory : dict
        Values believed last, see `coopt.measuring.screening.remember`.
    """

    samples: npt.NDArray[np.int64]
    noise: Average
    timing: StepTiming
    round_seconds: Average
    sample_cost: Average
    fleet_noise: Average
    loss: Trend
    gradient: Trend
    partial: Average
    participation: Average
    divergence: Trend
    pair_change: Average
    pair_slope: Average
    pair_step: Average
    coupling_change: Average
    coupling_step: Average
    line: FadingLine
    decay: FadingLine
    steps: int
    memory: Memory

    @classmethod
    def empty(cls, samples: npt.ArrayLike, step_worth: npt.ArrayLike = 0.0) -> Self:
        """Know nothing but how many samples each device holds.

        And, where it is known, how many of them take as long as the fixed part of a step does.
        """
        held = np.array(samples, dtype=np.int64)
        parts: dict[str, Any] = {
            field.name: _empty(field.name, len(held)) for field in fields(cls) if field.name not in _OTHERS
        }
        return cls(
            samples=held,
            line=FadingLine(LINE_DECAY),
            decay=FadingLine(LINE_DECAY),
            steps=0,
            memory={},
            timing=StepTiming.empty(np.broadcast_to(np.asarray(step_worth, dtype=np.float64), held.shape)),
            **parts,
        )

    def state_dict(self) -> dict[str, Any]:
        """Numbers, lists and dictionaries that `restored` turns back into the same state, bit for bit."""
        state: dict[str, Any] = {"samples": self.samples.tolist(), "steps": self.steps, "memory": self.memory}
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in state}
        return state | {name: part.state_dict() for name, part in parts.items()}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of as many devices; `place` is for messages."""
        readers: dict[str, Reader[Any]] = {
            "samples": wholes(self.samples.shape, minimum=1),
            "steps": whole(),
            "memory": restored_memory,
        }
        # Every other part restores itself.
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        readers |= {name: part.restored for name, part in parts.items() if name not in readers}
        read = table(place, state, readers)
        for name in _NOT_NEGATIVE:
            consistent(f"{place}.{name}.mean", read[name].mean >= 0, "what it averages is not negative")
        return replace(self, **read)


_OTHERS = ("samples", "timing", "line", "decay", "steps", "memory")
_TRENDS = ("loss", "gradient", "divergence")
_NOT_NEGATIVE = ("noise", "round_seconds", "sample_cost", "fleet_noise", "pair_step", "coupling_step")
_PER_DEVICE = {
    "noise": DEVICE_DECAY,
    "round_seconds": SPEED_DECAY,
    "sample_cost": DEVICE_DECAY,
}


def _empty(name: str, devices: int) -> Average | Trend:
    if name in _TRENDS:
        return Trend.empty()
    if name in _PER_DEVICE:
        return Average.empty(_PER_DEVICE[name], (devices,))
    return Average.empty(FLEET_DECAY if name in ("fleet_noise", "partial", "participation") else PAIR_DECAY)


def update(
    state: Estimates,
    reports: Iterable[ClientReport],
    *,
    round: int,  # noqa: A002
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
    (array([1., 0.]), ['client 0: ignored loss: not a possible value'])
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
) -> Estimates:
    """Take in what is believed of the reports of one round; see `update`.

    `step_cost` is what a local step costs on each device whatever its batch, `micro_batch` the most samples
    that it takes at once.
    """
    if streaming:
        reported = np.isfinite(seen["samples"])
        samples = state.samples.copy()
        samples[seen.client[reported]] = seen["samples"][reported].astype(np.int64)
        state = replace(state, samples=samples)
    weight = state.samples[seen.client].astype(np.float64)
    step_costs = np.broadcast_to(np.asarray(step_cost), state.samples.shape)
    state = _update_devices(state, seen, step_costs, micro_batch)
    state = _update_gradients(state, seen, weight, replacement)
    state = _update_pairs(state, seen, weight)
    return replace(state, steps=state.steps + local_steps, memory=remember(state.memory, seen))


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
            "noise": seen["halves_difference"] / (1 / seen["halves_first"] + 1 / seen["halves_second"]),
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
        untold = 1 - float(weight[rows].sum() / state.samples.sum())
        silent = 1 - float(weight.sum() / state.samples.sum())
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
    noise = seen["halves_difference"] / (1 / first + 1 / second)
    return noise / (first + second) if replacement else noise * (1 / (first + second) - 1 / samples)


def mean_of(average: Average) -> Estimate:
    """Read a scalar average."""
    if not average.known:
        return Estimate(math.nan, math.inf)
    return Estimate(float(average.mean), float(average.standard_error))


def root_of(estimate: Estimate) -> Estimate:
    """Square root of an estimate that may have come out negative by noise."""
    value, error = max(estimate.value, 0.0), estimate.standard_error
    root = math.sqrt(value) if not math.isnan(estimate.value) else math.nan
    # Near zero the root of a quantity uncertain by e is uncertain by sqrt(e).
    return Estimate(root, min(error / (2 * root), math.sqrt(error)) if root > 0 else math.sqrt(error))


def ratio_of(numerator: Average, denominator: Average) -> Estimate:
    """Ratio of two averages, which has less bias than an average of ratios."""
    top, bottom = mean_of(numerator), mean_of(denominator)
    if not bottom.value > 0:
        return Estimate(math.nan, math.inf)
    value = top.value / bottom.value
    error = math.hypot(top.standard_error, value * bottom.standard_error) / bottom.value
    return Estimate(value, error)


def divergence(state: Estimates) -> Estimate:
    """Gradient divergence d_h, in units of the gradient."""
    return root_of(state.divergence.now)


def smoothness(state: Estimates) -> Estimate:
    """Curvature beta along the clients' steps: root mean square gradient change per distance."""
    return root_of(ratio_of(state.pair_change, state.pair_step))


def coupling(state: Estimates) -> Estimate:
    """How strongly drift moves the averaged gradient, beta_d, in units of curvature."""
    return root_of(ratio_of(state.coupling_change, state.coupling_step))


def squared_gradient(state: Estimates) -> Estimate:
    """Squared norm of the global gradient; missing devices make it uncertain, however long one averages."""
    now = state.gradient.now
    return Estimate(now.value, math.hypot(now.standard_error, float(state.partial.mean)))


def contraction(
    state: Estimates,
    learning_rate: float,
    *,
    lowest_loss: float = 0.0,
    caution: float = 1.0,
    extrapolate: bool = True,
) -> Estimate:
    """Polyak-Lojasiewicz constant c near the current model, guarded from below.

    Parameters
    ----------
    state : Estimates
        What is known.
    learning_rate : float
        eta.
    lowest_loss : float, default 0
        A value that the loss cannot fall below.
    caution : float, default 1
        Standard errors that a measured value is lowered by: too large a c promises progress that does not
        come.
    extrapolate : bool, default True
        Whether to infer from loss and gradient so far how far the loss can fall. Without convexity they tell
        nothing about that: a network that starts on a plateau looks as if it had arrived.

    Returns
    -------
    Estimate
        The largest of three values that are low on purpose: half the slope of ||grad F||^2 over F, and the
        rate at which ||grad F||^2 falls per local step over 2 eta, both lowered by `caution` standard
        errors; and ||grad F||^2 / (2 (F - lowest_loss)), which the true one exceeds as long as F* >
        lowest_loss.

    Notes
    -----
    Where 2c(F - F*) = ||grad F||^2 holds with equality, the slope of ||grad F||^2 over F is 2c whatever F*
    may be, and both sides fall by a factor of about exp(-2 eta c) a step.
    """
    loss, square = state.loss.now, squared_gradient(state)
    height = loss.value - lowest_loss
    least = 0.0
    if height > 0 and not math.isnan(square.value):
        # On a plateau the gradient drowns in its noise, and without extrapolation nothing else shows the way.
        unseen = square.standard_error if not extrapolate and math.isfinite(square.standard_error) else 0.0
        least = (max(square.value, 0.0) + unseen) / (2 * height)
    best = Estimate(least, math.inf)
    lines = ((state.line, 0.5), (state.decay, -0.5 / learning_rate)) if extrapolate else ()
    for line, scale in lines:
        value, error = scale * line.slope, abs(scale) * line.slope_error
        if math.isfinite(value) and math.isfinite(error):
            best = max(best, Estimate(value - caution * error, error))
    return best


def gap(state: Estimates, pl_constant: float, *, lowest_loss: float = 0.0) -> Estimate:
    """Distance F - F* of the loss from its minimum: ||grad F||^2 / (2c), at most F - lowest_loss.

    Parameters
    ----------
    state : Estimates
        What is known.
    pl_constant : float
        c.
    lowest_loss : float, default 0
        A value that the loss cannot fall below.

    Returns
    -------
    Estimate
        NaN while neither loss nor gradient were observed.
    """
    loss, square = state.loss.now, squared_gradient(state)
    height = Estimate(max(loss.value - lowest_loss, 0.0), loss.standard_error)
    if math.isnan(loss.value):
        height = Estimate(math.nan, math.inf)
    if not pl_constant > 0 or math.isnan(square.value) or not math.isfinite(square.standard_error):
        return height
    value = Estimate(max(square.value, 0.0) / (2 * pl_constant), square.standard_error / (2 * pl_constant))
    # A loss below its lowest possible value is noise and limits nothing.
    return height if 0 < height.value < value.value else value


def device_noise(state: Estimates, caution: float = 0.0) -> Floats:
    """Gradient noise M_i of every device, the fleet's mean for a device that never reported, shape (N,).

    Parameters
    ----------
    state : Estimates
        What is known.
    caution : float, default 0
        Standard errors to add.
    """
    fallback = float(state.fleet_noise.mean)
    error = np.where(np.isfinite(state.noise.standard_error), state.noise.standard_error, 0.0)
    return np.where(state.noise.known, state.noise.mean + caution * error, fallback)

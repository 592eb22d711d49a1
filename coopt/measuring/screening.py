"""Which parts of which client reports to believe.

A report may be wrong by accident or on purpose. Each part of it is judged on its own, so that a client whose
clock is broken still helps to estimate the gradient noise, and everything left out is named with the reason.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coopt.measuring.answer_times import hold_times
from coopt.measuring.ignored import Ignored
from coopt.measuring.observations import GROUPS, VECTORS, Observations, tabulate
from coopt.measuring.robust import USUAL, deviation
from coopt.measuring.told_costs import Prices, believe_costs
from coopt.measuring.winsorize import distances_from_middle, winsorize
from coopt.problem.saved_state import listed, number, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coopt.measuring.answer_times import AnswerTimes
    from coopt.measuring.report import ClientReport

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Memory = dict[str, list[float]]

# An honest fleet is heterogeneous: a value is an outlier only if it is far away both in units of the fleet's
# own spread and by its ratio to the median, and if there are enough others to compare it with. The ratios are
# those that honest clients exceed in less than one report of a thousand, on partitions of one class a device.
FARTHEST = {
    "samples": 30.0,
    "seconds_computing": 30.0,
    "seconds_communicating": 30.0,
    "noise": 10.0,
    "halves": 10.0,
    "pair": 15.0,
    "step of pair": 15.0,
    "gradient": 3.0,
    "change": 15.0,
    "loss": 5.0,
}
# Below the median these are as harmless as they are common: a batch that is fitted well, or of one sample.
NEVER_TOO_SMALL = ("noise", "halves", "pair", "step of pair", "gradient", "change", "loss")
# What a device measures on the samples that it processes.
MEASURED = ("loss", "gradient", "halves", "pair", "change")
# The part of a report that is left out where a quantity with another name is far.
PART = {"noise": "halves", "step of pair": "pair"}
LEAST_TO_JUDGE = 4
MEMORY = 8
# A client may do more than it was told, but a report of more than this is an error, not an account.
MOST_OVER_PLAN = 1.25
PARTLY = 0.5  # share of the samples of its own steps that a report has to tell, for batches that were cut
CLOCK_TOLERANCE = 1.01  # clocks of different machines need not agree to the last digit
# Beyond these no unit makes sense, and squares and ratios of what is left stay finite.
LARGEST_COUNT = 1e15
LARGEST, SMALLEST = 1e60, 1e-60
ROUNDING = 1e-3  # of the inner products of a report, which may come from single precision

_STALE = ("loss", "pair", "gradient", "change")
_AT_MOST = {"samples": LARGEST_COUNT, "halves_first": LARGEST_COUNT, "halves_second": LARGEST_COUNT}
_AT_LEAST = {
    "samples": 1.0,
    "local_steps": 1.0,
    "batch_size": 1.0,
    "samples_processed": 1.0,
    "seconds_computing": 0.0,
    "seconds_communicating": 0.0,
    "cost": 0.0,
    "halves_first": 1.0,
    "halves_second": 1.0,
    "halves_difference": 0.0,
    "pair_step": SMALLEST,
    "pair_difference": 0.0,
}


def screen(
    reports: Iterable[ClientReport],
    *,
    devices: int,
    round: int,
    memory: Memory | None = None,
    most_seconds: float = LARGEST,
    answers: AnswerTimes | None = None,
    planned_samples: Floats | None = None,
    prices: Prices | None = None,
    lowest_loss: float = -math.inf,
) -> tuple[Observations, list[Ignored]]:
    """Drop what cannot be true, then what the other clients contradict, and hold the rest to what is usual.

    Parameters
    ----------
    reports : iterable of ClientReport
        What arrived.
    devices : int
        Devices in the fleet, N.
    round : int
        Round that just ended; reports about others keep only what does not depend on the model's age.
    memory : dict, optional
        What `remember` kept of the rounds before, to judge by.
    most_seconds : float, optional
        How long the round took by the server's clock: no client can have been busy with it for longer.
    answers : AnswerTimes, optional
        When the answer of each device came by that clock, which is then the time that counts.
    planned_samples : numpy.ndarray, shape (devices,), optional
        Samples that each device was to process in the round: what is not believed counts as planned.
    prices : Prices, optional
        What work costs as the fleet states it: told costs are held to it.
    lowest_loss : float, optional
        What the loss cannot be below. A client may be below it by as much as clients differ, since what is
        known of the average need not hold for each.

    Returns
    -------
    observations : Observations
        What is believed.
    ignored : list of Ignored
        What was left out and why.

    Notes
    -----
    A value is an outlier if, in logarithms, it differs from the median of at least four clients by more than
    three robust standard deviations and by more than a factor that honest clients hardly ever reach, from 3
    for the distance of a gradient from the others to 30 for seconds. Up to 20 % arbitrary clients move
    neither median far. The values believed last take part, so that liars are not many where only few clients
    report; with fewer than four, twice as much (in logarithms) is tolerated, since the model may have moved.
    What is left is winsorized, see :mod:`coopt.measuring.winsorize`.
    """
    kept, ignored = _one_each(reports, devices, round)
    seen = tabulate(kept, round)
    # The limits are those of the round that just ended: a late report is about another one.
    seconds = np.full(len(kept), most_seconds)
    if answers is not None:
        seconds = np.minimum(seconds, answers.seconds[seen.client])
    seconds = np.where(seen.current, seconds * CLOCK_TOLERANCE, LARGEST)
    most = {"seconds_computing": seconds, "seconds_communicating": seconds}
    if planned_samples is not None:
        work = MOST_OVER_PLAN * planned_samples[seen.client]
        most["samples_processed"] = np.where(seen.current, work, LARGEST_COUNT)
    _drop_impossible(seen, kept, round, ignored, most)
    idle = np.array([report.samples_processed == 0 for report in kept], dtype=bool)
    for group in MEASURED:
        told = idle & np.isfinite(seen[GROUPS[group][0]])
        _name(seen, ignored, group, told, "measured on no sample, as it says that it processed none")
    _drop_contradictions(seen, ignored)
    if planned_samples is not None:
        planned = planned_samples[seen.client]
        lost = np.isnan(seen["samples_processed"]) & seen.current & (planned > 0)
        seen.column["samples_processed"][lost] = planned[lost]
    _drop_too_low(seen, ignored, lowest_loss)
    timed = np.zeros(len(kept), dtype=bool) if answers is None else answers.timed(seen)
    _drop_outliers(seen, ignored, memory or {}, lowest_loss, timed, clock=most_seconds < LARGEST)
    if answers is not None:
        ignored.extend(hold_times(seen, answers))
    if prices is not None:
        ignored.extend(believe_costs(seen, prices))
    winsorize(seen, lowest_loss)
    return seen, ignored


def _one_each(
    reports: Iterable[ClientReport], devices: int, now: int
) -> tuple[list[ClientReport], list[Ignored]]:
    """One report of each device, that about the round that just ended if there is one."""
    ignored: list[Ignored] = []
    chosen: dict[int, ClientReport] = {}
    doubtful: set[int] = set()
    for report in sorted(reports, key=lambda each: each.round != now):
        client = report.client
        if not (0 <= client < devices and client == int(client)):
            why = f"no such device: valid are 0 to {devices - 1}"
            ignored.append(Ignored(client, "report", why))
        elif client not in chosen:
            chosen[int(client)] = report
        elif report.round != chosen[client].round:
            ignored.append(Ignored(client, "report", "late: there is one about a later round"))
        elif report == chosen[client]:
            ignored.append(Ignored(client, "report", "a second report about the same round"))
        else:
            doubtful.add(int(client))
    for client in sorted(doubtful):
        why = "two reports about the same round that differ: neither is believed"
        ignored.append(Ignored(client, "report", why))
        del chosen[client]
    return [chosen[client] for client in sorted(chosen)], ignored


def _drop_impossible(
    seen: Observations,
    reports: list[ClientReport],
    now: int,
    ignored: list[Ignored],
    most: dict[str, Floats],
) -> None:
    stale = ~seen.current
    for group, names in GROUPS.items():
        present = np.array([getattr(report, group) is not None for report in reports], dtype=bool)
        bad = np.zeros(len(reports), dtype=bool)
        for name in names:
            values = seen[name]
            bad |= ~(values >= _AT_LEAST.get(name, -LARGEST)) | (
                values > most.get(name, _AT_MOST.get(name, LARGEST))
            )
        if group in VECTORS:
            bad |= _other_length(seen.vectors[group])
        for row in np.flatnonzero(bad & present):
            value = float(seen[group][row]) if group in seen.column and group not in VECTORS else None
            ignored.append(Ignored(reports[row].client, group, "not a possible value", value))
        seen.leave_out(group, bad | (stale if group in _STALE else False))
    for row in np.flatnonzero(stale):
        report = reports[row]
        what = "loss, curvature and vectors"
        ignored.append(Ignored(report.client, what, f"late: about round {report.round}, not {now}"))


def _other_length(vectors: list[Floats | None]) -> Mask:
    lengths = np.array([-1 if vector is None else len(vector) for vector in vectors])
    values, counts = np.unique(lengths[lengths >= 0], return_counts=True)
    usual = values[np.argmax(counts)] if len(values) else -1
    return np.asarray((lengths >= 0) & (lengths != usual))


def _drop_contradictions(seen: Observations, ignored: list[Ignored]) -> None:
    """Leave out what no two vectors can have for norms and products, whatever they are."""
    # |a + b|^2 = |a - b|^2 + 4 <a, b> is not negative.
    whole = seen["halves_product"] + seen["halves_difference"] / 4.0
    rows = whole < -ROUNDING * (np.abs(seen["halves_product"]) + seen["halves_difference"])
    _name(seen, ignored, "halves", rows, "its numbers contradict each other")
    least = PARTLY * seen["local_steps"] * seen["batch_size"]
    rows = seen["samples_processed"] < least
    _name(seen, ignored, "samples_processed", rows, "fewer than its steps and batches have")
    change = seen["pair_product"] + seen["pair_difference"] / 4.0
    size = np.abs(seen["pair_product"]) + seen["pair_difference"]
    rows = (change < -ROUNDING * size) | (
        np.abs(seen["pair_slope"]) > np.sqrt(seen["pair_step"] * np.maximum(change + ROUNDING * size, 0.0))
    )
    _name(seen, ignored, "pair", rows, "its numbers contradict each other")


def _drop_too_low(seen: Observations, ignored: list[Ignored], lowest: float) -> None:
    losses = seen["loss"]
    low = (losses < lowest - ROUNDING * abs(lowest)) & _far_by_distance(losses, np.zeros(0))
    _name(seen, ignored, "loss", low, f"below the lowest possible, {lowest:.4g}", losses)


def _name(
    seen: Observations,
    ignored: list[Ignored],
    group: str,
    rows: Mask,
    why: str,
    values: Floats | None = None,
    typical: float | None = None,
) -> None:
    """Leave a part of some reports out, and say so."""
    for row in np.flatnonzero(rows):
        value = None if values is None else float(values[row])
        ignored.append(Ignored(int(seen.client[row]), group, why, value, typical))
    seen.leave_out(group, rows)


def remember(memory: Memory, seen: Observations) -> Memory:
    """Keep the values believed last, for rounds in which too few clients report.

    Parameters
    ----------
    memory : dict
        What was kept before, by part of the report.
    seen : Observations
        What is believed of the round that just ended.

    Returns
    -------
    dict
        At most eight values a part, spread over all that were believed; where nothing new is believed the
        oldest are forgotten, so that a changed world is not disbelieved for ever.
    """
    kept: Memory = {}
    for group, values in _scales(seen).items():
        new = np.sort(values[np.isfinite(values)])
        if len(new) > MEMORY:
            new = new[((np.arange(MEMORY) + 0.5) / MEMORY * len(new)).astype(np.int64)]
        old = memory.get(group, [])
        kept[group] = [*old, *new.tolist()][-MEMORY:] if len(new) else old[LEAST_TO_JUDGE:]
    return kept


def restored_memory(place: str, state: object) -> Memory:
    """Return what `remember` kept, checked; `place` is how messages name it."""
    # A part of which nothing was ever told is not there.
    parts = [name for name in state if name in FARTHEST] if isinstance(state, dict) else FARTHEST
    return table(place, state, dict.fromkeys(parts, listed(number(), MEMORY)))


def _scales(seen: Observations) -> dict[str, Floats]:
    """Give what the parts are judged by."""
    column = seen.column
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = (column["pair_difference"] + np.abs(column["pair_product"])) / column["pair_step"]
        return {
            "samples": column["samples"],
            # Between seconds a sample and seconds a step, of which either may be what stays the same.
            "seconds_computing": column["seconds_computing"]
            / np.sqrt(column["samples_processed"] * column["local_steps"]),
            "seconds_communicating": column["seconds_communicating"],
            "noise": seen.noise,
            "halves": seen.noise + np.abs(column["halves_product"]),
            "pair": curvature,
            "step of pair": column["pair_step"],
            "gradient": np.sqrt(column["gradient"]),
            "change": column["change"] / column["pair_step"],
            "loss": column["loss"],
        }


def _drop_outliers(
    seen: Observations, ignored: list[Ignored], memory: Memory, lowest: float, timed: Mask, *, clock: bool
) -> None:
    why = "far from what all other clients report"
    for group, values in _scales(seen).items():
        # The values believed last count only where too few report now: the model has moved since.
        missing = max(MEMORY - int(np.isfinite(values).sum()), 0)
        past = np.array(memory.get(group, [])[:missing], dtype=np.float64)
        floor = lowest if group == "loss" and lowest > -math.inf else 0.0
        if group == "gradient":
            rows, distances, _ = distances_from_middle(seen.vectors["gradient"])
            if len(rows) >= LEAST_TO_JUDGE:
                # Rather by what separates it from the others than by its length.
                values, past = np.full(len(values), np.nan), np.zeros(0)
                values[rows] = distances
        far, typical = _far(values - floor, past - floor, FARTHEST[group], group not in NEVER_TOO_SMALL)
        if group == "loss":
            far &= _far_by_distance(values, past)
        if group.startswith("seconds"):
            # Phones differ by factors of hundreds: the server's clock judges better, where it was looked at.
            # Nobody can have taken longer than the round did.
            far &= ~timed
            if clock:
                far &= values < typical
        part = PART.get(group, group)
        far &= np.isfinite(seen[GROUPS[part][0]])  # named once for each part
        _name(seen, ignored, part, far, why, values, typical + floor)


def _far(values: Floats, past: Floats, ratio: float, both: bool) -> tuple[Mask, float]:
    """Mark the values far from the median of those above 0, by their ratio; and give the median."""
    positive = values > 0
    judges = np.log(np.concatenate([past[past > 0], values[positive]]))
    least = math.log(ratio) * (1.0 if positive.sum() >= LEAST_TO_JUDGE else 2.0)
    zero = (values == 0) & both
    if len(judges) < max(LEAST_TO_JUDGE, int(zero.sum()) + 1):
        return np.zeros(len(values), dtype=bool), math.nan
    middle = float(np.median(judges))
    distance = np.where(positive, np.log(np.where(positive, values, 1.0)) - middle, 0.0)
    distance = np.abs(distance) if both else distance
    return (distance > max(USUAL * deviation(judges), least)) | zero, math.exp(middle)


def _far_by_distance(values: Floats, past: Floats) -> Mask:
    """Mark the values far from the median in units of the spread."""
    known = np.concatenate([past, values[np.isfinite(values)]])
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(values - np.median(known)) > USUAL * deviation(known))

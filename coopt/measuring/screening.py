"""Which parts of which client reports to believe.

A report may be wrong by accident or on purpose. Each part of it is judged on its own, so that a client whose
clock is broken still helps to estimate the gradient noise, and everything left out is named with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coopt.measuring.ignored import Ignored
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.measuring.robust import deviation
from coopt.measuring.told_costs import Prices, believe_costs
from coopt.problem.saved_state import listed, number, table

if TYPE_CHECKING:
    from collections.abc import Iterable

Floats = npt.NDArray[np.float64]
Memory = dict[str, list[float]]

# An honest fleet is heterogeneous: a value is an outlier only if it is far away both in units of the fleet's
# own spread and in absolute terms, and if there are enough others to compare it with.
SPREAD_LIMIT = 6.0
RATIO_LIMIT = 30.0
LEAST_TO_JUDGE = 4
MEMORY = 8
CLOCK_TOLERANCE = 1.01  # clocks of different machines need not agree to the last digit
# Beyond these no unit makes sense, and squares and ratios of what is left stay finite.
LARGEST_COUNT = 1e15
LARGEST, SMALLEST = 1e60, 1e-60


@dataclass(frozen=True, eq=False)
class Observations:
    """The believed parts of a round's reports, one entry per client; NaN stands for what is not believed.

    Attributes
    ----------
    client : numpy.ndarray of int, shape (m,)
        Indices of the devices, increasing.
    current : numpy.ndarray of bool, shape (m,)
        Whether the report is about the round that just ended.
    column : dict of numpy.ndarray, shape (m,)
        The scalars of the reports by name, and the squared norms ``gradient`` and ``change`` of the vectors.
    vectors : dict of lists
        The vectors themselves, None where not believed.
    """

    client: npt.NDArray[np.int64]
    current: npt.NDArray[np.bool_]
    column: dict[str, Floats]
    vectors: dict[str, list[Floats | None]]

    def __getitem__(self, name: str) -> Floats:
        """Give one column."""
        return self.column[name]


_SCALARS = (
    "samples",
    "local_steps",
    "batch_size",
    "samples_processed",
    "seconds_computing",
    "seconds_communicating",
    "cost",
    "loss",
)
_HALVES = tuple(f"halves_{field.name}" for field in fields(HalfBatches))
_PAIR = tuple(f"pair_{field.name}" for field in fields(SameBatchPair))
_VECTORS = ("gradient", "change")
_GROUPS = {name: (name,) for name in (*_SCALARS, *_VECTORS)} | {"halves": _HALVES, "pair": _PAIR}
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
    round: int,  # noqa: A002
    memory: Memory | None = None,
    most_seconds: float = LARGEST,
    most_samples: Floats | None = None,
    prices: Prices | None = None,
) -> tuple[Observations, list[Ignored]]:
    """Drop what cannot be true, then what the other clients contradict.

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
    most_samples : numpy.ndarray, shape (devices,), optional
        Most samples that each device can have processed in the round.
    prices : Prices, optional
        What work costs as the fleet states it: told costs are held to it.

    Returns
    -------
    observations : Observations
        What is believed.
    ignored : list of Ignored
        What was left out and why.

    Notes
    -----
    A value is an outlier if, in logarithms, it differs from the median of at least four clients by more than
    six robust standard deviations and by more than a factor of thirty; for the loss, which may be negative,
    by more than six robust standard deviations and thirty times the median distance. Up to 20 % arbitrary
    clients move neither median far. The values believed last take part, so
    that liars are not many where only few clients report; with fewer than four, twice as much (in logarithms)
    is tolerated, since the model may have moved.
    """
    ignored: list[Ignored] = []
    chosen: dict[int, ClientReport] = {}
    for report in reports:
        client = report.client
        if not (0 <= client < devices and client == int(client)):
            ignored.append(Ignored(client, "report", f"no such device: valid are 0 to {devices - 1}"))
        elif client in chosen:
            ignored.append(Ignored(client, "report", "a second report about the same round"))
        else:
            chosen[int(client)] = report
    kept = [chosen[client] for client in sorted(chosen)]
    observations = _table(kept, round)
    # The limits are those of the round that just ended: a late report is about another one.
    seconds = np.where(observations.current, most_seconds * CLOCK_TOLERANCE, LARGEST)
    most = {"seconds_computing": seconds, "seconds_communicating": seconds}
    if most_samples is not None:
        samples = most_samples[observations.client]
        most["samples_processed"] = np.where(observations.current, samples, LARGEST_COUNT)
    _drop_impossible(observations, kept, round, ignored, most)
    _drop_outliers(observations, ignored, memory or {})
    if prices is not None:
        ignored.extend(believe_costs(observations, prices))
    return observations, ignored


def _table(reports: list[ClientReport], now: int) -> Observations:
    column: dict[str, Floats] = {}
    for prefix, names in (("", _SCALARS), ("halves", _HALVES), ("pair", _PAIR)):
        parts = [getattr(report, prefix) if prefix else report for report in reports]
        for name in names:
            values = [getattr(part, name.removeprefix(f"{prefix}_"), None) for part in parts]
            # None becomes NaN.
            column[name] = np.array(values, dtype=np.float64)
    vectors = {name: [getattr(report, name) for report in reports] for name in _VECTORS}
    with np.errstate(over="ignore", invalid="ignore"):
        for name in _VECTORS:
            column[name] = np.array([np.nan if v is None else float(v @ v) for v in vectors[name]])
    return Observations(
        client=np.array([report.client for report in reports], dtype=np.int64),
        current=np.array([report.round == now for report in reports], dtype=bool),
        column=column,
        vectors=vectors,
    )


def _present(reports: list[ClientReport], group: str) -> npt.NDArray[np.bool_]:
    return np.array([getattr(report, group) is not None for report in reports], dtype=bool)


def _leave_out(observations: Observations, group: str, rows: npt.NDArray[np.bool_]) -> None:
    for name in _GROUPS[group]:
        observations.column[name][rows] = np.nan
    if group in _VECTORS:
        for row in np.flatnonzero(rows):
            observations.vectors[group][row] = None


def _drop_impossible(
    observations: Observations,
    reports: list[ClientReport],
    now: int,
    ignored: list[Ignored],
    most: dict[str, Floats],
) -> None:
    stale = ~observations.current
    for group, names in _GROUPS.items():
        present = _present(reports, group)
        bad = np.zeros(len(reports), dtype=bool)
        for name in names:
            values = observations[name]
            bad |= ~(values >= _AT_LEAST.get(name, -LARGEST)) | (
                values > most.get(name, _AT_MOST.get(name, LARGEST))
            )
        if group in _VECTORS:
            bad |= _other_length(observations.vectors[group])
        wrong = np.flatnonzero(bad & present)
        ignored.extend(Ignored(reports[row].client, group, "not a possible value") for row in wrong)
        out = bad | (stale if group in _STALE else False)
        _leave_out(observations, group, out)
    for row in np.flatnonzero(stale):
        report = reports[row]
        what = "loss, curvature and vectors"
        ignored.append(Ignored(report.client, what, f"late: about round {report.round}, not {now}"))


def _other_length(vectors: list[Floats | None]) -> npt.NDArray[np.bool_]:
    lengths = np.array([-1 if vector is None else len(vector) for vector in vectors])
    values, counts = np.unique(lengths[lengths >= 0], return_counts=True)
    usual = values[np.argmax(counts)] if len(values) else -1
    return np.asarray((lengths >= 0) & (lengths != usual))


def remember(memory: Memory, observations: Observations) -> Memory:
    """Keep the values believed last, for rounds in which too few clients report.

    Parameters
    ----------
    memory : dict
        What was kept before, by part of the report.
    observations : Observations
        What is believed of the round that just ended.

    Returns
    -------
    dict
        At most eight values a part; where nothing new is believed the oldest are forgotten, so that a changed
        world is not disbelieved for ever.
    """
    kept: Memory = {}
    for group, values in _scales(observations).items():
        new = values[np.isfinite(values)].tolist()
        old = memory.get(group, [])
        kept[group] = [*old, *new][-MEMORY:] if new else old[LEAST_TO_JUDGE:]
    return kept


def restored_memory(place: str, state: object) -> Memory:
    """Return what `remember` kept, checked; `place` is how messages name it."""
    # A part of which nothing was ever told is not there.
    parts = [name for name in state if name in _GROUPS] if isinstance(state, dict) else _GROUPS
    return table(place, state, dict.fromkeys(parts, listed(number(), MEMORY)))


def _scales(observations: Observations) -> dict[str, Floats]:
    """Give what the parts are judged by: logarithms of their scale, and the loss itself."""
    column = observations.column
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = column["halves_difference"] / (1 / column["halves_first"] + 1 / column["halves_second"])
        curvature = (column["pair_difference"] + np.abs(column["pair_product"])) / column["pair_step"]
        scales = {
            "samples": column["samples"],
            # Between seconds a sample and seconds a step, of which either may be what stays the same.
            "seconds_computing": column["seconds_computing"]
            / np.sqrt(column["samples_processed"] * column["local_steps"]),
            "seconds_communicating": column["seconds_communicating"],
            "halves": noise + np.abs(column["halves_product"]),
            "pair": curvature,
            "gradient": column["gradient"],
            "change": column["change"],
        }
        return {group: np.log(value) for group, value in scales.items()} | {"loss": column["loss"]}


def _drop_outliers(observations: Observations, ignored: list[Ignored], memory: Memory) -> None:
    for group, values in _scales(observations).items():
        past = np.array(memory.get(group, []), dtype=np.float64)
        known = np.concatenate([past, values[np.isfinite(values)]])
        least = float(np.log(RATIO_LIMIT))
        if group == "loss":
            least = RATIO_LIMIT * float(np.median(np.abs(known))) if len(known) else 0.0
        rows = _far(values, least, past)
        why = "far from what all other clients report"
        ignored.extend(Ignored(int(observations.client[row]), group, why) for row in np.flatnonzero(rows))
        _leave_out(observations, group, rows)


def _far(values: Floats, least: float, past: Floats) -> npt.NDArray[np.bool_]:
    """Mark the values far from the median of the finite ones; -inf is the logarithm of an exact zero."""
    finite = np.isfinite(values)
    zero = np.isneginf(values)
    if finite.sum() < LEAST_TO_JUDGE:
        least = 2 * least
    judges = np.concatenate([past, values[finite]])
    if len(judges) < max(LEAST_TO_JUDGE, zero.sum() + 1):
        return np.zeros(len(values), dtype=bool)
    middle = np.median(judges)
    spread = deviation(judges)
    distance = np.where(finite, np.abs(np.where(finite, values, 0.0) - middle), 0.0)
    return np.asarray((distance > max(SPREAD_LIMIT * spread, least)) | zero)

"""A fleet and the constants of its loss from the client reports of a training that has been run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.estimates import readings
from coopt.measuring.estimates.calibrate import calibrate
from coopt.measuring.estimates.estimate import gradients_evaluated, update
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.step_seconds import StepSeconds, fit_step_seconds
from coopt.measuring.estimates.trend import Estimate
from coopt.measuring.ignored import Ignored
from coopt.measuring.report import ClientReport
from coopt.problem.constants import Constants
from coopt.problem.fleet import Fleet
from coopt.problem.readable import readable
from coopt.problem.result_table import ResultTable
from coopt.problem.validation import real

Floats = NDArray[np.float64]


CONSTANTS = ("learning_rate", "smoothness", "initial_gap", "pl_constant", "curvature_floor", "coupling")


@readable
@dataclass(frozen=True, eq=False)
class Records(ResultTable):
    """What recorded reports tell of a fleet and its loss.

    Attributes
    ----------
    fleet : Fleet
        One device for each client that reported, named "client 3" after its index.
    constants : Constants
        At the end of the records, best estimates without caution.
    errors : dict of float
        Standard errors of the constants, infinite where one observation is all there is.
    speeds : tuple of StepSeconds
        Of each device, with standard errors.
    rounds : int
        Rounds recorded.
    cost, seconds : float
        What the recorded training cost, and took if every round lasted as long as its slowest device.
    notes : tuple of str
        What could not be told, and what was assumed instead.
    ignored : tuple of Ignored
        What was not believed, and why.
    """

    fleet: Fleet
    constants: Constants
    errors: dict[str, float]
    speeds: tuple[StepSeconds, ...]
    rounds: int
    cost: float
    seconds: float
    notes: tuple[str, ...]
    ignored: tuple[Ignored, ...]

    def job(self, *, cost: float | None = None, time: float | None = None) -> str:
        """TOML of a job for ``coopt plan``, the standard errors as comments.

        Parameters
        ----------
        cost, time : float, optional
            Budget; default: what the recorded training took.
        """
        lines = ["# Measured along a recorded training: estimates, so that plans prove nothing."]
        lines += [f"# {note}" for note in self.notes] + ["[constants]"]
        for name in CONSTANTS:
            value = getattr(self.constants, name)
            if value is not None:
                error = _error(self.errors.get(name))
                lines.append(f"{name} = {float(value)!r}" + (f"  #{error}" if error else ""))
        spent = "" if cost is not None or time is not None else "  # what the recorded training took"
        lines += ["", "[budget]"]
        for name, given, used in (("cost", cost, self.cost), ("time", time, self.seconds)):
            value = used if given is None and spent else given
            if value is not None and value > 0.0:
                lines.append(f"{name} = {float(value)!r}{spent}")
        return "\n".join(lines) + "\n"

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a constant: its name, its value and its standard error, None where it has none."""
        values = {name: getattr(self.constants, name) for name in CONSTANTS}
        return [
            {"constant": name, "value": value, "standard_error": self.errors.get(name)}
            for name, value in values.items()
            if value is not None
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists: the constants, the fleet, the speeds and the remarks."""
        return {
            "constants": self.to_rows(),
            "fleet": self.fleet.to_rows() if self.fleet.replacement else None,
            "speeds": [asdict(speed) for speed in self.speeds],
            "rounds": self.rounds,
            "cost": self.cost,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "ignored": [asdict(each) for each in self.ignored],
        }

    def lines(self) -> list[str]:
        """The constants and the range of each field of the fleet, with standard errors, as text."""
        lines = [f"{len(self.fleet)} devices, {self.rounds} rounds", ""]
        for name in CONSTANTS:
            value = getattr(self.constants, name)
            if value is not None:
                lines.append(f"{name:<16} {value:<12.4g}" + _error(self.errors.get(name)))
        lines.append("")
        for name in ("gradient_noise", "divergence", "throughput", "step_time", "round_time"):
            values = getattr(self.fleet, name)
            low, middle, high = values.min(), np.median(values), values.max()
            lines.append(f"{name:<16} {middle:<12.4g} {low:.4g} to {high:.4g}")
        return [*lines, "", *(f"note: {note}" for note in self.notes)]


def _error(error: float | None) -> str:
    return "" if error is None else " one observation" if np.isinf(error) else f" standard error {error:.2g}"


def read_reports(path: str | Path) -> list[ClientReport]:
    """Read client reports from a file with one JSON object a line, as :meth:`ClientReport.to_json` writes it.

    Raises
    ------
    InvalidProblemError
        If the file cannot be read or a line is no report; the message names the line.
    """
    reports = []
    try:
        with Path(path).open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    try:
                        reports.append(ClientReport.from_json(line))
                    except InvalidProblemError as error:
                        raise InvalidProblemError(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise InvalidProblemError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidProblemError(f"{path}: cannot be read: {error}") from error
    if not reports:
        raise InvalidProblemError(f"{path}: holds no client reports: write one report.to_json() a line")
    return reports


def from_records(
    reports: Sequence[ClientReport],
    *,
    learning_rate: float,
    divergence: float | None = None,
    convex: bool = False,
    replacement: bool = True,
) -> Records:
    """Estimate a fleet and its constants from recorded client reports.

    Parameters
    ----------
    reports : sequence of ClientReport
        Of all rounds, in any order.
    learning_rate : float
        eta > 0 that was trained with; reports do not carry it.
    divergence : float, optional
        Gradient divergence, for reports without gradients, which do not tell it.
    convex : bool, default False
        Whether the loss of every device is convex, so that loss and gradient tell how far the loss can fall.
    replacement : bool, default True
        Whether mini-batches were drawn with replacement.

    Returns
    -------
    Records

    Raises
    ------
    InvalidProblemError
        If the reports do not tell the gradient noise, or the divergence where it is not given.

    Notes
    -----
    Constants are those of the controller at the end of its run: averages over the last rounds that forget the
    earlier ones, as the model moves. Seconds are fitted to all rounds, see `fit_step_seconds`: the
    controller's own timing looks at the last ones alone, to follow a device that slows down.

    Examples
    --------
    >>> from coopt.measuring.report import ClientReport, HalfBatches
    >>> reports = [
    ...     ClientReport(client=i, round=k, samples=100 + 50 * i, local_steps=5, batch_size=s,
    ...                  samples_processed=5 * s, loss=1.0 / (k + 1),
    ...                  seconds_computing=6 * 0.01 + 5 * s / 100,
    ...                  halves=HalfBatches(s // 2, s // 2, 8.0 / s, 1.0))
    ...     for k, s in enumerate([4, 8, 16, 32]) for i in range(2)
    ... ]
    >>> found = from_records(reports, learning_rate=0.1, divergence=0.5)
    >>> found.fleet
    Fleet(2 devices, 250 samples)
    >>> found.fleet.gradient_noise.round(6), found.fleet.throughput.round(6)
    (array([2., 2.]), array([100., 100.]))
    """
    rate = real("learning_rate", learning_rate, minimum=0.0, strict=True)
    if not reports:
        raise InvalidProblemError("reports is empty: nothing was recorded")
    # Sums in another order differ in their last digits: one order, whatever that of the lines.
    reports = sorted(reports, key=lambda report: (report.round, report.client))
    clients = sorted({report.client for report in reports})
    if clients[0] < 0:
        raise InvalidProblemError(f"client = {clients[0]} of a report: must be an index from 0")
    state, ignored = _replayed(reports, clients, replacement)
    notes: list[str] = []
    noise = readings.device_noise(state)
    if not state.fleet_noise.known:
        raise InvalidProblemError(
            "no report tells the gradient noise: record rounds with batches of at least 2, and ClientProbe's "
            "halves"
        )
    spread = _divergence(state, len(clients), divergence)
    speeds = tuple(_speed([r for r in reports if r.client == client]) for client in clients)
    mixed = [str(client) for client, speed in zip(clients, speeds, strict=True) if not speed.told_apart]
    if mixed:
        notes.append(
            f"step_time of clients {_few(mixed)} counts as zero: batches differed too little to tell it "
            "from the time of a sample"
        )
    price = state.sample_cost
    if not price.known.all():
        notes.append("sample_cost is 1 where no report carried a cost: costs are then samples")
    fleet = Fleet(
        samples=state.samples,
        gradient_noise=noise,
        divergence=spread if len(clients) > 1 else 0.0,
        throughput=[speed.throughput for speed in speeds],
        step_time=[speed.step_time for speed in speeds],
        round_time=np.where(state.round_seconds.known, state.round_seconds.mean, 0.0),
        sample_cost=np.where(price.known, price.mean, 1.0),
        replacement=replacement,
        names=[f"client {client}" for client in clients],
    )
    smoothness = readings.smoothness(state)
    if not np.isfinite(smoothness.value):
        notes.append("smoothness is 1 / learning_rate: no report carried a same-batch pair")
    constants = calibrate(state, learning_rate=rate, caution=0.0, curvature_floor=0.0 if convex else None)
    return Records(
        fleet=fleet,
        constants=constants,
        errors=_errors(state, constants, smoothness, rate, convex),
        speeds=speeds,
        rounds=len({report.round for report in reports}),
        cost=_cost(reports, fleet, clients),
        seconds=_seconds(reports),
        notes=tuple(notes),
        ignored=tuple(ignored),
    )


def _replayed(
    reports: Sequence[ClientReport], clients: list[int], replacement: bool
) -> tuple[Estimates, list[Ignored]]:
    """The estimates after all rounds, as a controller would have made them."""
    place = {client: i for i, client in enumerate(clients)}
    rounds: dict[int, list[ClientReport]] = defaultdict(list)
    held = np.ones(len(clients), dtype=np.int64)
    for report in reports:
        rounds[report.round].append(replace(report, client=place[report.client]))
        held[place[report.client]] = max(int(report.samples), 1)
    state, ignored = Estimates.empty(held), []
    for number, found in rounds.items():
        steps = int(np.median([report.local_steps for report in found]))
        state, left_out = update(state, found, round=number, local_steps=steps, replacement=replacement)
        ignored += [replace(each, client=clients[each.client]) for each in left_out]
    return state, ignored


def _divergence(state: Estimates, clients: int, given: float | None) -> float:
    if given is not None:
        return real("divergence", given, minimum=0.0)
    found = readings.divergence(state).value
    if np.isfinite(found):
        return found
    if clients == 1:
        return 0.0
    raise InvalidProblemError(
        "no two reports of one round carry gradients, which tell how far devices diverge: record with "
        "ClientProbe(..., vectors='full' or 'sketch'), or give divergence"
    )


def _speed(reports: list[ClientReport]) -> StepSeconds:
    steps, sizes, halves, more, samples, seconds = np.array(
        [
            (
                r.local_steps,
                r.batch_size,
                r.halves is not None,
                r.samples_processed > r.local_steps * r.batch_size,
                r.samples_processed,
                r.seconds_computing,
            )
            for r in reports
        ],
        dtype=np.float64,
    ).T
    gradients = gradients_evaluated(steps, sizes, halves > 0.0, more > 0.0)
    return fit_step_seconds(gradients, samples, seconds)


def _errors(
    state: Estimates, constants: Constants, smoothness: Estimate, rate: float, convex: bool
) -> dict[str, float]:
    c = readings.contraction(state, rate, caution=0.0, extrapolate=convex)
    found = {
        "smoothness": smoothness,
        "pl_constant": c,
        "initial_gap": readings.gap(state, constants.pl_constant or 0.0),
        "coupling": readings.coupling(state),
        "curvature_floor": readings.ratio_of(state.pair_slope, state.pair_step),
    }
    return {name: value.standard_error for name, value in found.items() if np.isfinite(value.value)}


def _cost(reports: Sequence[ClientReport], fleet: Fleet, clients: list[int]) -> float:
    price = dict(zip(clients, fleet.sample_cost.tolist(), strict=True))
    return float(sum(price[r.client] * r.samples_processed if r.cost is None else r.cost for r in reports))


def _seconds(reports: Sequence[ClientReport]) -> float:
    slowest: dict[int, float] = defaultdict(float)
    for r in reports:
        slowest[r.round] = max(slowest[r.round], r.seconds_computing + r.seconds_communicating)
    return float(sum(slowest.values()))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

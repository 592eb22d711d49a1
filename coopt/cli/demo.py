"""The demonstration: a plan by a measured forecast beside what is common, each of them really trained."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Digits, SimulatedRun, Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.errors import BoundWarning
from coopt.measuring.from_gradients import measure
from coopt.plans.plot import CHOSEN, INK, new_figure
from coopt.problem import limits
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem
from coopt.questions.solve import solve_allocation

if TYPE_CHECKING:
    from coopt.measuring.measurement import Measurement
    from coopt.objectives.forecast.forecast import Forecast
    from coopt.plans.described_figure import DescribedFigure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATE = 0.5
# What everybody may spend: samples processed, and an hour on the devices' clock.
LIMITS = Budget(cost=150_000, time=3600)
MODEL = Softmax(64, 10)
NOTHING = Budget(cost=0.0, time=0.0)
# A forecast is good to tens of per cent: a plan within this of its best is as good.
TOLERANCE = 1e-3
# Other lines of the picture, apart for every common kind of colour blindness.
OTHERS = ("#0072B2", "#009E73", "#CC79A7", "#999999")


@dataclass(frozen=True, eq=False)
class Trained:
    """One way to spend the budget, and what came of it.

    Attributes
    ----------
    label : str
    rounds, local_steps : int
    batch_sizes : numpy.ndarray, shape (N,)
    run : SimulatedRun
    forecast : numpy.ndarray, shape (rounds + 1,), optional
        Loss above the lowest that was expected before the first round and after each.
    before : Budget, optional
        What was spent before the first round, on measuring.
    """

    label: str
    rounds: int
    local_steps: int
    batch_sizes: Ints
    run: SimulatedRun
    forecast: Floats | None = None
    before: Budget = NOTHING

    def gaps(self, lowest: float) -> Floats:
        """Loss above the lowest, before the first round and after each, shape (rounds + 1,)."""
        return self.run.losses - lowest


@dataclass(frozen=True, eq=False)
class Demonstration:
    """Everything that the table and the picture show.

    Attributes
    ----------
    measurement : Measurement
    problem : Problem
        What was planned: the limits are what measuring left of them.
    rows : tuple of Trained
        The plan by the forecast first.
    lowest : float
        The lowest loss that there is, found by L-BFGS.
    test : (images, labels)
    """

    measurement: Measurement
    problem: Problem
    rows: tuple[Trained, ...]
    lowest: float
    test: tuple[Floats, Ints]


def demonstrate(progress: bool | None = None) -> Demonstration:
    """Measure an embedded federation, plan, and train that plan and the common ones within the same limits.

    The data are real, handwritten digits that 24 devices hold unevenly; how fast the devices are is made up,
    as in the example fleet. What measuring costs in samples and time is taken off the plan's budget.
    """
    with resources.as_file(resources.files("coopt.data") / "fleet.csv") as path:
        example = Fleet.from_csv(path)
    federation = digits(len(example))
    measurement = measure(
        MODEL.gradient,
        MODEL.start(),
        federation.clients,
        names=example.names,
        samples=LIMITS.cost,
        progress=progress,
    )
    fleet = measurement.fleet(throughput=example.throughput, round_time=example.round_time)
    whole = Problem(fleet, measurement.constants(RATE), LIMITS)
    spent = _measuring(fleet, measurement)
    left = replace(whole, budget=Budget(cost=LIMITS.cost - spent.cost, time=LIMITS.time - spent.time))
    forecast = measurement.forecast()
    return Demonstration(
        measurement,
        left,
        (
            _planned("measured and planned", left, forecast, federation, spent, progress),
            *(
                _habit(label, whole, local_steps, batch, federation, progress)
                for label, local_steps, batch in (
                    ("1 epoch of batch 10", _epochs(federation, 1, 10), 10),
                    ("5 epochs of batch 32", _epochs(federation, 5, 32), 32),
                    ("1 step of batch 64", 1, 64),
                )
            ),
            _planned("best proved bound", left, None, federation, spent, progress),
        ),
        _lowest_loss(federation),
        federation.test,
    )


def _epochs(federation: Digits, epochs: int, batch: int) -> int:
    """Local steps of some epochs of the average device."""
    return max(1, round(epochs * float(federation.samples.mean()) / batch))


def _measuring(fleet: Fleet, measurement: Measurement) -> Budget:
    """What measuring took: an exchange for the gradient, one for each direction, and one for the noise."""
    exchanges = measurement.directions + 2
    seconds = exchanges * fleet.round_time + measurement.samples_used / len(fleet) / fleet.throughput
    return Budget(cost=float(measurement.samples_used), time=float(seconds.max()))


def _planned(
    label: str,
    problem: Problem,
    forecast: Forecast | None,
    federation: Digits,
    spent: Budget,
    progress: bool | None,
) -> Trained:
    with warnings.catch_warnings():
        # Constants that were measured at one model may say that the bound says little: the table shows it.
        warnings.simplefilter("ignore", BoundWarning)
        plan = solve_allocation(
            problem, bound="certified" if forecast is None else forecast, gap_tolerance=TOLERANCE
        )
    curve = None if forecast is None else forecast.curve(plan)
    run = _train(problem, plan.rounds, plan.local_steps, plan.batch_sizes, federation, progress)
    return Trained(label, plan.rounds, plan.local_steps, plan.batch_sizes, run, curve, spent)


def _habit(
    label: str, problem: Problem, local_steps: int, batch: int, federation: Digits, progress: bool | None
) -> Trained:
    """Fixed local steps and batches, for as many rounds as the limits allow."""
    batches = np.minimum(batch, federation.samples)
    rounds = limits.most_rounds(problem, local_steps, batches) or 1
    run = _train(problem, rounds, local_steps, batches, federation, progress)
    return Trained(label, rounds, local_steps, batches, run)


def _train(
    problem: Problem,
    rounds: int,
    local_steps: int,
    batches: Ints,
    federation: Digits,
    progress: bool | None,
) -> SimulatedRun:
    fleet = problem.fleet
    return simulate(
        FixedPlan(fleet, rounds, local_steps, batches, RATE),
        MODEL.gradient,
        MODEL.start(),
        federation.clients,
        system=SystemModel(fleet.throughput, fleet.round_time),
        progress=progress,
    )


def _lowest_loss(federation: Digits) -> float:
    from scipy.optimize import minimize

    images, labels = (np.concatenate(parts) for parts in zip(*federation.clients, strict=True))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        return MODEL.gradient(parameters, (images, labels))

    found = minimize(
        loss,
        MODEL.start(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9},
    )
    return float(found.fun)


def facts(shown: Demonstration) -> list[dict[str, object]]:
    """One flat dict for each way to spend the budget: what was done, expected and measured."""
    reached = float(shown.rows[0].gaps(shown.lowest)[-1])
    return [
        {
            "label": row.label,
            "rounds": row.rounds,
            "local_steps": row.local_steps,
            "smallest_batch": int(row.batch_sizes.min()),
            "largest_batch": int(row.batch_sizes.max()),
            "forecast": None if row.forecast is None else float(row.forecast[-1]),
            "measured": float(row.gaps(shown.lowest)[-1]),
            "ratio": float(row.gaps(shown.lowest)[-1]) / reached,
            "accuracy": MODEL.accuracy(row.run.parameters, shown.test),
            "samples": row.before.cost + float(row.run.costs[-1]),
            "seconds": row.before.time + float(row.run.seconds[-1]),
        }
        for row in shown.rows
    ]


def print_demonstration(shown: Demonstration) -> None:
    """Print what every way to spend the budget came to."""
    from rich.console import Console

    from coopt.plans.table import new_table

    console = Console(highlight=False)
    first = shown.rows[0]
    samples, hour = first.before.cost / LIMITS.cost, first.before.time / LIMITS.time
    console.print(
        f"{len(shown.measurement)} devices hold handwritten digits. They may spend an hour and "
        f"{LIMITS.cost:,.0f} samples:\nwhich rounds K, local steps tau and batch sizes train softmax "
        f"regression best?\nMeasuring took {samples:.0%} of the samples and {hour:.0%} of the hour, and is "
        "charged. Every row was trained.\n",
        soft_wrap=True,
    )
    table = new_table("Loss above the lowest there is, measured after training")
    for heading in ("K", "tau", "batch", "forecast", "loss", "vs plan"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in facts(shown):
        low, high, forecast = row["smallest_batch"], row["largest_batch"], row["forecast"]
        table.add_row(
            str(row["label"]),
            f"{row['rounds']:,}",
            f"{row['local_steps']:,}",
            f"{low}" if low == high else f"{low} to {high}",
            "" if forecast is None else f"{forecast:.4f}",
            f"{row['measured']:.4f}",
            f"{row['ratio']:.3g}x",
            style="bold" if row["label"] == first.label else None,
        )
    console.print(table)
    console.print(
        "\nA forecast ranks plans. Its values are good to a factor of about two, and prove nothing.\n"
    )


def _described(shown: Demonstration) -> str:
    ends = "; ".join(f"{row.label}: {float(row.gaps(shown.lowest)[-1]):.4g}" for row in shown.rows)
    return f"Measured loss above the lowest there is, over time and over samples. At the end {ends}."


def draw(shown: Demonstration) -> DescribedFigure:
    """Draw the measured losses against time and against samples, and the forecast.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(10.0, 4.2, _described(shown))
    panels = figure.subplots(1, 2, sharey=True)
    first = shown.rows[0]
    for axes, name, scale, label in (
        (panels[0], "seconds", 60.0, "minutes on the devices' clock"),
        (panels[1], "costs", 1000.0, "thousands of samples processed"),
    ):
        for row, color in zip(shown.rows, (CHOSEN, *OTHERS), strict=True):
            before = row.before.time if name == "seconds" else row.before.cost
            x = (before + getattr(row.run, name)) / scale
            width = 2.2 if row is first else 1.3
            axes.plot(x, row.gaps(shown.lowest), color=color, linewidth=width, label=row.label)
            if row.forecast is not None:
                axes.plot(x, row.forecast, "--", color=INK, linewidth=1.2, label="its forecast")
        limit = (LIMITS.time if name == "seconds" else LIMITS.cost) / scale
        axes.axvline(limit, color=INK, linewidth=0.8)
        axes.set(xlabel=label, yscale="log", xlim=(0.0, 1.03 * limit))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("loss above the lowest, measured")
    panels[1].legend(frameon=False, fontsize=8)
    return figure

"""One picture of a schedule: rates, local steps, batches and the forecast, over cost and over time.

matplotlib is imported when a picture is drawn, and figures are made without pyplot, so drawing changes no
global state and needs no display.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coopt.plans.plot import CHOSEN, HELD, INK, TIME, label_ticks, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from coopt.objectives.forecast.forecast import Forecast
    from coopt.plans.described_figure import DescribedFigure
    from coopt.plans.schedule import Schedule

Floats = NDArray[np.float64]

# Points of a curve beyond which no more can be seen.
MOST_POINTS = 2000
# The row of local steps.
STEPS = 1


def plot_schedule(schedule: Schedule, forecast: Forecast) -> DescribedFigure:
    """Draw a schedule; time is left out where no device takes any.

    Parameters
    ----------
    schedule : Schedule
    forecast : Forecast
        Of the measurement that the schedule was made with.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    problem = schedule.problem
    uses = [("cost", problem.cost), ("time [s]", problem.time)]
    ends = [
        (label, np.cumsum([0.0] + [use(p.rounds, p.local_steps, p.batch_sizes) for p in schedule.phases]))
        for label, use in uses
    ]
    ends = [(label, end) for label, end in ends if end[-1] > 0.0] or ends[:1]
    figure = new_figure(5.6 * len(ends), 8.4, _described(schedule))
    grid = figure.subplots(4, len(ends), sharex="col", sharey="row", squeeze=False)
    curve = schedule.curve(forecast)
    for column, (label, end) in enumerate(ends):
        rates, steps, batches, losses = grid[:, column]
        _stairs(rates, end, [p.learning_rate for p in schedule.phases])
        _stairs(steps, end, [float(p.local_steps) for p in schedule.phases])
        _draw_batches(batches, end, schedule)
        _draw_curve(losses, end, schedule, curve)
        losses.set_xlabel(label)
    labels = (
        "learning rate\n[1 / curvature]",
        "local steps\na round",
        "batch size [samples]:\nmedian and range",
        "forecast of F - F*\n[loss]",
    )
    for axes, label in zip(grid[:, 0], labels, strict=True):
        axes.set_ylabel(label)
    for place, row in enumerate(grid):
        for axes in row:
            plain(axes)
            label_ticks(axes, whole=place == STEPS)
    return figure


def _described(schedule: Schedule) -> str:
    parts = [
        f"phase {place}: {phase.rounds:,} rounds of {phase.local_steps:,} local steps, batches of "
        f"{int(phase.batch_sizes.min()):,} to {int(phase.batch_sizes.max()):,}, learning rate "
        f"{phase.learning_rate:.4g}"
        for place, phase in enumerate(schedule.phases, start=1)
    ]
    return (
        "Learning rate, local steps, batch sizes and forecast loss over cost and over time. "
        f"{'; '.join(parts)}. The forecast of F - F* at the end is {schedule.predicted_error:.4g}, which is "
        "no bound."
    )


def _stairs(axes: Axes, ends: Floats, values: list[float]) -> None:
    axes.stairs(values, ends, baseline=None, color=CHOSEN, linewidth=2.0)
    if max(values) > 10.0 * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0.0)


def _draw_batches(axes: Axes, ends: Floats, schedule: Schedule) -> None:
    """The median of the devices, and their range."""
    low, middle, high = np.percentile([p.batch_sizes for p in schedule.phases], [0, 50, 100], axis=1)
    axes.stairs(high, ends, baseline=low, fill=True, color=HELD, alpha=0.4, linewidth=0.0)
    axes.stairs(middle, ends, baseline=None, color=CHOSEN, linewidth=2.0)
    axes.set_yscale("log")


def _draw_curve(axes: Axes, ends: Floats, schedule: Schedule, curve: Floats) -> None:
    """The forecast after each round; rounds of a phase are alike."""
    places = [
        np.linspace(a, b, p.rounds + 1)[1:] for a, b, p in zip(ends, ends[1:], schedule.phases, strict=False)
    ]
    used = np.concatenate([[0.0], *places])
    shown = np.unique(np.linspace(0, used.size - 1, min(used.size, MOST_POINTS)).astype(np.int64))
    axes.plot(used[shown], curve[shown], color=TIME, linewidth=1.5)
    for end in ends[1:-1]:
        axes.axvline(end, color=INK, linewidth=0.6, alpha=0.5)
    if (curve > 0.0).all():
        axes.set_yscale("log")

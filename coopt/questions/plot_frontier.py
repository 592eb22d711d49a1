"""The picture of a trade-off: the objective against the limit that varies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coopt.plans.plot import BEYOND, CHOSEN, INK, label_ticks, new_figure, plain

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure
    from coopt.questions.pareto import Frontier

UNITS = {
    "cost": "cost",
    "time": "time [s]",
    "target_error": "error bound to be reached",
    "error": "error bound",
}


def plot_frontier(frontier: Frontier) -> DescribedFigure:
    """Draw a trade-off; values at which no plan is feasible are shaded.

    Parameters
    ----------
    frontier : Frontier

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(6.4, 4.2, _described(frontier))
    axes = figure.subplots()
    solved = [(point.value, point.allocation) for point in frontier.points if point.allocation is not None]
    values = [value for value, _ in solved]
    axes.plot(values, [plan.objective_value for _, plan in solved], "o-", color=CHOSEN, markersize=4)
    for value, plan in solved:
        axes.annotate(
            f"{plan.rounds}$\\times${plan.local_steps}",
            (value, plan.objective_value),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
    for point in frontier.points:
        if point.allocation is None:
            axes.axvline(point.value, color=BEYOND, linewidth=6, zorder=0)
            axes.annotate(
                "no plan",
                (point.value, 0.98),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="center",
                va="top",
                fontsize=7,
                color=INK,
            )
    if len(values) > 1 and max(values) > 10.0 * min(values) > 0.0:
        axes.set_xscale("log")
    if solved and all(plan.objective_value > 0.0 for _, plan in solved):
        axes.set_yscale("log")
    axes.set_xlabel(UNITS[frontier.vary])
    axes.set_ylabel(f"smallest {UNITS[frontier.objective]}")
    # Room for what is written beside the last point.
    axes.margins(x=0.12)
    plain(axes, title="What more of it buys: rounds$\\times$local steps at each optimum")
    label_ticks(axes)
    return figure


def _described(frontier: Frontier) -> str:
    solved = [(point.value, point.allocation) for point in frontier.points if point.allocation is not None]
    text = f"Smallest {UNITS[frontier.objective]} as {UNITS[frontier.vary]} varies. "
    points = [
        f"{value:.6g}: {plan.objective_value:.4g} with {plan.rounds:,} rounds of {plan.local_steps:,} steps"
        for value, plan in solved
    ]
    missing = len(frontier.points) - len(solved)
    return text + "; ".join(points) + (f"; no plan at {missing} values." if missing else ".")

"""One picture of a plan: why this (K, tau), and what limits the batch of each device.

matplotlib is imported when a picture is drawn, and figures are made without pyplot, so drawing changes no
global state and needs no display.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError, MissingDependencyError
from coopt.objectives.monotone import member_values
from coopt.problem import limits
from coopt.problem.fleet_fields import device_name
from coopt.solvers.whole_units.batches import allocate_batches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from coopt.objectives.monotone import MonotoneForm
    from coopt.objectives.protocol import Bound
    from coopt.plans.allocation import Allocation
    from coopt.plans.described_figure import DescribedFigure
    from coopt.problem.problem import Problem

# Okabe and Ito's colours, which stay apart for every common kind of colour blindness.
CHOSEN, COST, TIME, HELD, INK, BEYOND = "#D55E00", "#CC79A7", "#0072B2", "#999999", "#222222", "#e6e6e6"
# Above this many devices names no longer fit under the axis.
MOST_NAMES = 40
# Points along each axis of the error bound, its levels, and how far above the best they reach.
GRID, LEVELS, WORST_SHOWN = 48, 25, 30.0


def new_figure(width: float, height: float, description: str) -> DescribedFigure:
    """An empty figure, in inches, that carries a description in words.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from coopt.plans.described_figure import DescribedFigure

    figure = DescribedFigure(
        figsize=(width, height), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06)
    )
    figure.description = description
    return figure


def plain(axes: Axes, *, title: str = "") -> None:
    """The look that all pictures share: no frame, ink instead of black, a title at the left."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=BEYOND, linewidth=0.6)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", fontweight="bold", color=INK, fontsize=11)


def plot_allocation(allocation: Allocation) -> DescribedFigure:
    """Draw a plan: the error bound over (K, tau) on the left, the batch sizes on the right.

    Parameters
    ----------
    allocation : Allocation

    Returns
    -------
    matplotlib.figure.Figure
        With its ``description`` in words.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(12.5, 5.2, _described(allocation))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    _draw_bound(left, allocation)
    _draw_batches(right, allocation)
    return figure


def _described(allocation: Allocation) -> str:
    plan, batches = allocation, allocation.batch_sizes
    names = plan.problem.fleet.names
    low, high = int(batches.argmin()), int(batches.argmax())
    return (
        f"Left: {plan.quantity.lower()} over rounds K and local steps tau, with the best batch sizes at "
        f"each. The plan has K = {plan.rounds:,}, tau = {plan.local_steps:,} and {plan.predicted_error:.4g}; "
        f"{' and '.join(plan.binding) or 'no limit'} bind{'' if len(plan.binding) > 1 else 's'}. "
        f"Right: batch sizes of {batches.size} devices against their caps, from {batches[low]:,} "
        f"({device_name(names, low)}) to {batches[high]:,} ({device_name(names, high)}) samples."
    )


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture to a file; the suffix says in which format.

    Raises
    ------
    InvalidProblemError
        If matplotlib does not know the format, or the file cannot be written.
    """
    check_picture(path)
    try:
        figure.savefig(path)
    except OSError as error:
        raise InvalidProblemError(f"{path}: cannot be written: {error}") from error


def check_picture(path: str | Path) -> None:
    """Refuse a picture that cannot be drawn, before the work that it is to show.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InvalidProblemError
        If matplotlib does not know the format.
    """
    need_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise InvalidProblemError(
            f"{path}: is no picture format: end the name in one of {', '.join(sorted(known))}"
        )


def need_matplotlib() -> None:
    """Raise MissingDependencyError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingDependencyError('a picture needs matplotlib: pip install "coopt[plot]"')


def bound_surface(
    allocation: Allocation, rounds: NDArray[np.int64], local_steps: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Error bound for each (K, tau) with the best batch sizes; NaN beyond the limits.

    Batch sizes are relaxed to real numbers. A family of bounds is represented by the plan's member and, for
    each tau, by those that suit a few K best, so that the surface is a valid bound near the family's.

    Parameters
    ----------
    allocation : Allocation
    rounds, local_steps : ndarray of int64, shapes (k,) and (t,)

    Returns
    -------
    ndarray, shape (k, t)
    """
    problem = allocation.as_run
    family = _family(allocation)
    lower, _ = problem.fleet.batch_range()
    surface = np.full((rounds.size, local_steps.size), np.nan)
    for column, tau in enumerate(local_steps.tolist()):
        most = limits.most_rounds(problem, tau, lower)
        fitting = rounds if most is None else rounds[rounds <= most]
        if fitting.size:
            members = _members(allocation, family, fitting, tau)
            surface[: fitting.size, column] = [
                min(_relaxed(problem, member, count, tau)[0] for member in members)
                for count in fitting.tolist()
            ]
    return surface


def _relaxed(
    problem: Problem, bound: Bound, rounds: int, local_steps: int
) -> tuple[float, NDArray[np.float64] | NDArray[np.int64]]:
    """Value and batch sizes of the continuous optimum at one (K, tau) that fits the limits."""
    offset, weights = bound.coefficients(problem, rounds, local_steps)
    lower, most = problem.fleet.batch_range()
    if not np.isfinite(weights).all():
        return math.inf, lower
    upper = np.maximum(limits.largest_batches(problem, rounds, local_steps, most), lower)
    budget = max(limits.step_budget(problem, rounds, local_steps), 0.0)
    best = allocate_batches(weights, problem.plain.fleet.sample_cost, budget, lower, upper, integer=False)
    return offset + best.value, best.batch_sizes


def _family(allocation: Allocation) -> MonotoneForm | None:
    """The family whose best the plan is; None where the plan is for a single bound."""
    problem, member = allocation.problem, allocation.bound_object.young
    if member is None:
        return None
    family = member.with_numbers("auto", "auto")
    best = family.value(problem, allocation.rounds, allocation.local_steps, allocation.batch_sizes)
    # A plan for one member with numbers of the user's choice is not the family's best.
    return family.monotone_form(problem) if best >= allocation.predicted_error * (1.0 - 1e-9) else None


def _members(
    allocation: Allocation, family: MonotoneForm | None, rounds: NDArray[np.int64], tau: int
) -> list[Bound]:
    """The plan's member of the family, and those that suit the ends and the middle of a range of K best."""
    members: list[Bound] = [allocation.bound_object]
    if family is not None:
        for count in {int(rounds[0]), int(rounds[rounds.size // 2]), int(rounds[-1])}:
            _, batches = _relaxed(allocation.as_run, members[0], count, tau)
            for _ in range(2):
                values = member_values(family, count, tau, batches.astype(np.float64))
                best = family.members[int(values.argmin())]
                _, batches = _relaxed(allocation.as_run, best, count, tau)
            members.append(best)
    return [member for place, member in enumerate(members) if member not in members[:place]]


def _draw_bound(axes: Axes, allocation: Allocation) -> None:
    from matplotlib.colors import LogNorm

    rounds, local_steps = _grid(allocation)
    surface = bound_surface(allocation, rounds, local_steps)
    best = max(float(np.nanmin(surface)), np.finfo(float).tiny)
    worst = min(max(float(np.nanmax(surface)), best * 1.5), best * WORST_SHOWN)
    # Contours know no infinity; what lies above the scale is all one colour.
    surface = np.minimum(surface, 2.0 * worst)
    levels = np.geomspace(best * (1.0 - 1e-9), worst, LEVELS)
    norm = LogNorm(levels[0], levels[-1])
    filled = axes.contourf(local_steps, rounds, surface, levels, cmap="viridis", norm=norm, extend="max")
    axes.contour(local_steps, rounds, surface, levels[1::3], colors="white", linewidths=0.4, alpha=0.6)
    bar = axes.figure.colorbar(filled, ax=axes, pad=0.02)
    bar.set_label(allocation.quantity.lower(), color=INK)
    bar.outline.set_visible(False)
    bar.minorticks_off()
    bar.set_ticks(_round_numbers(levels[0], levels[-1]))
    bar.ax.yaxis.set_major_formatter("{x:g}")

    tau = np.geomspace(local_steps[0], local_steps[-1], 400)
    axes.set_facecolor(BEYOND)
    axes.fill_between([], [], color=BEYOND, label="beyond the limits, whatever the batch sizes")
    for label, colour, style, most in _limit_curves(allocation, tau):
        axes.plot(tau, most, color=colour, linestyle=style, linewidth=2.0, label=label)
    axes.plot(
        allocation.local_steps,
        allocation.rounds,
        marker="*",
        markersize=19,
        color=CHOSEN,
        markeredgecolor="white",
        markeredgewidth=1.2,
        linestyle="none",
        label=f"plan: K = {allocation.rounds:,}, tau = {allocation.local_steps:,}",
        zorder=5,
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(local_steps[0], local_steps[-1])
    axes.set_ylim(rounds[0], rounds[-1])
    _label_log_axis(axes.xaxis)
    _label_log_axis(axes.yaxis)
    _dress(
        axes, f"{allocation.quantity}, with the best batch sizes", "local steps per round, tau", "rounds, K"
    )


def _grid(allocation: Allocation) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rounds and local steps around the plan, far enough to see what the limits cut off."""
    lower, _ = allocation.problem.fleet.batch_range()
    most = limits.most_rounds(allocation.as_run, 1, lower)
    top = allocation.rounds * 10 if most is None else min(round(most * 1.3) + 1, allocation.rounds * 100)
    bottom = max(allocation.rounds // 20, 1)
    right = max(allocation.local_steps * 10, 20)

    def spread(low: int, high: int, *exactly: int) -> NDArray[np.int64]:
        between = np.geomspace(low, high, GRID).round()
        return np.unique([*between, *exactly]).astype(np.int64)

    # The plan and the limit are grid points, so that colour meets both.
    edge = top if most is None else min(most, top)
    return spread(bottom, top, allocation.rounds, edge), spread(1, right, allocation.local_steps)


def _limit_curves(
    allocation: Allocation, tau: NDArray[np.float64]
) -> list[tuple[str, str, str, NDArray[np.float64]]]:
    """Label, colour, line style and largest K over tau, of each limit, at the batch sizes of the plan."""
    problem, batches = allocation.as_run, allocation.batch_sizes
    fleet, budget = problem.fleet, problem.budget
    curves = []
    with np.errstate(divide="ignore"):
        if np.isfinite(budget.cost):
            step = limits.work(problem, batches) + problem.plain.fleet.whole_step_cost
            per_round = tau * step + problem.plain.budget.round_cost
            curves.append(("cost limit with the plan's batch sizes", COST, "-", budget.cost / per_round))
        if np.isfinite(budget.time):
            seconds = np.outer(tau, limits.step_times(problem, batches)) + fleet.round_time
            per_round = seconds.max(axis=1)
            curves.append(("time limit with the plan's batch sizes", TIME, "--", budget.time / per_round))
    return curves


def _draw_batches(axes: Axes, allocation: Allocation) -> None:
    problem = allocation.as_run
    fleet = problem.fleet
    size = len(fleet)
    batches = allocation.batch_sizes.astype(float)
    held = fleet.batch_range()[1].astype(float)
    timed = limits.time_caps(problem, allocation.rounds, allocation.local_steps)
    named = size <= MOST_NAMES
    order = np.arange(size) if named else np.argsort(-batches, kind="stable")
    x = np.arange(size)
    if named:
        top = np.maximum(np.minimum(held, timed), batches)
        axes.vlines(x, batches, top, color="#c9c9c9", linewidth=1.0, zorder=1)
    for values, colour, label in (
        (held, HELD, "cap: samples held, or max_batch"),
        (timed, TIME, "cap: what the device finishes in time"),
    ):
        shown = np.isfinite(values[order])
        marker, points = ("_", 14.0) if named else (".", 5.0)
        axes.plot(
            x[shown],
            values[order][shown],
            marker,
            color=colour,
            markersize=points,
            markeredgewidth=2.0 if named else 0.0,
            label=label,
        )
    size_of_dot = 7.0 if named else 3.0
    axes.plot(
        x, batches[order], "o", color=CHOSEN, markersize=size_of_dot, label="plan: batch size", zorder=4
    )
    axes.set_yscale("log")
    _label_log_axis(axes.yaxis)
    axes.set_xlim(-0.8, size - 0.2)
    if named:
        names = fleet.names or tuple(str(i) for i in range(size))
        axes.set_xticks(x, names, rotation=90 if size > 8 else 0, fontsize=8)
        horizontal = ""
    else:
        horizontal = "devices, largest batch first"
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    _dress(axes, "Batch size of each device", horizontal, "samples per local step")


def label_ticks(axes: Axes, *, whole: bool = False) -> None:
    """Write numbers at the ticks as people do: no powers of ten, thousands apart, few enough not to touch.

    With `whole` the vertical axis counts something that has no parts.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            _label_log_axis(axis)
            continue
        low, high = axis.get_view_interval()
        axis.set_major_locator(MaxNLocator(5, integer=whole and axis is axes.yaxis))
        if max(abs(low), abs(high)) >= 1000.0:
            axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _label_log_axis(axis: Axis) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1.0 else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two numbers; the ends where there are fewer than two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    inside = [value for value in found if low <= value <= high]
    return inside if len(inside) > 1 else [low, high]


def _dress(axes: Axes, title: str, horizontal: str, vertical: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", color=INK, fontsize=12, pad=42)
    axes.set_xlabel(horizontal, color=INK)
    axes.set_ylabel(vertical, color=INK)
    axes.tick_params(colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=8)
    # The title's padding leaves the room; counted in, a wide legend would squeeze the axes instead.
    legend.set_in_layout(False)

"""The picture of a sensitivity: what one more of each limit buys, and what the shadow price had said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coopt.plans.plot import CHOSEN, HELD, INK, TIME, new_figure, plain
from coopt.problem.fleet_fields import device_name

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure
    from coopt.questions.changes import Change, Sensitivity

UNITS = {"time": " s", "energy": " J", "max_batch": " samples"}
# Quantities that are changed by a share, not by an amount.
SHARES = ("gradient_noise", "divergence")


def plot_changes(sensitivity: Sensitivity) -> DescribedFigure:
    """Draw the exact gain of each change as a bar, and that of its shadow price as a mark.

    Parameters
    ----------
    sensitivity : Sensitivity

    Returns
    -------
    DescribedFigure

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    solved = [change for change in sensitivity.changes if change.allocation is not None]
    solved.sort(key=lambda change: abs(change.gain))
    base = abs(sensitivity.allocation.objective_value) or 1.0
    names = [_name(change, sensitivity) for change in solved]
    gains = np.array([100.0 * change.gain / base for change in solved])
    best = ", ".join(f"{name} {gain:+.3g} %" for name, gain in zip(names[::-1], gains[::-1], strict=True))
    figure = new_figure(
        7.6,
        1.4 + 0.32 * len(solved),
        f"By how much the smallest {sensitivity.allocation.objective} falls with each change, in per cent of "
        f"{base:.4g}: {best or 'no change has a plan'}.",
    )
    axes = figure.subplots()
    places = np.arange(len(solved))
    colours = [TIME if gain >= 0.0 else HELD for gain in gains]
    axes.barh(places, gains, color=colours, height=0.62, label="solved anew, exact")
    prices = [change.predicted_gain for change in solved]
    known = [place for place, price in enumerate(prices) if price is not None]
    if known:
        axes.plot(
            [100.0 * price / base for price in prices if price is not None],
            known,
            linestyle="none",
            marker="D",
            markersize=6,
            color=CHOSEN,
            markeredgecolor="white",
            label="shadow price, continuous batches",
        )
    axes.set_yticks(places, names)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"fall of the smallest {sensitivity.allocation.objective} [% of {base:.4g}]")
    plain(axes, title="What a little more of each would buy")
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _name(change: Change, sensitivity: Sensitivity) -> str:
    device = ""
    if change.device is not None:
        device = f" of {device_name(sensitivity.allocation.problem.fleet.names, change.device)}"
    if change.quantity in SHARES:
        return f"{change.quantity} {100.0 * change.amount:+.3g} %"
    return f"{change.quantity}{device} {change.amount:+.4g}{UNITS.get(change.quantity, '')}"

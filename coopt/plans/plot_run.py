"""Pictures of a training run: what it reached, what it did in each round, and what it spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coopt.plans.plot import CHOSEN, COST, HELD, INK, TIME, label_ticks, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from coopt.plans.described_figure import DescribedFigure

Floats = NDArray[np.float64]

# Lines apart for every common kind of colour blindness (Okabe and Ito), and by their dashes as well.
LINES = ((CHOSEN, "-"), (TIME, "--"), ("#009E73", "-."), (COST, ":"))


def plot_losses(runs: Mapping[str, tuple[Floats, Floats, Floats]]) -> DescribedFigure:
    """Draw what runs reached for what they spent.

    Parameters
    ----------
    runs : mapping of str to (losses, costs, seconds)
        Of each run, before the first round and after each.

    Returns
    -------
    DescribedFigure

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    ends = "; ".join(
        f"{label}: {losses[0]:.4g} to {losses[-1]:.4g} in {losses.size - 1:,} rounds, for {costs[-1]:.6g} "
        f"and {seconds[-1]:.6g} s"
        for label, (losses, costs, seconds) in runs.items()
    )
    figure = new_figure(9.0, 3.8, f"Loss over cost (left) and over time (right). {ends}.")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (label, (losses, costs, seconds)) in enumerate(runs.items()):
        colour, dashes = LINES[place % len(LINES)]
        for axes, spent in ((left, costs), (right, seconds)):
            axes.plot(spent, losses, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    left.set_xlabel("cost")
    right.set_xlabel("time [s]")
    left.set_ylabel("loss")
    for axes, title in ((left, "The loss for what was spent"), (right, "and for the time it took")):
        plain(axes, title=title)
        label_ticks(axes)
    if len(runs) > 1:
        right.legend(frameon=False, fontsize=8)
    return figure


def plot_rounds(columns: Mapping[str, Floats], batch_sizes: NDArray[np.int64]) -> DescribedFigure:
    """Draw a run round by round in six panels.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (rounds,)
        ``train_loss``, ``test_loss``, ``metric``, ``local_steps``, ``learning_rate``, ``cost`` and
        ``seconds``; NaN where a value is not known.
    batch_sizes : ndarray of int, shape (rounds, N)

    Returns
    -------
    DescribedFigure

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(11.0, 5.8, _described(columns, batch_sizes))
    (loss, metric, rate), (steps, batches, spend) = figure.subplots(2, 3, sharex=True)
    number = np.arange(1, len(columns["cost"]) + 1)
    for place, (name, label) in enumerate((("train_loss", "mini-batches"), ("test_loss", "test data"))):
        _line(loss, number, columns[name], label, place)
    if loss.get_legend_handles_labels()[1]:
        loss.legend(frameon=False, fontsize=8)
    loss.set_ylabel("loss")
    _line(metric, number, columns["metric"], "metric", 0)
    metric.set_ylabel("metric on test data")
    rate.step(number, columns["learning_rate"], where="mid", color=CHOSEN)
    rate.set_ylabel("learning rate")
    steps.step(number, columns["local_steps"], where="mid", color=CHOSEN)
    steps.set_ylabel("local steps")
    if batch_sizes.size:
        low, middle, high = np.percentile(batch_sizes, [0, 50, 100], axis=1)
        batches.fill_between(
            number, low, high, step="mid", color=HELD, alpha=0.4, linewidth=0.0, label="all devices"
        )
        batches.step(number, middle, where="mid", color=CHOSEN, label="median")
        batches.set_yscale("log")
        batches.legend(frameon=False, fontsize=8)
    batches.set_ylabel("batch size [samples]")
    spend.plot(number, columns["cost"], color=COST)
    spend.set_ylabel("cost, so far", color=COST)
    clock = spend.twinx()
    clock.plot(number, columns["seconds"], color=TIME, linestyle="--")
    clock.set_ylabel("time, so far [s] (dashed)", color=TIME)
    clock.spines["top"].set_visible(False)
    for axes in (loss, metric, rate, steps, batches, spend):
        plain(axes)
        label_ticks(axes, whole=axes is steps)
    label_ticks(clock)
    spend.yaxis.label.set_color(COST)
    for axes in (steps, batches, spend):
        axes.set_xlabel("round")
    return figure


def _line(axes: Axes, number: NDArray[np.int64], values: Floats, label: str, place: int) -> None:
    known = np.isfinite(values)
    if known.any():
        colour, dashes = LINES[place]
        axes.plot(number[known], values[known], color=colour, linestyle=dashes, label=label)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=INK)


def _described(columns: Mapping[str, Floats], batch_sizes: NDArray[np.int64]) -> str:
    parts = []
    for name, words in (
        ("train_loss", "loss on mini-batches"),
        ("test_loss", "loss on test data"),
        ("metric", "metric on test data"),
        ("local_steps", "local steps"),
        ("learning_rate", "learning rate"),
    ):
        known = columns[name][np.isfinite(columns[name])]
        if known.size:
            parts.append(f"{words} {known[0]:.4g} to {known[-1]:.4g}")
    if batch_sizes.size:
        middle = np.median(batch_sizes, axis=1)
        parts.append(f"median batch size {middle[0]:.4g} to {middle[-1]:.4g}")
        parts.append(f"spent {columns['cost'][-1]:.6g} and {columns['seconds'][-1]:.6g} s")
    return f"A run of {len(columns['cost']):,} rounds, first to last: {'; '.join(parts)}."

"""Pictures of a measurement: how the loss curves, how the devices differ, and what came of its forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from coopt.errors import InvalidProblemError
from coopt.plans.plot import CHOSEN, INK, TIME, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from coopt.measuring.measurement import Measurement
    from coopt.objectives.forecast.forecast import Plan
    from coopt.plans.described_figure import DescribedFigure


def plot_measurement(measurement: Measurement) -> DescribedFigure:
    """Draw the spectrum of the curvature on the left, noise and divergence of the devices on the right.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    low, high = float(measurement.divergence.min()), float(measurement.divergence.max())
    figure = new_figure(
        11.0,
        4.6,
        f"Left: Ritz values of the averaged curvature in {measurement.directions} directions, from "
        f"{measurement.spectrum[0]:.4g} to {measurement.spectrum[-1]:.4g}, and how the squared gradient is "
        f"shared among them. Right: {len(measurement)} devices by divergence ({low:.4g} to {high:.4g}) and "
        f"root of the noise; the averaged gradient has norm {measurement.gradient_norm:.4g}.",
    )
    left, right = figure.subplots(1, 2)
    _draw_spectrum(left, measurement)
    _draw_devices(right, measurement)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    return figure


def _draw_spectrum(axes: Axes, measurement: Measurement) -> None:
    values, vectors = np.linalg.eigh(measurement.curvature)
    order = np.arange(1, len(values) + 1)
    descending = values[::-1]
    upward = descending > 0.0
    spectra = measurement.device_spectra[measurement.measured]
    low, high = np.quantile(spectra, [0.05, 0.95], axis=0)
    floor = 1e-6 * max(float(descending[0]), float(high.max()), np.finfo(float).tiny)
    axes.fill_between(
        order, np.maximum(low, floor), np.maximum(high, floor), color="#e6e6e6", label="9 of 10 devices"
    )
    axes.plot(order[upward], descending[upward], "o-", color=TIME, label="averaged curvature")
    axes.plot(
        order[~upward],
        np.maximum(-descending[~upward], floor),
        "o",
        mfc="none",
        color=TIME,
        label="curved downwards (size)" if (~upward).any() else None,
    )
    axes.set_yscale("log")
    axes.set_xlabel("direction, steepest curvature first", color=INK)
    axes.set_ylabel("Ritz value", color=INK)
    shares = (vectors.T @ measurement.gradient)[::-1] ** 2
    twin = axes.twinx()
    twin.bar(
        order, shares / max(float(shares.sum()), np.finfo(float).tiny), color=CHOSEN, alpha=0.35, width=0.6
    )
    twin.set_ylim(0.0, 1.0)
    twin.set_ylabel("share of the squared gradient (bars)", color=CHOSEN)
    twin.spines["top"].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("How the loss curves", loc="left", fontweight="bold", color=INK)


def _draw_devices(axes: Axes, measurement: Measurement) -> None:
    root = np.sqrt(measurement.noise)
    for chosen, marker, label in (
        (measurement.measured, "o", "measured"),
        (~measurement.measured, "x", "filled in from others"),
    ):
        if chosen.any():
            size = 20.0 + 200.0 * measurement.weights[chosen] / measurement.weights.max()
            axes.scatter(
                measurement.divergence[chosen],
                root[chosen],
                s=size,
                marker=marker,
                color=TIME,
                alpha=0.5,
                label=label,
            )
    axes.axvline(measurement.gradient_norm, color=CHOSEN, label="norm of the averaged gradient")
    axes.set_xlim(left=0.0)
    axes.set_ylim(0.0, 1.15 * max(float(root.max()), np.finfo(float).tiny))
    axes.set_xlabel("divergence from the averaged gradient", color=INK)
    axes.set_ylabel("noise of one sample's gradient (root)", color=INK)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("How the devices differ", loc="left", fontweight="bold", color=INK)


def plot_training(measurement: Measurement, plan: Plan, losses: ArrayLike) -> DescribedFigure:
    """Draw what a plan was forecast to reach, and what training by it reached.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InvalidProblemError
        If losses are not as many as the plan has rounds, with or without the one before the first.
    """
    gaps = measurement.forecast().curve(plan)
    trained = np.asarray(losses, dtype=np.float64)
    if trained.shape not in ((plan.rounds,), (plan.rounds + 1,)):
        raise InvalidProblemError(
            f"losses has shape {trained.shape}: must have ({plan.rounds},), one a round, or one more in "
            "front for the loss before the first"
        )
    rounds = np.arange(plan.rounds + 1)
    expected = float(measurement.loss + gaps[-1] - gaps[0])
    figure = new_figure(
        6.5,
        4.4,
        f"Loss over {plan.rounds:,} rounds: the forecast ends at {expected:.4g}, training at "
        f"{float(trained[-1]):.4g}, from {measurement.loss:.4g} before the first round. The forecast is no "
        "bound.",
    )
    axes = figure.subplots()
    # The lowest loss is known badly: the forecast is of the change.
    axes.plot(rounds, measurement.loss + gaps - gaps[0], "--", color=INK, label="forecast, no bound")
    axes.plot(rounds[-trained.size :], trained, color=CHOSEN, label="trained")
    axes.set_xlabel("rounds", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    axes.legend(frameon=False)
    axes.set_title(
        f"{plan.local_steps} local steps a round, batches of "
        f"{int(plan.batch_sizes.min())} to {int(plan.batch_sizes.max())}",
        loc="left",
        fontweight="bold",
        color=INK,
    )
    return figure

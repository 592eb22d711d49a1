"""From what the measured devices found to a measurement of the whole fleet."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.errors import MeasurementWarning
from coopt.measuring.measurement import Measurement
from coopt.measuring.parts import Projected, sampling_variance
from coopt.measuring.prepare import Survey

Floats = NDArray[np.float64]

# Shares of the gradient outside the directions, and of upward curvature that is downward, that are warned of.
MUCH_UNSEEN, MUCH_NEGATIVE = 0.5, 0.1
# Share of the fall of the loss that fresh rows confirm. With 32 rows of each of ten devices it was at most
# .14 where labels were random, and at least .21 elsewhere; with 8 rows hard pictures look as random ones do.
LITTLE_CONFIRMED = 0.2


@dataclass(frozen=True, eq=False)
class Circumstances:
    """How a measurement was taken.

    Attributes
    ----------
    samples_used : int
    parameters : int
    kind, reason : str
        Kind of curvature, and why this one.
    point : numpy.ndarray, shape (m,)
        The model in the directions.
    cut_off : bool
        Whether the curvature leads out of the directions.
    """

    samples_used: int
    parameters: int
    kind: str
    reason: str
    point: Floats
    cut_off: bool


def assemble(parts: Projected, survey: Survey, how: Circumstances) -> Measurement:
    """Subtract what sampling adds, fill in the devices that were not measured, and warn.

    Parameters
    ----------
    parts : Projected
        Of the measured devices.
    survey : Survey
    how : Circumstances
    """
    shares, rows = survey.shares, survey.rows
    held = np.array([r.held for r in rows], dtype=np.int64)
    first = np.array([len(r.first) for r in rows], dtype=np.int64)
    fresh = np.array([len(r.fresh) for r in rows], dtype=np.int64)
    counts = shares.counts
    mean = counts @ parts.gradients
    variance = sampling_variance(parts.noise, first, held)
    outside = np.maximum(parts.noise - np.trace(parts.covariances, axis1=1, axis2=2), 0.0)
    # The mean of the distances' squares: noise of device i and of the average, less twice what they share.
    averaged = float(counts**2 @ variance)
    distances = parts.squares - 2.0 * parts.gradients @ mean + mean @ mean
    distances -= (1.0 - 2.0 * counts) * variance + averaged
    divergence = np.sqrt(np.maximum(distances, 0.0))
    hidden = parts.squares - np.sum(parts.gradients**2, axis=1) - sampling_variance(outside, first, held)
    fill = shares.fill
    rows_used, measured = np.zeros(len(fill), dtype=np.int64), np.zeros(len(fill), dtype=bool)
    rows_used[shares.measured], measured[shares.measured] = first, True
    measurement = Measurement(
        samples=survey.samples,
        weights=shares.weights,
        names=survey.names,
        gradients=fill @ parts.gradients,
        fresh_gradient=parts.fresh,
        curvatures=np.tensordot(fill, parts.curvatures, axes=1),
        covariances=np.tensordot(fill, parts.covariances, axes=1),
        noise=fill @ parts.noise,
        divergence=fill @ divergence,
        gradient_norm=math.sqrt(max(float(mean @ mean) - averaged, 0.0)),
        unseen=_unseen(parts, counts**2, outside, fresh, held),
        unseen_divergence=_share(float(counts @ hidden), float(counts @ distances)),
        loss=float(counts @ parts.losses),
        sample_curvature=_sharpness(parts.sharpness, counts),
        rows=rows_used,
        measured=measured,
        samples_used=how.samples_used,
        curvature_kind=how.kind,
        curvature_reason=how.reason,
        parameters=how.parameters,
        point=how.point,
        cut_off=how.cut_off,
        sample_curvatures=None if parts.sharpness is None else _sharpnesses(fill @ parts.sharpness),
    )
    _warn(measurement)
    return measurement


def _unseen(
    parts: Projected, squares: Floats, outside: Floats, fresh: NDArray[np.int64], held: NDArray[np.int64]
) -> float:
    """Share of the squared averaged gradient outside the directions, on rows that did not choose them.

    A device without such rows has given all that it holds: its gradient is exact.
    """
    total, inside = parts.fresh_square, float(parts.fresh @ parts.fresh)
    exact = fresh == 0
    rows = np.where(exact, held, fresh)
    noise = float(squares @ sampling_variance(parts.noise, rows, held))
    hidden = float(squares @ sampling_variance(outside, rows, held))
    # Where the gradient drowns in the noise of these rows their difference says nothing.
    return _share(total - inside - hidden, max(total - noise, total / 2.0))


def _sharpness(sharpness: Floats | None, counts: Floats) -> float | None:
    """E c^2 / E c over the curvatures c of the loss of single rows."""
    if sharpness is None:
        return None
    mean, square = counts @ sharpness
    return float(square / mean) if mean > 0.0 else 0.0


def _sharpnesses(moments: Floats) -> Floats:
    """The same of each device, from means of c and c^2, shape (N, 2)."""
    mean, square = moments.T
    found: Floats = np.divide(square, mean, out=np.zeros_like(mean), where=mean > 0.0)
    return found


def _share(part: float, whole: float) -> float:
    """Part of a whole where both are estimates, and may be negative."""
    if not whole > 0.0:
        return 0.0
    return min(max(part / whole, 0.0), 1.0)


def _warn(measurement: Measurement) -> None:
    if measurement.unseen > MUCH_UNSEEN:
        warnings.warn(
            f"{measurement.unseen:.0%} of the squared gradient lies outside the {measurement.directions} "
            "directions measured, as other rows show: a forecast misses what training gains there; "
            "measure more rows, or later in training",
            MeasurementWarning,
            stacklevel=4,
        )
    if measurement.confirmed < LITTLE_CONFIRMED:
        warnings.warn(
            f"fresh rows confirm {measurement.confirmed:.0%} of the fall of the loss that the rows measured "
            "promise: what rows have in common drowns in their noise, as with labels at random; measure more "
            "rows, or do not rely on the forecast",
            MeasurementWarning,
            stacklevel=4,
        )
    highest, lowest = measurement.spectrum[0], measurement.spectrum[-1]
    if -lowest > MUCH_NEGATIVE * max(highest, 0.0):
        warnings.warn(
            f"the loss curves downwards in some direction (Ritz values {lowest:.3g} to {highest:.3g}): its "
            "quadratic model has no lowest point there; a Gauss-Newton curvature has none of these "
            '(coopt.adapters.torch.measure with curvature="gauss-newton")',
            MeasurementWarning,
            stacklevel=4,
        )

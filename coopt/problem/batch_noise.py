"""Noise of every batch as a whole, such as DP-SGD adds: R / s^2, which is convex in x = 1 / s.

A fleet knows M (x - 1/n), the noise of batches without replacement from n samples. The tangent of
M (x - 1/d) + R x^2 at x = 1/t is of that form, (M + 2 R / t) (x - 1/n): it is nowhere above, and from s = n
on, where it would be negative, it may count as zero. A plan with a larger batch than n is then no better by
it than with n, and uses more: to leave these batches out loses nothing, if n is a batch that is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.problem.validation import LARGEST_COUNT, float_array

if TYPE_CHECKING:
    from coopt.problem.fleet import Fleet

Floats = NDArray[np.float64]

ROUNDING = 1e-12


def tangent(fleet: Fleet, noise: ArrayLike, batch_sizes: ArrayLike) -> dict[str, Any]:
    """Fields of the fleet whose noise is a tangent of its own; see :meth:`coopt.Fleet.with_batch_noise`."""
    extra = float_array("noise", noise, len(fleet), minimum=0.0)
    lower, upper = fleet.batch_range()
    given = float_array("batch_sizes", batch_sizes, len(fleet), minimum=0.0, strict=True)
    near = np.clip(given, lower, upper)
    reference = np.zeros(len(fleet)) if fleet.replacement else 1.0 / fleet.samples
    some = extra > 0.0
    noisy = fleet.gradient_noise
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = (noisy + 2.0 * extra / near) / (noisy * reference + extra * near**-2.0)
        # A whole number must not fall below itself by rounding.
        wanted = np.where(some, wanted, 1.0 / reference) * (1.0 + ROUNDING)
    # Samples are whole, and where the largest batches are below them, a batch that is allowed: another
    # tangent, close by, has such a number.
    whole = np.rint(wanted) if fleet.replacement else np.floor(wanted)
    beyond = np.clip(whole, upper, LARGEST_COUNT // len(fleet))
    samples = np.where(wanted >= upper, beyond, fleet.rounded_down(wanted)).astype(np.int64)
    # R x at which it touches, the larger root of R x^2 - 2 R x / n = M (1/n - 1/d).
    slope = np.square(extra / samples) + noisy * extra * (1.0 / samples - reference)
    touching = extra / samples + np.sqrt(np.maximum(slope, 0.0))
    return {
        "samples": samples,
        "gradient_noise": noisy + 2.0 * touching,
        "weights": fleet.weights,
        "max_batch": np.minimum(fleet.max_batch, samples),
        "replacement": False,
    }

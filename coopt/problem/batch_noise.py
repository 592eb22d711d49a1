"""Noise of every batch as a whole, such as DP-SGD adds: R / s^2, which is convex in x = 1 / s.

A fleet knows M (x - 1/n), the noise of batches without replacement from n samples. The tangent of
M (x - 1/d) + R x^2 at x = 1/t is of that form, (M + 2 R / t) (x - 1/n): it is nowhere above, and from s = n
on, where it would be negative, it may count as zero. A plan with a larger batch than n is then no better by
it than with n, and uses more: to leave these batches out loses nothing, if n is a batch that is allowed.

Only a bound takes its noise from the fleet. Whoever knows the noise otherwise would see the made-up samples
and not the noise: forecasts and controllers refuse such a fleet.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.fleet import Fleet
from coopt.problem.validation import LARGEST_COUNT, float_array

Floats = NDArray[np.float64]

ROUNDING = 1e-12


class TangentFleet(Fleet):
    """A fleet of :meth:`Fleet.with_batch_noise`: its samples are made up, so that bounds are right."""

    def with_batch_noise(self, noise: ArrayLike, batch_sizes: ArrayLike) -> Never:
        """Refuse: the noise would be there twice."""
        raise InvalidProblemError(
            "with_batch_noise: this fleet has noise of every batch already, and would have it twice; call it "
            "of the fleet that the first one was made of"
        )


def refuse_tangent(fleet: Fleet, instead: str) -> None:
    """Raise InvalidProblemError where a fleet has made-up samples; `instead` says why, and what to give."""
    if isinstance(fleet, TangentFleet):
        raise InvalidProblemError(
            f"fleet comes from with_batch_noise, which is for plans by a bound: {instead}"
        )


def with_tangent(fleet: Fleet, noise: ArrayLike, batch_sizes: ArrayLike) -> TangentFleet:
    """The fleet with a tangent in place of its noise; see :meth:`coopt.Fleet.with_batch_noise`."""
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
    given_fields = {field.name: getattr(fleet, field.name) for field in fields(fleet)}
    return TangentFleet(
        **given_fields
        | {
            "samples": samples,
            "gradient_noise": noisy + 2.0 * touching,
            "max_batch": np.minimum(fleet.max_batch, samples),
            "replacement": False,
        }
    )

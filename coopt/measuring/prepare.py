"""What is to be measured on which rows of which devices, decided before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.effort import Effort, fitting_effort
from coopt.measuring.parts import Rows, Shares, draw_rows
from coopt.measuring.shares import choose_shares
from coopt.problem.fleet_fields import aggregation_weights, device_names
from coopt.problem.validation import count, integer_array, numeric_array, optional_count, optional_real


@dataclass(frozen=True, eq=False)
class Survey:
    """Who is measured, on which rows, in how many directions.

    Attributes
    ----------
    samples : numpy.ndarray of int64, shape (N,)
        Samples that each device holds.
    names : tuple of str, or None
    shares : Shares
    rows : list of Rows
        Of the measured devices.
    directions : int
        At most; fewer if the space ends.
    """

    samples: NDArray[np.int64]
    names: tuple[str, ...] | None
    shares: Shares
    rows: list[Rows]
    directions: int

    def name(self, position: int) -> str:
        """Name of a measured device, for messages."""
        device = int(self.shares.measured[position])
        return str(device) if self.names is None else repr(self.names[device])


@dataclass(frozen=True)
class Options:
    """What callers may ask for; see :func:`coopt.measure`."""

    rows: ArrayLike
    directions: int
    seed: int
    weights: ArrayLike | None
    names: Sequence[str] | None
    samples: float | None
    devices: int | None
    strata: Sequence[object] | None
    left_out: ArrayLike


def prepare(held: Sequence[int], parameters: int, gradients_a_product: int, options: Options) -> Survey:
    """Choose devices, rows and directions.

    Parameters
    ----------
    held : sequence of int
        Samples of each device, at least one.
    parameters : int
        Parameters of the model.
    gradients_a_product : int
        Gradients that a product with the curvature costs.
    options : Options

    Raises
    ------
    InvalidProblemError
        If an option is out of range.
    """
    samples = np.array(held, dtype=np.int64)
    budget = optional_real("samples", options.samples, minimum=0.0, strict=True)
    seed = count("seed", options.seed, minimum=0)
    each = None if numeric_array("rows", options.rows).ndim == 0 else _rows_of_each(options, len(samples))
    shares = choose_shares(
        aggregation_weights(options.weights, samples),
        samples,
        most=optional_count("devices", options.devices),
        strata=options.strata,
        left_out=options.left_out if each is None else _left_out(options.left_out, each),
        seed=seed,
    )
    measured = samples[shares.measured].tolist()
    directions = min(count("directions", options.directions), parameters)
    if each is not None:
        rows = draw_rows(measured, each[shares.measured].tolist(), seed)
    else:
        wanted = Effort(count("rows", options.rows), directions)
        effort = fitting_effort(wanted, measured, gradients_a_product, budget)
        rows, directions = draw_rows(measured, [effort.rows] * len(measured), seed), effort.directions
    return Survey(samples, device_names(options.names, len(samples)), shares, rows, directions)


def _rows_of_each(options: Options, devices: int) -> NDArray[np.int64]:
    if options.samples is not None:
        raise InvalidProblemError(
            "rows is given for each device, and samples too: give one number of rows, which samples may cut"
        )
    return integer_array("rows", options.rows, devices, minimum=0)


def _left_out(left_out: ArrayLike, each: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those left out, and who is to look at no row."""
    return np.union1d(np.asarray(left_out, dtype=np.int64), np.flatnonzero(each == 0))

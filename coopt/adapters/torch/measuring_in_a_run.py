"""Measure within a run, where its planner wants that, on the clock of the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from coopt.adapters.finite_devices import measure_finite
from coopt.adapters.measuring_clock import MeasuringClock
from coopt.adapters.torch.measured_rows import GRADIENTS_A_PRODUCT
from coopt.errors import MeasurementWarning

if TYPE_CHECKING:
    from coopt.adapters.system import SystemModel
    from coopt.adapters.torch.data import ClientRows
    from coopt.measuring.measurement import Measurement
    from coopt.objectives.forecast.optimiser import Optimiser
    from coopt.online.planner import Planner
    from coopt.problem.fleet import Fleet


def measure_where_wanted(
    planner: Planner,
    measure: Callable[..., Measurement],
    held: ClientRows | None,
    system: SystemModel | None,
    optimiser: Optimiser,
    seed: int,
    now: Callable[[], float],
) -> list[str]:
    """Measure before a round if the planner wants that, and tell it.

    Parameters
    ----------
    planner : Planner
    measure : callable
        Measures the present model; takes rows, directions and a seed.
    held : ClientRows, or None
        What the clients hold; None before any data have arrived.
    system : SystemModel, or None
        The simulated clock; None where seconds are measured.
    optimiser : Optimiser
        What clients and server train with; where no forecast knows it, nothing is measured.
    seed : int
        Of the run.
    now : callable
        The clock where seconds are measured.

    Returns
    -------
    list of str
        What was noticed. Nobody can act on it while the run goes on, so it is no warning.
    """
    if not optimiser.forecastable:
        return []
    # Asked before any data have arrived, too: first rounds are brief where the planner knows that it will
    # be asked later.
    wanted = planner.wants(gradients_a_product=GRADIENTS_A_PRODUCT)
    if wanted is None or held is None:
        return []
    clock = None
    rows = np.where(held.counts > 0, wanted.rows, 0)
    if system is not None:
        clock = MeasuringClock(system, wanted, planner.round, GRADIENTS_A_PRODUCT)
        rows = np.minimum(rows, clock.answering())
    if not rows.any():
        planner.measured(None, seconds=0.0 if clock is None else clock.seconds(0))
        return []
    begun = now()
    measured = partial(
        measure,
        directions=wanted.directions,
        seed=seed + wanted.seed,
        progress=False,
        micro_batch=_memory(planner.fleet),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MeasurementWarning)
        found, broken = measure_finite(lambda some: measured(rows=some), rows)
    took = now() - begun if clock is None else clock.seconds(0 if found is None else found.directions)
    planner.measured(found, seconds=took, optimiser=optimiser)
    left_out = [f"client {device}: not measured, its loss or gradient is not finite" for device in broken]
    return left_out + [f"measuring: {each.message}" for each in caught]


def _memory(fleet: Fleet) -> int | None:
    """Most samples that go through the model at once; None where the fleet limits them nowhere."""
    if fleet.micro_batch is not None:
        return int(fleet.micro_batch.min())
    return int(fleet.max_batch.max()) if (fleet.max_batch < fleet.samples).any() else None

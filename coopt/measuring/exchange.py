"""Measure devices that are far away, in a few exchanges between the rounds of a training.

An exchange is one message to every device and one back, each with a vector as long as the model: the
gradient first, a product with the curvature for each direction, and last what the device has found in the
directions, some m^2 numbers. Vectors are averaged like models.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from coopt.errors import MeasurementWarning
from coopt.measuring.assemble import Circumstances, assemble
from coopt.measuring.client_measure import ClientMeasure
from coopt.measuring.differences import KIND, explore
from coopt.measuring.far_devices import Ask, FarDevices
from coopt.measuring.from_gradients import flat_model
from coopt.measuring.measurement import Measurement
from coopt.measuring.message import Message
from coopt.measuring.prepare import Options, prepare
from coopt.measuring.progress_bar import progress_bar
from coopt.problem.validation import integer_array

__all__ = ["ClientMeasure", "Message", "measure_clients"]


def measure_clients(
    ask: Ask,
    parameters: ArrayLike,
    samples: ArrayLike,
    *,
    rows: ArrayLike = 16,
    directions: int = 24,
    seed: int = 0,
    progress: bool | None = None,
    weights: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    budget: float | None = None,
    devices: int | None = None,
    strata: Sequence[object] | None = None,
    left_out: ArrayLike = (),
) -> Measurement:
    """Measure devices that are far away, between two rounds of their training.

    Parameters
    ----------
    ask : callable
        ``ask(message, clients) -> [(client, answer), ...]``: sends a message to some clients, each of which
        runs a :class:`ClientMeasure`, and gives the answers that came. Who does not answer, or not what can
        be, or far from all others, is not asked again, and takes over the weighted mean of the others. It may
        as well run a round of training that carries the message: devices keep the model that they are
        measured at.
    parameters : array_like, shape (n,)
        The present model.
    samples : array_like of int, shape (N,)
        Samples that each device holds.
    budget : float, optional
        Samples that all devices together are to process in training; measuring takes a twentieth at most.
    rows : int, or array_like of int, shape (N,)
        Rows of each device; 0 leaves a device out.
    directions, seed, progress, weights, names, devices, strata, left_out
        As in :func:`coopt.measure`.

    Returns
    -------
    Measurement

    Raises
    ------
    InvalidProblemError
        If no device answers, or an argument is out of range.

    Warns
    -----
    MeasurementWarning
        As :func:`coopt.measure` does, and where devices are left out, with the reason for each.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> def gradient(w, x):
    ...     return 0.5 * np.mean((w - x) ** 2), (w - x).mean(axis=0)
    >>> clients = [ClientMeasure(i, gradient, rng.normal(size=(50, 3))) for i in range(4)]
    >>> def ask(message, asked):
    ...     return [(i, clients[i].answer(message)) for i in asked]
    >>> measure_clients(ask, np.ones(3), [50] * 4)
    Measurement(4 devices, 2 directions of 3 parameters, gradient differences on 16 rows a device, ...
    """
    model = flat_model(parameters)
    held = integer_array("samples", samples, None, minimum=1)
    options = Options(rows, directions, seed, weights, names, budget, devices, strata, left_out)
    survey = prepare(held.tolist(), model.size, 1, options)
    with progress_bar("measuring", survey.directions + 2, progress) as advance:
        far = FarDevices(ask, model, survey, seed, advance)
        found = explore(far, model, survey.directions)
    failed = ~far.answering
    if failed.any():
        reasons = "; ".join(f"{survey.name(i)}: {why}" for i, why in list(far.left_out.items())[:5])
        warnings.warn(
            f"{failed.sum()} of {len(failed)} devices were left out ({reasons}): they take over the weighted "
            "mean of the others",
            MeasurementWarning,
            stacklevel=2,
        )
        kept = [each for each, lost in zip(survey.rows, failed, strict=True) if not lost]
        survey = replace(survey, shares=survey.shares.without(failed), rows=kept)
    how = Circumstances(far.samples_used, model.size, KIND, found.reason, found.point, found.cut_off)
    return assemble(found.parts, survey, how)

"""Measure a federation with torch: its gradients, curvatures and noise in a few directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from coopt.adapters.torch.curvature import explained, plain_kernels
from coopt.adapters.torch.data import ClientRows, SharedData, client_rows, gather
from coopt.adapters.torch.flat import FlatModel, LossFunction
from coopt.adapters.torch.local import PLAIN
from coopt.adapters.torch.measured_rows import GRADIENTS_A_PRODUCT, MeasuredRows
from coopt.errors import InvalidProblemError
from coopt.measuring.assemble import Circumstances, assemble
from coopt.measuring.measurement import Measurement
from coopt.measuring.prepare import Options, prepare
from coopt.measuring.progress_bar import progress_bar
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD
from coopt.problem.validation import choice, optional_count

CHOICES = ("auto", "hessian", "gauss-newton")


def measure(
    model: nn.Module,
    loss: LossFunction,
    client_datasets: SharedData | Sequence[Any],
    *,
    rows: npt.ArrayLike = 16,
    directions: int = 24,
    weight_decay: float = 0.0,
    curvature: Literal["auto", "hessian", "gauss-newton"] = "auto",
    optimiser: ClientSGD | ClientAdam = PLAIN,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool | None = None,
    weights: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None,
    samples: float | None = None,
    devices: int | None = None,
    strata: Sequence[object] | None = None,
    left_out: npt.ArrayLike = (),
    micro_batch: int | None = None,
) -> Measurement:
    """Measure the gradient, curvature and noise of every device in a few directions.

    Parameters
    ----------
    model : torch.nn.Module
        Copied, and put in evaluation mode: no dropout, batch normalisation with the statistics it has.
    loss : callable
        ``loss(outputs, targets)``: mean over the rows of a batch, a scalar tensor.
    client_datasets : SharedData, or sequence of (inputs, targets) pairs or torch data sets
        One entry a device.
    rows : int, or array_like of int, shape (N,), default 16
        Rows of each device for gradient and curvature, 0 to leave it out; the noise is taken on up to twice
        as many more.
    directions : int, default 24
        Directions, m. They end earlier where there are no more.
    weight_decay : float, default 0
        lambda: lambda / 2 times the squared norm of the parameters is added to the loss of every device.
    curvature : {"auto", "hessian", "gauss-newton"}, default "auto"
        "auto" takes the Hessian where the outputs are affine in the parameters, which is tried along two
        random directions: a loss that is convex in the outputs is then convex in the parameters. Elsewhere it
        takes the Gauss-Newton curvature, since the Hessian of a network curves downwards too, which no
        quadratic model can follow. ``curvature_kind`` and ``curvature_reason`` of the result say which and
        why.
    optimiser : ClientSGD or ClientAdam
        What devices are going to do with gradients. For Adam every parameter is measured in units of its own,
        (sqrt(v) + epsilon)^(-1/2) with v the mean of the squared gradients of batches of eight: in these
        units Adam with v frozen is plain steps along a running mean.
    device : str or torch.device, default "cpu"
        Where to compute.
    seed : int, default 0
        Source of the rows.
    progress : bool, optional
        Whether to show a progress bar; default: where standard error is a terminal.
    weights, names, samples, devices, strata, left_out
        As in :func:`coopt.measure`.
    micro_batch : int, optional
        Most rows in one pass through the model, of one device or several, but never less than the rows of a
        device; default: by the memory that they are likely to take.

    Returns
    -------
    Measurement

    Raises
    ------
    InvalidProblemError
        If a loss or gradient is not finite (the device is named), torch.func cannot differentiate the model,
        or an argument is out of range.

    Warns
    -----
    MeasurementWarning
        As :func:`coopt.measure` does.

    Notes
    -----
    Samples processed: r (2 m + 6) a device for r rows and m directions, 2 r of them fresh rows for the noise.
    Memory: 2 m vectors of the length of the model, the activations of at most 1024 rows (32 of large ones),
    and with the Gauss-Newton curvature m numbers for each row measured and each output. Sums are in double
    precision, the model in its own. Fused kernels of attention and recurrence, which know no second
    derivative, are switched off meanwhile.

    Examples
    --------
    >>> import torch
    >>> from coopt.adapters.torch import measure
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(90, 3, generator=generator)
    >>> y = (x.sum(dim=1) > 0).long()
    >>> model = torch.nn.Linear(3, 2)
    >>> measurement = measure(model, torch.nn.functional.cross_entropy, [(x[:60], y[:60]), (x[60:], y[60:])])
    >>> measurement.curvature_kind, measurement.parameters, len(measurement)
    ('hessian', 8, 2)
    """
    choice("curvature", curvature, CHOICES)
    flat = FlatModel(model, loss, device, weight_decay=weight_decay)
    flat.module.eval()
    data, held = _rows_of(gather(client_datasets))
    options = Options(rows, directions, seed, weights, names, samples, devices, strata, left_out)
    survey = prepare(held.counts.tolist(), flat.size, GRADIENTS_A_PRODUCT, options)
    with (
        progress_bar("measuring", survey.directions + 2, progress) as advance,
        explained(),
        plain_kernels(flat.module),
    ):
        found = MeasuredRows(flat, data, held, survey, curvature, optional_count("micro_batch", micro_batch))
        if isinstance(optimiser, ClientAdam):
            found.take_units_of(optimiser)
        parts = found.run(advance)
    how = Circumstances(found.samples_used, flat.size, found.kind, found.reason, found.point, found.cut_off)
    measured = assemble(parts, survey, how)
    return replace(measured, scaling="adam") if isinstance(optimiser, ClientAdam) else measured


def _rows_of(data: SharedData) -> tuple[SharedData, ClientRows]:
    if callable(data.rows):
        raise InvalidProblemError("rows of client_datasets change with the round: give those of one")
    held = client_rows(data.rows, len(data.inputs))
    if (held.counts == 0).any():
        client = int(np.argmin(held.counts))
        raise InvalidProblemError(f"rows of client {client} are empty: give every client a sample")
    return data, held

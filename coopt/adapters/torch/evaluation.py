"""Loss and accuracy of a model on test data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from coopt.adapters.torch.flat import FlatModel
from coopt.errors import InvalidProblemError

Metric = Callable[[Tensor, Tensor], Tensor]

CHUNK = 4096  # samples evaluated at once, so that test data need not fit through the model together


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose class is right.

    Parameters
    ----------
    outputs : torch.Tensor, shape (m, C), (m, 1) or (m,)
        Scores of C classes, or one score that is positive for the second of two classes.
    targets : torch.Tensor, shape (m,) or (m, 1)
        Class numbers; of two classes the second is the positive one.

    Raises
    ------
    InvalidProblemError
        If outputs and targets do not fit together so.
    """
    if outputs.ndim == 2 and outputs.shape[1] > 1 and targets.ndim == 1:
        return (outputs.argmax(dim=1) == targets).double().mean()
    if outputs.numel() == targets.numel() == len(targets):
        return ((outputs.reshape(-1) > 0) == (targets.reshape(-1) > 0)).double().mean()
    raise InvalidProblemError(
        f"outputs of shape {tuple(outputs.shape)}, targets of shape {tuple(targets.shape)}: no classes; "
        "give a metric(outputs, targets) of your own, or metric=None"
    )


def evaluate(
    model: FlatModel, state: Tensor, inputs: Tensor, targets: Tensor, metric: Metric | None
) -> tuple[float, float]:
    """Give mean loss, without weight decay, and metric (NaN without one) of a state on test data."""
    model.state.copy_(state)
    model.module.eval()
    loss, score = 0.0, 0.0 if metric is not None else float("nan")
    with torch.no_grad():
        for x, y in zip(torch.split(inputs, CHUNK), torch.split(targets, CHUNK), strict=True):
            outputs = model.module(x)
            share = len(x) / len(inputs)
            loss += share * float(model.loss(outputs, y))
            if metric is not None:
                score += share * float(metric(outputs, y))
    return loss, score

"""The model over a stack of parameters: many clients' gradients from a few large operations.

torch.func runs the model on every client's own parameters and mini-batch, and the loss on every sample, so
that a sample may count for nothing where mini-batches differ in size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from coopt.adapters.torch.flat import FlatModel, LossFunction

Ints = npt.NDArray[np.int64]


class Stack:
    """The model over a stack of parameters.

    Parameters
    ----------
    model : FlatModel
        What to compute; its own parameters are not used.
    inputs, targets : torch.Tensor, shape (m, ...)
        Samples of all clients.
    """

    def __init__(self, model: FlatModel, inputs: Tensor, targets: Tensor) -> None:
        self.model = model
        self.inputs = inputs
        self.targets = targets
        named = [(name, p) for name, p in model.module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.shapes = [p.shape for _, p in named]
        self.sizes = [p.numel() for _, p in named]
        module, loss = model.module, model.loss
        self._outputs = vmap(lambda parameters, x: functional_call(module, parameters, (x,)))
        self._losses = sample_losses(loss)

    def split(self, matrix: Tensor) -> list[Tensor]:
        """Give the parameters of a stack laid out as a matrix (B, n): views of shapes (B, ...)."""
        pieces = torch.split(matrix, self.sizes, dim=1)
        return [piece.view(-1, *shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def join(self, tensors: list[Tensor]) -> Tensor:
        """Lay out a stack as a matrix (B, n)."""
        return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1)

    def places(self, rows: Ints) -> Tensor:
        """Put rows where the samples are."""
        return torch.from_numpy(rows).to(self.inputs.device)

    def weights(self, sizes: Ints) -> Tensor:
        """Weights of samples of which the first `sizes` count and none other, one a mini-batch at least."""
        shares = (np.arange(max(1, sizes.max())) < sizes[:, None]) / np.maximum(sizes, 1)[:, None]
        return torch.from_numpy(shares).to(self.model.state)

    def gradients(self, parameters: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Weighted mean losses of mini-batches, shape (B,), and their gradients, shapes (B, ...).

        Parameters
        ----------
        parameters : torch.Tensor, shape (B, n)
            One model a mini-batch.
        rows : torch.Tensor of int64, shape (B, s)
            Samples of the mini-batches, padded with any others at the end.
        weights : torch.Tensor, shape (B, s)
            Weights of the samples in the means.
        """
        places = rows.reshape(-1)
        x = self.inputs.index_select(0, places)
        x = x.view(*rows.shape, *x.shape[1:])
        y = self.targets.index_select(0, places)
        leaves = [view.detach().requires_grad_() for view in self.split(parameters)]
        outputs = self._outputs(dict(zip(self.names, leaves, strict=True)), x)
        each = self._losses(outputs.flatten(0, 1), y)
        losses = (each.view(*rows.shape, -1).mean(dim=2) * weights).sum(dim=1)
        gradients = list(torch.autograd.grad(losses.sum(), leaves, materialize_grads=True))
        losses = losses.detach()
        if decay := self.model.weight_decay:
            views = self.split(parameters)
            gradients = [gradient + decay * view for gradient, view in zip(gradients, views, strict=True)]
            losses = losses + decay / 2 * parameters.square().sum(dim=1)
        return losses, gradients

    def step(self, parameters: Tensor, gradients: list[Tensor], learning_rate: float) -> None:
        """Take a step of gradient descent, in place."""
        for view, gradient in zip(self.split(parameters), gradients, strict=True):
            view.sub_(gradient, alpha=learning_rate)


def sample_losses(loss: LossFunction) -> LossFunction:
    """Turn a mean over samples into the losses of the samples, each of which may have several entries.

    Losses with torch's own switch are asked for what they would average; any other is called on one sample
    at a time, under `vmap`.
    """
    if isinstance(loss, nn.Module) and getattr(loss, "reduction", None) == "mean":
        each = copy.copy(loss)
        each.__dict__["reduction"] = "none"
        return each
    try:
        switch = "reduction" in signature(loss).parameters
    except ValueError:  # what is written in C need not tell
        switch = False
    if switch:
        by_sample: LossFunction = partial(cast("Callable[..., Tensor]", loss), reduction="none")
        return by_sample
    return vmap(lambda output, target: loss(output.unsqueeze(0), target.unsqueeze(0)))

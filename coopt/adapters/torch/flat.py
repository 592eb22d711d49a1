"""A torch module whose parameters are views of one vector: to set, step or average it is one operation.

Training steps of small models are bound by Python, not by arithmetic: an optimiser that visits every
parameter takes as long as the gradient itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coopt.errors import InvalidProblemError
from coopt.problem import validation

LossFunction = Callable[[Tensor, Tensor], Tensor]


class FlatModel:
    """A copy of a module, and the loss that it is trained with.

    Parameters
    ----------
    model : torch.nn.Module
        Copied; its parameters that require gradients must share one floating-point type.
    loss : callable
        ``loss(outputs, targets)``: mean loss of a batch, a scalar tensor.
    device : str or torch.device, default "cpu"
        Where to compute.
    weight_decay : float, default 0
        lambda: lambda / 2 times the squared norm of the parameters is added to the loss.

    Attributes
    ----------
    module : torch.nn.Module
        The copy.
    state : torch.Tensor, shape (n + b,)
        What clients and server exchange: the n trained parameters, then the b numbers of floating-point
        buffers (running means and variances of normalisation layers).
    parameters, gradient : torch.Tensor, shape (n,)
        Views of the parameters and of their gradients, in the order of ``module.parameters()``.

    Raises
    ------
    InvalidProblemError
        If there is nothing to train, types are mixed, or the device is unknown or missing.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        device: str | torch.device = "cpu",
        *,
        weight_decay: float = 0.0,
    ) -> None:
        self.device = usable_device(device)
        if not isinstance(model, nn.Module):
            raise InvalidProblemError(f"model = {validation.shown(model)}: must be a torch.nn.Module")
        if not callable(loss):
            raise InvalidProblemError(
                f"loss = {validation.shown(loss)}: must be a function of outputs and targets"
            )
        self.module = copy.deepcopy(model).to(self.device)
        self.loss = loss
        self.weight_decay = validation.real("weight_decay", weight_decay, minimum=0.0)
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if not trained:
            raise InvalidProblemError("model has no parameter that requires a gradient: nothing to train")
        dtype = trained[0].dtype
        if dtype not in (torch.float32, torch.float64):
            raise InvalidProblemError(f"model has parameters of type {dtype}: give float32 or float64")
        buffers = [buffer for buffer in self.module.buffers() if buffer.is_floating_point()]
        for tensor in (*trained, *buffers):
            if tensor.dtype != dtype:
                raise InvalidProblemError(
                    f"model has parameters of type {dtype} and of type {tensor.dtype}: give one type to all, "
                    "for example with model.float()"
                )
        sizes = [tensor.numel() for tensor in (*trained, *buffers)]
        self.state = torch.empty(sum(sizes), dtype=dtype, device=self.device)
        self.size = sum(sizes[: len(trained)])
        self.parameters = self.state[: self.size]
        self.gradient = torch.zeros_like(self.parameters)
        self._one = torch.ones((), dtype=dtype, device=self.device)
        pieces = torch.split(self.state, sizes)
        for tensor, piece in zip((*trained, *buffers), pieces, strict=True):
            piece.copy_(tensor.detach().reshape(-1))
            tensor.data = piece.view(tensor.shape)
        for parameter, piece in zip(trained, torch.split(self.gradient, sizes[: len(trained)]), strict=True):
            parameter.grad = piece.view(parameter.shape)

    def evaluate(self, x: Tensor, y: Tensor, micro_batch: int | None = None) -> Tensor:
        """Mean loss of a batch at the present parameters; its gradient goes to `gradient`.

        A batch of more than `micro_batch` samples is taken in parts, whose gradients add up to the same.
        """
        self.gradient.zero_()
        if micro_batch is None or len(x) <= micro_batch:
            loss = self.loss(self.module(x), y)
            torch.autograd.backward(loss, self._one)
            loss = loss.detach()
        else:
            loss = torch.zeros_like(self._one)
            # Equal parts: batch normalisation would fail on a last one of a single sample.
            parts = -(-len(x) // micro_batch)
            for inputs, targets in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
                share = self._one * (len(inputs) / len(x))
                part = self.loss(self.module(inputs), targets)
                torch.autograd.backward(part, share)
                loss += share * part.detach()
        if self.weight_decay:
            self.gradient.add_(self.parameters, alpha=self.weight_decay)
            loss = loss + self.weight_decay / 2 * torch.dot(self.parameters, self.parameters)
        return loss


def usable_device(device: str | torch.device) -> torch.device:
    """Give a device that exists, or say which do.

    Raises
    ------
    InvalidProblemError
        If it does not.
    """
    try:
        return torch.empty(0, device=device).device  # with the number of the card
    except (RuntimeError, AssertionError) as error:
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise InvalidProblemError(
            f"device = {str(device)!r} cannot be used; there is {', '.join(found)}"
        ) from error


@contextmanager
def own_randomness(device: torch.device) -> Iterator[Callable[[int], object]]:
    """Lend torch's global random numbers, and put them back; yields a function that seeds them."""
    generator = torch.default_generator
    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
    before = generator.get_state()
    try:
        yield generator.manual_seed
    finally:
        generator.set_state(before)

"""Products of the curvature of many devices with one direction, by torch.func.

The loss of a device is F_i(w) = mean of l(z(x; w), y) over its rows. Its Gauss-Newton curvature is
J' (d^2 l / dz^2) J with J = dz/dw: what the Hessian would be if the outputs were affine in the parameters.
It never curves downwards where l is convex in the outputs. Where they are affine, it is the Hessian.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from coopt.adapters.torch.flat import FlatModel
from coopt.adapters.torch.stack import sample_losses
from coopt.errors import InvalidProblemError

Floats = npt.NDArray[np.float64]
Flat = Callable[[Tensor], Tensor]

# Numbers in a stack of gradients, and in the inputs of one pass through the model, for the sake of memory.
NUMBERS_AT_ONCE, INPUTS_AT_ONCE = 2**22, 2**20
FEWEST_ROWS, MOST_ROWS = 32, 1024
# Share of a change of the outputs that may be left by a tangent, in square roots of the precision: outputs
# that are not affine in the parameters leave much more.
AFFINE = 3.0


class Differentiable:
    """The model and its loss as functions of one flat vector of parameters.

    Parameters
    ----------
    model : FlatModel
        In evaluation mode.
    units : torch.Tensor, shape (n,), optional
        What one of every parameter is measured in; default ones. Gradients and curvatures are those with
        respect to parameters in these units.

    Attributes
    ----------
    point : torch.Tensor, shape (n,)
        The parameters, in their units.
    decay : torch.Tensor, shape (n,)
        What weight decay adds to the diagonal of every curvature.
    """

    def __init__(self, model: FlatModel, units: Tensor | None = None) -> None:
        self.module, self.loss = model.module, model.loss
        self._units = torch.ones_like(model.parameters) if units is None else units
        self.point = model.parameters.detach() / self._units
        self.decay = model.weight_decay * self._units**2
        self._decays = model.weight_decay > 0.0
        named = [(name, p) for name, p in model.module.named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._shapes = [p.shape for _, p in named]
        self._sizes = [p.numel() for _, p in named]
        self._each = sample_losses(model.loss)
        self._together = True

    def outputs(self, point: Tensor, x: Tensor) -> Tensor:
        """Outputs of rows at some parameters, shape (r, ...)."""
        pieces = torch.split(point * self._units, self._sizes)
        named = {
            name: piece.view(shape)
            for name, piece, shape in zip(self._names, pieces, self._shapes, strict=True)
        }
        result: Tensor = functional_call(self.module, named, (x,))
        return result

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Losses of single rows, shape (r,)."""
        return self._each(outputs, y).reshape(len(outputs), -1).mean(dim=1)

    def mean_loss(self, point: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean loss of rows at some parameters, weight decay included."""
        loss = (self.losses(self.outputs(point, x), y) * weights).sum()
        return loss + torch.dot(self.decay * point, point) / 2 if self._decays else loss

    def row_gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradients of single rows, shape (r, n)."""
        one = torch.ones(1, dtype=self.point.dtype, device=self.point.device)

        def gradient(row: Tensor, target: Tensor) -> Tensor:
            result: Tensor = grad(self.mean_loss)(self.point, row[None], target[None], one)
            return result

        return self._map(gradient, x, y)

    def output_product(self, x: Tensor, y: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Change of the outputs of rows along a direction, and the curvature of the loss times it."""
        outputs, change = _along(lambda w: self.outputs(w, x), self.point, direction)
        slope: Flat = grad(lambda z: self.losses(z, y).sum())
        return change, _along(slope, outputs, change)[1]

    def pull_back(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """J' times a change of the outputs of rows, shape (n,)."""
        result: Tensor = vjp(lambda w: self.outputs(w, x), self.point)[1](cotangent)[0]
        return result

    def device_gradients(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Gradients of several devices, and behind each the mean loss, shape (k, n + 1)."""

        def gradient(rows: Tensor, targets: Tensor, share: Tensor) -> Tensor:
            slope, loss = grad_and_value(self.mean_loss)(self.point, rows, targets, share)
            return torch.cat([slope, loss[None]])

        return self._map(gradient, x, y, weights)

    def hessian_products(self, x: Tensor, y: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        """Hessian of each of several devices times one direction, shape (k, n); rows of shape (k, r, ...)."""

        def product(rows: Tensor, targets: Tensor, share: Tensor) -> Tensor:
            gradient: Flat = grad(lambda w: self.mean_loss(w, rows, targets, share))
            return _along(gradient, self.point, direction)[1]

        return self._map(product, x, y, weights)

    def row_curvatures(self, x: Tensor, y: Tensor, hessian: bool) -> Tensor:
        """Curvature of the loss of single rows along their own gradients, near the largest; shape (r,)."""
        tiny = torch.finfo(self.point.dtype).tiny
        one = torch.ones(1, dtype=self.point.dtype, device=self.point.device)

        def along(row: Tensor, target: Tensor) -> Tensor:
            x, y = row[None], target[None]
            gradient: Flat = grad(lambda w: self.mean_loss(w, x, y, one))

            def product(v: Tensor) -> Tensor:
                if hessian:
                    return _along(gradient, self.point, v)[1]
                return self.pull_back(x, self.output_product(x, y, v)[1]) + self.decay * v

            steep = gradient(self.point)
            size: Tensor = torch.linalg.vector_norm(
                product(steep / torch.linalg.vector_norm(steep).clamp_min(tiny))
            )
            return size

        return self._map(along, x, y)

    def _map(self, function: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
        """What a function gives for each entry: together, or one by one if the model cannot be run so."""
        if self._together:
            try:
                return vmap(function)(*stacks)
            except (NotImplementedError, RuntimeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self._together = False
        return torch.stack([function(*entries) for entries in zip(*stacks, strict=True)])

    def is_affine(self, x: Tensor, seed: int) -> bool:
        """Whether the outputs of a few rows are affine in the parameters, along two random directions.

        Directions are as long as the parameters themselves, so that a ReLU on the way meets its kink.
        """
        generator = torch.Generator().manual_seed(seed)
        tolerance = AFFINE * torch.finfo(self.point.dtype).eps ** 0.5
        for _ in range(2):
            step = torch.randn(len(self.point), generator=generator, dtype=torch.float64)
            step = step * max(float(self.point.norm()), 1.0) / step.norm()
            step = step.to(self.point)
            before, change = _along(lambda w: self.outputs(w, x), self.point, step)
            left = self.outputs(self.point + step, x) - before - change
            scale = torch.maximum(change.abs().max(), before.abs().max())
            if not float(left.abs().max()) <= tolerance * float(scale):
                return False
        return True

    def check_mean(self, x: Tensor, y: Tensor) -> None:
        """Raise InvalidProblemError where a few rows have no loss, or it is not the mean of their losses."""
        try:
            outputs = self.outputs(self.point, x).detach()
            value = self.loss(outputs, y)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise InvalidProblemError(
                f"model or loss fails on {len(x)} rows of the first client, inputs of type {x.dtype} and "
                f"shape {tuple(x.shape)}, targets of type {y.dtype} and shape {tuple(y.shape)}: {error}"
            ) from error
        if value.numel() != 1:
            raise InvalidProblemError(
                f"loss of {len(x)} rows has shape {tuple(value.shape)}: give one that is a mean over rows "
                '(reduction="mean")'
            )
        whole, mean = float(value), float(self.losses(outputs, y).mean())
        if not math.isfinite(whole):
            raise InvalidProblemError(
                f"loss of {len(x)} rows of the first client is {whole!r}: look at its data and at the model"
            )
        if not abs(whole - mean) <= 1e-3 * abs(whole):
            raise InvalidProblemError(
                f"loss of {len(x)} rows is {whole:.6g}, the mean of their losses {mean:.6g}: give one that "
                'is a mean over rows (reduction="mean", without class weights)'
            )


def _along(function: Flat, point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Value of a function at a point, and its derivative along a direction."""
    value = jvp(function, (point,), (direction,))
    return value[0], value[1]


def rows_at_once(inputs: Tensor) -> int:
    """Rows in one pass through the model: activations are about as many as inputs."""
    return min(max(INPUTS_AT_ONCE // max(1, inputs[0].numel()), FEWEST_ROWS), MOST_ROWS)


def row_chunks(rows: int, size: int, parameters: int | None = None) -> Iterator[slice]:
    """Rows in parts of `size`; with the parameters of the model where each row has a gradient."""
    if parameters is not None:
        size = min(size, max(1, NUMBERS_AT_ONCE // parameters))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@contextmanager
def plain_kernels(module: nn.Module) -> Iterator[None]:
    """Do without kernels that know no second derivative, or compute in less than single precision."""
    fast = torch.backends.mha.get_fastpath_enabled()
    plain = any(isinstance(part, nn.RNNBase) for part in module.modules())
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        cudnn = torch.backends.cudnn.enabled and not plain
        stack.enter_context(torch.backends.cudnn.flags(enabled=cudnn, allow_tf32=False))
        if plain:
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        yield


@contextmanager
def explained() -> Iterator[None]:
    """Say what to do where torch cannot differentiate a model twice."""
    try:
        with warnings.catch_warnings():
            # The first forward derivative makes torch load what it has deprecated itself, and switching
            # oneDNN off sets what only graphics cards of one kind have.
            warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
            warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN", UserWarning)
            yield
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).partition("\n")[0]
        raise InvalidProblemError(
            f"torch.func cannot measure this model: {reason}; coopt.measure needs nothing but its gradients"
        ) from error

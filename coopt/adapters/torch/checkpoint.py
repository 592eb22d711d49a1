"""What makes a training run in torch the run that it is, and its tensors as arrays and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coopt.adapters.torch.data import SharedData
from coopt.errors import InvalidProblemError
from coopt.online.fingerprint import Fingerprint, digest, fingerprint

# What may change while a run rests: where it computes, and when it is evaluated.
MAY_DIFFER = ("device", "evaluate_every")
# Of larger inputs evenly spaced samples are looked at, of so many bytes together.
MOST_BYTES = 1 << 26


def describe_model(model: nn.Module, state: Tensor) -> Fingerprint:
    """Describe a model by its parameters: their names, shapes and initial values."""
    return {
        "model": type(model).__name__,
        "parameters": fingerprint(
            shapes=[f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
        )["shapes"],
        "initial weights": digest(as_array(state)),
    }


def describe_data(data: SharedData) -> Fingerprint:
    """Describe samples, labels and who holds which; rows that arrive while training runs are not known."""
    inputs, targets = as_array(data.inputs), as_array(data.targets)
    every = max(1, -(-inputs.nbytes // MOST_BYTES))
    entries = {
        "inputs": f"{inputs.shape} {digest(inputs[::every])}",
        "targets": digest(targets),
        "rows": "arrive while training runs",
    }
    if not callable(data.rows):
        entries["rows"] = fingerprint(rows=[np.asarray(rows) for rows in data.rows])["rows"]
    return entries


def as_array(tensor: Tensor) -> npt.NDArray[Any]:
    """Give the numbers of a tensor; of a type that numpy lacks, their bits."""
    held = tensor.detach().cpu()
    if held.dtype == torch.bfloat16:
        held = held.view(torch.int16)
    return held.numpy()


def without_tensors(value: Any) -> Any:
    """Put arrays in the place of tensors, in lists and dictionaries too."""
    if isinstance(value, Tensor):
        return as_array(value)
    if isinstance(value, dict):
        return {key: without_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_tensors(item) for item in value]
    return value


def restored_model(value: object, like: Tensor) -> Tensor:
    """Give the tensor of a model that was saved.

    Raises
    ------
    InvalidProblemError
        If it is not one of finite numbers with the type and shape of `like`.
    """
    wanted = as_array(like)
    if not isinstance(value, np.ndarray) or value.dtype != wanted.dtype or value.shape != wanted.shape:
        raise InvalidProblemError(f"run.model: must be an array of {wanted.size} numbers of {wanted.dtype}")
    if not np.isfinite(value).all():
        raise InvalidProblemError("run.model: must have finite numbers only")
    return torch.from_numpy(value.copy()).to(like)

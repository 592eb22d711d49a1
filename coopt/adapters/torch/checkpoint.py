"""Save a training run so that it goes on bit for bit, and so that a crash leaves a whole file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coopt.errors import InvalidProblemError
from coopt.online.atomic_file import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state of numbers, strings, lists, dictionaries, arrays and tensors."""
    content = io.BytesIO()
    torch.save(_as_tensors(state), content)
    write_atomically(path, content.getvalue())


def load(path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Read what `save` wrote; arrays come back as tensors.

    Parameters
    ----------
    path : Path
        The file.
    expected : dict
        Entries that must be the same in the file: it belongs to another run otherwise.

    Raises
    ------
    InvalidProblemError
        If the file is no checkpoint, or one of another run: the message names the entry that differs.
    """
    try:
        # Only plain values and tensors are read: a file from elsewhere can run no code.
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: state[name] for name in expected}
    except Exception as error:
        raise InvalidProblemError(f"{path} is no checkpoint of a training run: {error}") from error
    for name, value in expected.items():
        if found[name] != value:
            raise InvalidProblemError(
                f"{path} is a checkpoint of another run, with {name} = {found[name]!r} instead of {value!r}: "
                "delete it, or give another path"
            )
    return dict(state)


def _as_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _as_tensors(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_tensors(each) for each in value]
    return value

"""The samples of all clients in one place, and which rows of it are whose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from coopt.errors import InvalidProblemError

Ints = npt.NDArray[np.int64]
Rows = Sequence[npt.ArrayLike]


@dataclass(frozen=True, eq=False)
class SharedData:
    """Samples in two tensors, and the rows that each client holds; nothing is copied per client.

    Parameters
    ----------
    inputs, targets : torch.Tensor, shape (m, ...)
        All samples.
    rows : sequence of array_like of int, or callable
        Rows of each client. A callable ``rows(round)`` gives those of a round, for data that arrive while
        training runs; it is called for rounds 0, 1, 2, ... in this order, once each. A client without rows
        does not take part in the round.

    Examples
    --------
    Two clients that share their samples evenly:

    >>> import torch
    >>> data = SharedData(torch.randn(6, 2), torch.zeros(6), [[0, 2, 4], [1, 3, 5]])

    Ten arrivals a round into buffers of 32:

    >>> import numpy as np
    >>> from coopt.streaming import Reservoir
    >>> buffers = [Reservoir(32, seed=i) for i in range(2)]
    >>> def rows(round):
    ...     for i, buffer in enumerate(buffers):
    ...         buffer.insert(np.arange(10) + 10 * round + 1000 * i)
    ...     return [buffer.items for buffer in buffers]
    >>> data = SharedData(torch.randn(2000, 2), torch.zeros(2000), rows)
    """

    inputs: Tensor
    targets: Tensor
    rows: Rows | Callable[[int], Rows]

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise InvalidProblemError(
                f"inputs have {len(self.inputs)} rows and targets {len(self.targets)}: give one target a row"
            )


@dataclass(frozen=True, eq=False)
class ClientRows:
    """Rows of all clients one after the other.

    Attributes
    ----------
    flat : numpy.ndarray of int64, shape (sum of counts,)
        Rows.
    first, counts : numpy.ndarray of int64, shape (N,)
        Where each client's rows begin in `flat`, and how many there are.
    """

    flat: Ints
    first: Ints
    counts: Ints


def client_rows(rows: Rows, samples: int) -> ClientRows:
    """Check and lay out the rows of all clients.

    Raises
    ------
    InvalidProblemError
        If a row is no whole number or there is no such row: the message names the client.
    """
    arrays = []
    for client, each in enumerate(rows):
        array = np.asarray(each)
        if array.size == 0:
            array = np.empty(0, dtype=np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InvalidProblemError(
                f"rows of client {client} have type {array.dtype} and shape {array.shape}: give a flat array "
                "of integers"
            )
        if array.size and not (array.min() >= 0 and array.max() < samples):
            wrong = array.min() if array.min() < 0 else array.max()
            raise InvalidProblemError(f"rows of client {client} hold {wrong}: valid are 0 to {samples - 1}")
        arrays.append(array.astype(np.int64))
    counts = np.array([len(array) for array in arrays], dtype=np.int64)
    return ClientRows(np.concatenate([np.empty(0, np.int64), *arrays]), np.cumsum(counts) - counts, counts)


def gather(client_datasets: SharedData | Sequence[Any]) -> SharedData:
    """Put the data sets of all clients into one.

    Parameters
    ----------
    client_datasets : SharedData, or sequence of (inputs, targets) pairs or torch data sets
        One entry a client.

    Raises
    ------
    InvalidProblemError
        If there is no client, or a client has no samples or samples unlike those of client 0.
    """
    if isinstance(client_datasets, SharedData):
        return client_datasets
    if isinstance(client_datasets, Dataset | Mapping | Tensor):
        raise InvalidProblemError(
            f"client_datasets is a {type(client_datasets).__name__}: give a list, with one data set or "
            "one pair (inputs, targets) a client"
        )
    pairs = [tensors_of(f"client_datasets[{client}]", data) for client, data in enumerate(client_datasets)]
    if not pairs:
        raise InvalidProblemError("client_datasets is empty: give one data set a client")
    for client, pair in enumerate(pairs):
        for name, tensor, first in zip(("inputs", "targets"), pair, pairs[0], strict=True):
            if tensor.shape[1:] != first.shape[1:] or tensor.dtype != first.dtype:
                raise InvalidProblemError(
                    f"client_datasets[{client}] has {name} of type {tensor.dtype} and shape "
                    f"{tuple(tensor.shape[1:])}, client_datasets[0] of type {first.dtype} and shape "
                    f"{tuple(first.shape[1:])}"
                )
    ends = np.cumsum([len(inputs) for inputs, _ in pairs])
    rows = [np.arange(end - len(inputs), end) for (inputs, _), end in zip(pairs, ends, strict=True)]
    return SharedData(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), rows)


def check_order(fleet: npt.NDArray[np.generic], held: Ints) -> None:
    """Raise InvalidProblemError where the fleet lists the same numbers of samples in another order.

    Other numbers are the user's choice: a fleet may count what devices will hold later.
    """
    if np.array_equal(fleet, held) or not np.array_equal(np.sort(fleet), np.sort(held)):
        return
    client = int(np.argmax(fleet != held))
    raise InvalidProblemError(
        f"client_datasets[{client}] holds {held[client]} samples, and device {client} of the fleet "
        f"{fleet[client]:g}: the same numbers in another order; list the data sets as the fleet its devices"
    )


def tensors_of(where: str, data: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets of one client, from a pair of tensors or arrays, or from a torch data set.

    Raises
    ------
    InvalidProblemError
        If it is something else, or holds no sample; the message begins with `where`.
    """
    given = data
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Dataset):
        samples: Any = data
        items = [samples[i] for i in range(len(samples))]
        data = (
            tuple(torch.stack([torch.as_tensor(item[k]) for item in items]) for k in (0, 1)) if items else ()
        )
        if not items:
            raise InvalidProblemError(f"{where} is empty: give every client a sample")
    try:
        inputs, targets = (torch.as_tensor(part) for part in data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidProblemError(
            f"{where} is {_kinds(given)}: give a pair (inputs, targets) or a torch data set of such pairs"
            + (" (that of a loader is loader.dataset)" if "DataLoader" in _kinds(given) else "")
        ) from error
    if len(inputs) == 0:
        raise InvalidProblemError(f"{where} is empty: give every client a sample")
    if len(inputs) != len(targets):
        raise InvalidProblemError(f"{where} has {len(inputs)} inputs and {len(targets)} targets")
    return inputs, targets


def _kinds(data: object) -> str:
    """Of which types something is, and of which its parts are where there are few."""
    if isinstance(data, tuple | list) and 0 < len(data) <= 3:
        return f"a {type(data).__name__} of {', '.join(type(part).__name__ for part in data)}"
    return f"a {type(data).__name__}"


def row_source(data: SharedData) -> Callable[[int], ClientRows]:
    """Make a function that tells what every client holds in a round."""
    samples, rows = len(data.inputs), data.rows
    if callable(rows):
        return lambda now: client_rows(rows(now), samples)
    fixed = client_rows(rows, samples)
    if (fixed.counts == 0).any():
        client = int(np.argmin(fixed.counts))
        raise InvalidProblemError(f"rows of client {client} are empty: give every client a sample")
    return lambda now: fixed

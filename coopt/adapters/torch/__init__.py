"""Federated training in torch, run by a controller or by a fixed plan."""

from coopt.adapters.torch import available  # first: it says what is missing
from coopt.adapters.torch.flat import FlatModel
from coopt.adapters.torch.local import LocalClient, LocalWork, ProbeOptions, local_update

__all__ = ["FlatModel", "LocalClient", "LocalWork", "ProbeOptions", "available", "local_update"]

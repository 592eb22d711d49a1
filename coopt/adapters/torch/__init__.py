"""Federated training in torch, run by a controller or by a fixed plan."""

from coopt.adapters.torch import available  # first: it says what is missing
from coopt.adapters.torch.data import SharedData
from coopt.adapters.torch.engine import RoundWork
from coopt.adapters.torch.evaluation import accuracy
from coopt.adapters.torch.flat import FlatModel
from coopt.adapters.torch.history import EarlyStop, History, RoundRecord
from coopt.adapters.torch.local import LocalClient, LocalWork, ProbeOptions, local_update
from coopt.adapters.torch.loop import LoopEngine
from coopt.adapters.torch.measuring import measure
from coopt.adapters.torch.stacked import StackedEngine
from coopt.adapters.torch.trainer import FederatedTrainer

__all__ = [
    "EarlyStop",
    "FederatedTrainer",
    "FlatModel",
    "History",
    "LocalClient",
    "LocalWork",
    "LoopEngine",
    "ProbeOptions",
    "RoundRecord",
    "RoundWork",
    "SharedData",
    "StackedEngine",
    "accuracy",
    "available",
    "local_update",
    "measure",
]

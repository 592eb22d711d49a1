"""The toy work of trainer_speed.py in pfl-research, in an environment of its own.

Started by trainer_speed.py: for every line "clients rounds" on standard input, prints the median processor
seconds of a round.
"""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

FEATURES, CLASSES, HELD, STEPS, BATCH, RATE = 64, 10, 60, 5, 8, 0.1


class Clock(TrainingProcessCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        self.times.append(time.process_time())
        return False, Metrics()


def seconds(clients: int, rounds: int) -> float:
    rng = np.random.default_rng(0)
    users = {
        i: [rng.normal(size=(HELD, FEATURES)).astype(np.float32), rng.integers(CLASSES, size=HELD)]
        for i in range(clients)
    }
    turns = itertools.cycle(users)
    data = FederatedDataset.from_slices(users, lambda: next(turns))
    net = torch.nn.Linear(FEATURES, CLASSES)
    net.loss = lambda x, y: torch.nn.functional.cross_entropy(net(x), y.long())
    net.metrics = lambda x, y: {}
    clock = Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            rounds + 1, evaluation_frequency=10**6, train_cohort_size=clients, val_cohort_size=0
        ),
        SimulatedBackend(data, None, [WeightByDatapoints()]),
        PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0)),
        NNTrainHyperParams(
            local_num_epochs=None, local_num_steps=STEPS, local_learning_rate=RATE, local_batch_size=BATCH
        ),
        callbacks=[clock],
        send_metrics_to_platform=False,
    )
    return float(np.median(np.diff(clock.times)))


torch.set_num_threads(1)
for line in sys.stdin:
    print("seconds", seconds(*map(int, line.split())), flush=True)

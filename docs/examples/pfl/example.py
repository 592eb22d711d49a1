"""Handwritten digits by federated averaging in pfl-research, with local steps and batch sizes from coopt."""

import itertools

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.internal.bridge import FrameworkBridgeFactory
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from sklearn.datasets import load_digits
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from coopt import Budget, ClientProbe, Controller, Fleet, Stopped

RATE, rng = 0.5, np.random.default_rng(0)
pixels, digits = load_digits(return_X_y=True)
order = np.argsort(digits + rng.normal(scale=3, size=len(digits)))  # users differ in the digits they hold
parts = np.split(order, [40, 120, 300, 700, 1200])
users = {i: [np.float32(pixels[part] / 16), digits[part]] for i, part in enumerate(parts)}
net = torch.nn.Linear(64, 10)
net.loss = lambda x, y: torch.nn.functional.cross_entropy(net(x), y.long())
net.metrics = lambda x, y: {}


def put(vector):
    vector_to_parameters(torch.as_tensor(vector, dtype=torch.float32), net.parameters())


def gradient(vector, batch):
    put(vector)
    loss = net.loss(*map(torch.as_tensor, batch))
    return loss.item(), parameters_to_vector(torch.autograd.grad(loss, list(net.parameters())))


def draw(i, size):
    rows = rng.integers(len(users[i][1]), size=size)
    return [part[rows] for part in users[i]]


class CoOptAveraging(FederatedAveraging):
    def get_next_central_contexts(self, model, *others):
        self.plan, self.reports = plan, _ = controller.plan(), []
        if isinstance(plan, Stopped):
            print(f"spent {plan.cost:.0f} in {plan.rounds} rounds: {plan.reason.value}")
            return None, model, Metrics()
        print(f"round {plan.round}: {plan.local_steps} local steps, batches {plan.batch_sizes}")
        return super().get_next_central_contexts(model, *others)

    def train_one_user(self, received, model, user, context):
        plan, probe, steps = self.plan, probes[user.user_id], self.plan.local_steps
        size = int(plan.batch_sizes[user.user_id])
        start = parameters_to_vector(net.parameters()).detach().numpy()
        put(start - RATE * probe.begin(start, round=plan.round, batch_size=size))
        if steps > 1:  # the probe took the first; the trainer takes the rest, and no more than one pass
            rest = context.model_train_params.static_clone(local_num_steps=steps - 1, local_batch_size=size)
            drawn = Dataset(draw(user.user_id, (steps - 1) * size))
            FrameworkBridgeFactory.sgd_bridge().do_sgd(model, drawn, rest)
        end, extra = parameters_to_vector(net.parameters()).detach().numpy(), plan.extra_evaluation
        report = probe.end(end, samples=len(user), local_steps=steps, extra_evaluation=extra)
        self.reports.append(report)
        return model.get_model_difference(received), Metrics()

    def process_aggregated_statistics(self, *arguments):
        controller.observe(self.reports)
        return super().process_aggregated_statistics(*arguments)


fleet = Fleet([len(part) for part in parts], gradient_noise=1.0, divergence=1.0)
controller = Controller(fleet, Budget(cost=40_000, round_cost=200), RATE, curvature_floor=0.0)
probes = [ClientProbe(i, gradient, lambda size, i=i: draw(i, size)) for i in users]
turns = itertools.cycle(users)
data = FederatedDataset.from_slices(users, lambda: next(turns))
CoOptAveraging().run(
    NNAlgorithmParams(-1, evaluation_frequency=10, train_cohort_size=len(users), val_cohort_size=0),
    SimulatedBackend(data, data, [WeightByDatapoints()]),
    PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0)),
    NNTrainHyperParams(
        local_num_epochs=None, local_num_steps=1, local_learning_rate=RATE, local_batch_size=1
    ),
    send_metrics_to_platform=False,
)

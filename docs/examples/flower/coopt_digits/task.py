"""The learning problem: logistic regression on handwritten digits, spread unevenly over the devices."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from coopt.adapters.torch import FlatModel


def split(devices):
    """Rows of the digits that each device holds: uneven numbers, and some digits more than others."""
    rng = np.random.default_rng(0)
    labels = load_digits().target
    order = np.argsort(labels + rng.normal(scale=3, size=len(labels)))
    shares = np.cumsum(rng.dirichlet(np.full(devices, 5.0)))
    return np.split(order, (shares[:-1] * len(order)).astype(int))


def digits(rows=slice(None)):
    """Images as rows of 64 numbers from 0 to 1, and labels."""
    data = load_digits()
    return torch.as_tensor(data.data[rows] / 16, dtype=torch.float32), torch.as_tensor(data.target[rows])


def model():
    """The classifier and its loss; that is convex, so any start will do."""
    classifier = torch.nn.Linear(64, 10)
    torch.nn.init.zeros_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    return FlatModel(classifier, torch.nn.functional.cross_entropy)

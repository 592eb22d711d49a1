"""The models: squared-hinge SVM, logistic regression, and a small convolutional network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """One class against the rest, summed over classes, mean over samples: smooth, unlike the hinge."""
    sign = 2.0 * nn.functional.one_hot(labels, scores.shape[-1]).to(scores.dtype) - 1.0
    return torch.relu(1.0 - sign * scores).square().sum(dim=-1).mean()


@dataclass(frozen=True)
class Model:
    """A model to train: its maker, its loss and its ridge, ridge/2 ||w||^2."""

    make: Callable[[], nn.Module]
    loss: Loss
    ridge: float


def linear(features: int, classes: int, kind: str, ridge: float = 1e-3) -> Model:
    """A linear model from zero: "svm" (squared hinge) or "logistic"."""

    def make() -> nn.Module:
        layer = nn.Linear(features, classes, bias=False)  # the features hold a constant
        nn.init.zeros_(layer.weight)
        return layer

    return Model(make, squared_hinge if kind == "svm" else nn.functional.cross_entropy, ridge)


def cnn(channels: int, side: int, classes: int, widths: tuple[int, int, int], seed: int) -> Model:
    """Two convolutions of 5 x 5, each with a 2 x 2 maximum, then two dense layers.

    Parameters
    ----------
    channels, side, classes : int
        Of the images.
    widths : tuple of int
        Channels of the two convolutions, units of the dense layer: (32, 64, 512) in the papers' line.
    seed : int
        Source of the first weights.
    """
    first, second, dense = widths

    def make() -> nn.Module:
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * (side // 4) ** 2, dense),
            nn.ReLU(),
            nn.Linear(dense, classes),
        )
        torch.random.set_rng_state(state)
        return network

    return Model(make, nn.functional.cross_entropy, 0.0)

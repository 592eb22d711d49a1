"""The training loss of a federation on all its data, where training starts, and how low the loss can get."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.federated.data import Floats
from benchmarks.federated.models import cnn
from benchmarks.forecast.federations import LINEAR, RIDGE, Federation


def widths(federation: Federation) -> tuple[int, ...]:
    """Sizes that a model's vector is cut by, see `kernels`."""
    features, classes, case = federation.x.shape[1], federation.classes, federation.case
    if case.model in LINEAR:
        return features, classes
    if case.model in ("tanh", "relu"):
        return features, case.widths[0], classes
    return federation.channels, federation.side, *case.widths, classes


def network(federation: Federation) -> Any:
    """The model as a torch module with its first weights, the same for every run."""
    import torch
    from torch import nn

    case = federation.case
    features, classes = federation.x.shape[1], federation.classes
    if case.model == "conv":
        shape = federation.channels, federation.side, federation.side
        image = cnn(federation.channels, federation.side, classes, case.widths, case.seed).make()
        return nn.Sequential(nn.Unflatten(1, shape), image)
    state = torch.random.get_rng_state()
    torch.manual_seed(case.seed)
    if case.model in LINEAR:
        made = nn.Sequential(nn.Linear(features, classes, bias=False))  # the features hold a constant
        nn.init.zeros_(made[0].weight)
    else:
        first = nn.Linear(features, case.widths[0], bias=False)
        shape = nn.Tanh() if case.model == "tanh" else nn.ReLU()
        made = nn.Sequential(first, shape, nn.Linear(case.widths[0], classes))
    torch.random.set_rng_state(state)
    return made


def _vector(tensors: Iterable[Any]) -> np.ndarray:
    """Parameters in the order of `kernels`, which holds the weights of a layer as (inputs, outputs)."""
    parts = [t.detach().numpy() for t in tensors]
    return np.concatenate([(p.reshape(len(p), -1).T if p.ndim > 1 else p).ravel() for p in parts])


def vector(module: Any) -> Floats:
    """A module's parameters as a vector of `kernels`."""
    return _vector(module.parameters()).astype(np.float32)


def load_vector(module: Any, w: np.ndarray) -> Any:
    """Put a vector of `kernels` into a module, in the module's precision; gives the module."""
    import torch

    place = 0
    for p in module.parameters():
        part = torch.from_numpy(np.array(w[place : place + p.numel()])).to(p.dtype)
        across = part.reshape(-1, len(p)).T if p.ndim > 1 else part
        p.data = across.reshape(p.shape).contiguous()
        place += p.numel()
    return module


def mean_loss(federation: Federation) -> Callable[[Any, Any], Any]:
    """Mean loss of scores and labels, in torch: cross-entropy, or half the squared distance to the class."""
    import torch

    def half_squared(scores: Any, labels: Any) -> Any:
        one_hot = torch.eye(federation.classes, dtype=scores.dtype)[labels]  # under vmap too
        return 0.5 * (scores - one_hot).square().sum(dim=-1).mean()

    return half_squared if federation.case.model == "squared" else torch.nn.functional.cross_entropy


def training_loss(federation: Federation, w: Floats) -> float:
    """F(w): mean over all samples of all devices, and the ridge."""
    import torch

    with torch.no_grad():
        scores = load_vector(network(federation), w)(torch.from_numpy(federation.x)).double()
        loss = float(mean_loss(federation)(scores, torch.from_numpy(federation.y)))
    return loss + RIDGE / 2 * float(np.sum(w.astype(np.float64) ** 2))


def lowest(federation: Federation, starts: list[Floats], steps: int = 3000) -> float:
    """The lowest loss that L-BFGS reaches from any of some models, in float64."""
    import torch
    from scipy.optimize import minimize

    x, y = torch.from_numpy(federation.x).double(), torch.from_numpy(federation.y)
    module, loss_of = network(federation).double(), mean_loss(federation)

    def total(w: np.ndarray) -> tuple[float, np.ndarray]:
        load_vector(module, w).zero_grad()
        ridge = RIDGE / 2 * sum(p.square().sum() for p in module.parameters())
        loss = loss_of(module(x), y) + ridge
        loss.backward()
        return float(loss.detach()), _vector(p.grad for p in module.parameters())

    options = {"maxiter": steps, "maxfun": 2 * steps, "ftol": 1e-13, "gtol": 1e-8}
    found = [
        minimize(total, np.asarray(w, dtype=np.float64), jac=True, method="L-BFGS-B", options=options).fun
        for w in starts
    ]
    return float(min(found))

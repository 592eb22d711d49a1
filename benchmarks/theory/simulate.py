"""Federated SGD on many instances and noise replicas at once: the true error and its standard error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.theory.instances import Floats, Instance


@dataclass(frozen=True)
class Truth:
    """What one instance's plan really does, averaged over the noise.

    Attributes
    ----------
    error, error_se : float
        E F(w_T) - F* after the last round, and its standard error [loss].
    gradient, gradient_se : float
        (1/T) sum_t E ||grad F(w_t)||^2 over the steps of the averaged model [gradient^2].
    coupling : float
        Largest root of E||x||^2 / E e^2 over all steps, e the drift and x the change it makes in the
        averaged gradient: the smallest beta_d that the run is consistent with [curvature].
    """

    error: float
    error_se: float
    gradient: float
    gradient_se: float
    coupling: float


# What each device's model counts for at the end of a round, shape (replicas, N), rows that sum to one.
Shares = Callable[[Instance, int, np.random.Generator], Floats]


def simulate(
    instances: Sequence[Instance], *, replicas: int, seed: int, shares: Shares | None = None
) -> list[Truth]:
    """Run every instance's plan; instances of one shape run together. Default shares are the weights."""
    groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
    for index, instance in enumerate(instances):
        groups[*instance.tilt.shape, instance.periodic].append(index)
    truths: list[Truth | None] = [None] * len(instances)
    rng = np.random.default_rng(seed)
    for members in groups.values():
        # Longest first: those still running are then a prefix.
        members.sort(key=lambda index: -_steps(instances[index]))
        found = _simulate_group([instances[index] for index in members], replicas, rng, shares)
        for index, truth in zip(members, found, strict=True):
            truths[index] = truth
    return [truth for truth in truths if truth is not None]


def _steps(instance: Instance) -> int:
    return instance.rounds * instance.local_steps


def _simulate_group(
    group: list[Instance], replicas: int, rng: np.random.Generator, shares: Shares | None
) -> list[Truth]:
    def stack(name: str, *shape: int) -> Floats:
        rows = np.array([getattr(instance, name) for instance in group], dtype=np.float64)
        return rows.reshape(len(group), *shape)

    devices, size = group[0].tilt.shape
    p = stack("weights", 1, devices, 1)
    curve, centre, width = (stack(name, 1, 1, size) for name in ("quadratic", "centre", "width"))
    amplitude, tilt = stack("amplitude", 1, devices, size), stack("tilt", 1, devices, size)
    eta = stack("learning_rate", 1, 1, 1)
    spread = np.sqrt(stack("noise", 1, devices, 1) / stack("batch_sizes", 1, devices, 1) / size)
    steps = np.array([_steps(instance) for instance in group])
    tau = np.array([instance.local_steps for instance in group])
    slope = np.cos if group[0].periodic else np.tanh

    w = np.broadcast_to(stack("start", 1, 1, size), (len(group), replicas, devices, size)).copy()
    final = np.zeros((len(group), replicas, size))
    gradients = np.zeros((len(group), replicas))
    coupling = np.zeros(len(group))
    mean_amplitude, mean_tilt = np.sum(p * amplitude, axis=2), np.sum(p * tilt, axis=2)
    for step in range(int(steps.max())):
        live = int(np.searchsorted(-steps, -step, side="left"))
        w = w[:live]
        q = p[:live]
        local = curve[:live] * w + amplitude[:live] * slope((w - centre[:live]) / width[:live]) + tilt[:live]
        mean = np.sum(q * w, axis=2)
        u = slope((mean - centre[:live, :, 0]) / width[:live, :, 0])
        full = curve[:live, :, 0] * mean + mean_amplitude[:live] * u + mean_tilt[:live]
        gradients[:live] += np.sum(full**2, axis=2)
        shift = np.mean(np.sum((np.sum(q * local, axis=2) - full) ** 2, axis=2), axis=1)
        drift = np.mean(np.sum(q * (w - mean[:, :, None]) ** 2, axis=(2, 3)), axis=1)
        apart = drift > 1e-24
        coupling[:live][apart] = np.maximum(coupling[:live][apart], shift[apart] / drift[apart])
        noise = rng.standard_normal(w.shape, dtype=np.float32)
        w = w - eta[:live] * (local + spread[:live] * noise)
        together = (step + 1) % tau[:live] == 0
        if together.any():
            counted = q[together]
            if shares is not None:
                rows = np.flatnonzero(together)
                counted = np.array([shares(group[row], replicas, rng) for row in rows])[..., None]
            mean = np.sum(counted * w[together], axis=2)
            w[together] = mean[:, :, None]
            ended = np.flatnonzero(steps[:live] == step + 1)
            if ended.size:
                final[ended] = w[ended, :, 0]
    truths = []
    for row, instance in enumerate(group):
        gap = instance.mean_loss(final[row]) - instance.mean_loss(instance.minimiser())
        path = gradients[row] / steps[row]
        truths.append(
            Truth(
                error=float(gap.mean()),
                error_se=float(gap.std(ddof=1) / np.sqrt(replicas)),
                gradient=float(path.mean()),
                gradient_se=float(path.std(ddof=1) / np.sqrt(replicas)),
                coupling=float(np.sqrt(coupling[row])),
            )
        )
    return truths

"""What somebody has before either tool: data on 24 devices, a model, a training loop, speeds of devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

with np.load(Path(__file__).with_name("federation.npz")) as stored:
    edges = np.cumsum(stored["samples"])[:-1]
    clients = list(zip(np.split(stored["images"], edges), np.split(stored["labels"], edges), strict=True))
    throughput, round_time = stored["throughput"], stored["round_time"]

samples = np.array([len(labels) for _, labels in clients])
# What everybody may spend: samples processed, and an hour on the devices' clock.
COST, SECONDS, RATE = 150_000, 3600, 0.5
start = np.zeros(65 * 10)
spent = {"samples": 0.0, "seconds": 0.0}


def gradient(parameters, rows):
    """Loss and gradient of softmax regression, means over the rows."""
    images, labels = rows
    weights = parameters.reshape(65, 10)
    scores = images @ weights[:64] + weights[64]
    scores -= scores.max(axis=1, keepdims=True)
    chances = np.exp(scores)
    chances /= chances.sum(axis=1, keepdims=True)
    loss = -np.log(chances[np.arange(len(labels)), labels]).mean()
    chances[np.arange(len(labels)), labels] -= 1.0
    chances /= len(labels)
    return loss, np.concatenate([images.T @ chances, chances.sum(axis=0)[None]]).ravel()


def train(rounds, local_steps, batch_sizes, seed=0):
    """Federated averaging; the loss over all devices at the end. Counts what it spends."""
    rng = np.random.default_rng(seed)
    batches = np.broadcast_to(batch_sizes, len(clients))
    model, shares = start, samples / samples.sum()
    for _ in range(rounds):
        locals_ = []
        for (images, labels), batch in zip(clients, batches, strict=True):
            local = model
            for _ in range(local_steps):
                rows = rng.integers(len(labels), size=batch)
                local = local - RATE * gradient(local, (images[rows], labels[rows]))[1]
            locals_.append(local)
        model = shares @ np.array(locals_)
    spent["samples"] += rounds * local_steps * float(batches.sum())
    spent["seconds"] += rounds * float((local_steps * batches / throughput + round_time).max())
    return float(shares @ [gradient(model, client)[0] for client in clients])

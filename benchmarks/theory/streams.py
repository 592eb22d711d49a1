"""What a bounded buffer does to training on a stream: predicted and measured.

The loss is ||w - x||^2/2 on samples x of ten classes with Gaussian noise, so that the gradient's error is the
error of the buffer's mean and the best model is the mean of everything that arrived.
Run: python -m benchmarks.theory.streams
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory.command import command_line
from benchmarks.theory.instances import Floats
from coopt.streaming import (
    Buffer,
    Burst,
    Fifo,
    RandomReplacement,
    Reservoir,
    Smooth,
    group_total_variation,
    inclusion_probability,
    stream_order,
    total_variation,
    variance_factor,
)

BUFFERS: dict[Any, type[Buffer]] = {"reservoir": Reservoir, "random": RandomReplacement, "fifo": Fifo}
CLASSES, DIMENSION, CAPACITY, ARRIVALS, ROUNDS = 10, 5, 100, 2000, 400


@dataclass(frozen=True)
class Data:
    """The samples in the order of the stream, their classes, and the diameter of the class means."""

    samples: Floats
    labels: np.ndarray
    diameter: float


def data(order: float, rng: np.random.Generator) -> Data:
    """Balanced classes; order 0 is an i.i.d. stream, 1 one class after the other."""
    means = rng.normal(size=(CLASSES, DIMENSION)) / np.sqrt(DIMENSION)
    labels = np.repeat(np.arange(CLASSES), ARRIVALS // CLASSES)
    samples = means[labels] + 0.5 * rng.normal(size=(ARRIVALS, DIMENSION)) / np.sqrt(DIMENSION)
    index = stream_order(labels, order, seed=rng)
    labels, samples = labels[index], samples[index]
    held = np.array([samples[labels == k].mean(axis=0) for k in range(CLASSES)])
    diameter = float(np.max(np.linalg.norm(held[:, None] - held, axis=2)))
    return Data(samples, labels, diameter)


def ordered(replicas: int, rng: np.random.Generator) -> list[Row]:
    """Bias of the buffered gradient when classes come one after the other."""
    stream = data(1.0, rng)
    rows: list[Row] = []
    for name, kind in BUFFERS.items():
        means = np.empty((replicas, DIMENSION))
        for replica in range(replicas):
            buffer = kind(CAPACITY, seed=rng)
            buffer.insert(stream.samples)
            means[replica] = buffer.items.mean(axis=0)
        error = means.mean(axis=0) - stream.samples.mean(axis=0)
        sampling = float(np.sum(means.var(axis=0, ddof=1)))
        distance = group_total_variation(inclusion_probability(name, CAPACITY, ARRIVALS), stream.labels)
        rows.append(
            {
                "buffer": name,
                "TV of arrivals": total_variation(name, CAPACITY, ARRIVALS),
                "TV of classes": distance,
                "squared bias": float(error @ error) - sampling / replicas,
                "standard error": float(2.0 * np.sqrt(max(error @ error, 0.0) * sampling / replicas)),
                "bound (G TV)^2": (stream.diameter * distance) ** 2,
                "variance": sampling,
            }
        )
    return rows


def unordered(replicas: int, rng: np.random.Generator) -> list[Row]:
    """Variance that the buffer's own sampling gives the model, over S^2/B, on an i.i.d. stream."""
    rows: list[Row] = []
    capacity, rate = 20, 1
    for turnover in (0.1, 1.0, 4.0):
        eta = turnover * rate / capacity
        steps = int(6.0 / eta) + 4 * capacity
        row: Row = {"eta c B / lambda": turnover}
        for name, kind in BUFFERS.items():
            finals = np.empty(replicas)
            for replica in range(replicas):
                buffer = kind(capacity, seed=rng)
                # A long history first: a reservoir of it hardly changes any more.
                buffer.insert(rng.normal(size=20 * steps if name == "reservoir" else capacity))
                stream = rng.normal(size=(steps, rate))
                model = 0.0
                for block in stream:
                    buffer.insert(block)
                    model -= eta * (model - float(buffer.items.mean()))
                finals[replica] = model
            row[f"{name}, measured"] = float(np.mean(finals**2) * capacity)
            row[f"{name}, standard error"] = float(np.std(finals**2) / np.sqrt(replicas) * capacity)
            row[f"{name}, predicted"] = variance_factor(name, turnover)
        rows.append(row)
    return rows


def arrivals(replicas: int, rng: np.random.Generator) -> list[Row]:
    """Squared distance of the last model from the mean of everything, by arrival pattern and buffer."""
    patterns = {
        "smooth": Smooth(ARRIVALS // ROUNDS),
        "burst at 5 % of the rounds": Burst(ARRIVALS - CAPACITY, at=ROUNDS // 20),
        "burst at 95 % of the rounds": Burst(ARRIVALS - CAPACITY, at=ROUNDS - ROUNDS // 20),
    }
    rows: list[Row] = []
    eta = 0.05
    for label, pattern in patterns.items():
        row: Row = {"arrivals, class after class": label}
        for name, kind in BUFFERS.items():
            errors = np.empty(replicas)
            for replica in range(replicas):
                stream = data(1.0, rng)
                target = stream.samples.mean(axis=0)
                buffer, model = kind(CAPACITY, seed=rng), np.zeros(DIMENSION)
                buffer.insert(stream.samples[:CAPACITY])
                taken = CAPACITY
                for count in pattern.counts(ROUNDS, seed=rng):
                    if count:
                        buffer.insert(stream.samples[taken : taken + count])
                        taken += int(count)
                    model -= eta * (model - buffer.items.mean(axis=0))
                errors[replica] = np.sum((model - target) ** 2)
            row[name] = float(errors.mean())
            row[f"{name}, standard error"] = float(errors.std(ddof=1) / np.sqrt(replicas))
        rows.append(row)
    return rows


def run(quick: bool, folder: Path) -> list[Row]:
    rng = np.random.default_rng(31)
    few = 4 if quick else 200
    bias = ordered(few * 2, rng)
    factor = unordered(2 if quick else 400, rng)
    pattern = arrivals(2 if quick else 100, rng)
    save("streams_ordered", bias, folder)
    save("streams_unordered", factor, folder)
    save("streams_arrivals", pattern, folder)

    def plot(axes: Any) -> None:
        width = 0.25
        for place, name in enumerate(BUFFERS):
            heights = [row[name] for row in pattern]
            axes.bar(np.arange(len(pattern)) + (place - 1) * width, heights, width, label=name)
        axes.set_xticks(range(len(pattern)), [row["arrivals, class after class"] for row in pattern])
        axes.set_ylabel("squared distance from the best model")
        axes.legend()

    picture("streams", plot, folder)
    return bias + factor + pattern


if __name__ == "__main__":
    command_line(run, __doc__)

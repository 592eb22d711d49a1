"""Honest devices that differ as much as they can: how many are not believed.

    python -m benchmarks.online.honest_answers      # a minute; needs COOPT_DATA for its second table

Thirty devices hold digits: of one class each, of two, dealt by Dirichlet's law, or evenly. A linear model and
a network of one hidden layer are measured before training and later, on other rows each time.

Thirty phones and links are drawn from measured ones, forty times, for models from small to large and rounds
from short to long, and others from laws with wider spreads: how many are so fast, and compute for so little
of their time, that it counts as a lie.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.federated.federation import phones
from coopt import Fleet
from coopt.adapters.simulated import Softmax, digits
from coopt.measuring.answer_times import LITTLE
from coopt.measuring.exchange import ClientMeasure, measure_clients
from coopt.measuring.robust import far_sizes

RESULTS = Path(__file__).parent / "results"
DEVICES, SEEDS, AFTER = 30, range(3), (0, 3, 30, 200)
NOT_LOOKED_AT = {"samples": 100, "gradient_noise": 1.0, "divergence": 1.0}
Rows = tuple[np.ndarray, np.ndarray]


class Network:
    """Digits to 24 hyperbolic tangents to ten classes."""

    HIDDEN = 24

    def start(self) -> np.ndarray:
        rng = np.random.default_rng(5)
        first = rng.normal(size=(65, self.HIDDEN)) / 8
        second = rng.normal(size=(self.HIDDEN + 1, 10)) / math.sqrt(self.HIDDEN)
        return np.concatenate([first.ravel(), second.ravel()])

    def gradient(self, weights: np.ndarray, rows: Rows) -> tuple[float, np.ndarray]:
        images, labels = rows
        ones, each = np.ones((len(labels), 1)), np.arange(len(labels))
        first, second = np.split(weights, [65 * self.HIDDEN])
        first, second = first.reshape(65, -1), second.reshape(-1, 10)
        inputs = np.hstack([images, ones])
        hidden = np.tanh(inputs @ first)
        scores = np.hstack([hidden, ones]) @ second
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        error = np.exp(logs)
        error[each, labels] -= 1
        error /= len(labels)
        back = (error @ second[:-1].T) * (1 - hidden**2)
        gradient = np.concatenate([(inputs.T @ back).ravel(), (np.hstack([hidden, ones]).T @ error).ravel()])
        return -float(logs[each, labels].mean()), gradient


def dealt_by_label(classes: int) -> list[Rows]:
    """Samples in the order of their labels, so many parts for each device (McMahan et al. 2017)."""
    pooled = digits(DEVICES, skew=100.0).clients
    images, labels = (np.concatenate([client[k] for client in pooled]) for k in range(2))
    shards = np.array_split(np.argsort(labels, kind="stable"), DEVICES * classes)
    hands = np.random.default_rng(0).permutation(DEVICES * classes).reshape(DEVICES, classes)
    rows = [np.concatenate([shards[k] for k in hand]) for hand in hands]
    return [(images[r], labels[r]) for r in rows]


FEDERATIONS = {
    "one class": dealt_by_label(1),
    "two classes": dealt_by_label(2),
    "Dirichlet 0.3": digits(DEVICES, skew=0.3).clients,
    "evenly": digits(DEVICES, skew=100.0).clients,
}
MODELS = {"softmax": (Softmax(64, 10), 0.5), "network": (Network(), 0.3)}


def left_out(model: Softmax | Network, weights: np.ndarray, clients: list[Rows], seed: int) -> int:
    devices = [ClientMeasure(i, model.gradient, client) for i, client in enumerate(clients)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure_clients(
            lambda message, asked: [(i, devices[i].answer(message)) for i in asked],
            weights,
            [len(labels) for _, labels in clients],
            directions=8,
            seed=seed,
            progress=False,
        )
    return int((~found.measured).sum())


def drawn() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Speeds in samples a second, and seconds of links, of forty fleets each."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for megabytes in (0.01, 0.1, 1.0, 10.0):
        fleets = [
            Fleet.from_traces(*phones(), 1e6 * megabytes, devices=DEVICES, seed=seed, **NOT_LOOKED_AT)
            for seed in range(40)
        ]
        name = f"measured phones, a model of {megabytes} MB"
        found[name] = [(fleet.throughput, fleet.round_time) for fleet in fleets]
    for spread in (0.5, 1.0, 1.5):
        rng = np.random.default_rng(0)
        logs = spread * rng.normal(size=(40, 2, DEVICES))
        found[f"logarithms that spread by {spread}"] = [
            (100 * np.exp(speed), np.exp(link)) for speed, link in logs
        ]
    return found


def shares() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, fleets in drawn().items():
        for samples in (4, 40, 400, 4000):
            found, named = [], 0
            for speed, link in fleets:
                computing = samples / speed
                found.append(computing / (computing + link))
                named += int((far_sizes(1 / found[-1], LITTLE) & far_sizes(speed, LITTLE)).sum())
            rows.append(
                {
                    "fleets": name,
                    "samples": samples,
                    "median_share": f"{np.median(found):.3f}",
                    "smallest_share": f"{np.min(found):.4f}",
                    "devices": DEVICES * len(found),
                    "named": named,
                }
            )
    return rows


def main() -> None:
    rows: list[dict[str, object]] = []
    for dealt, clients in FEDERATIONS.items():
        sizes = [len(labels) for _, labels in clients]
        row: dict[str, object] = {"dealt": dealt, "answers": 0}
        for name, (model, rate) in MODELS.items():
            weights, done = model.start(), 0
            for after in AFTER:
                for _ in range(after - done):
                    steps = [model.gradient(weights, client)[1] for client in clients]
                    weights = weights - rate * np.average(steps, axis=0, weights=sizes)
                done = after
                lost = [left_out(model, weights, clients, seed) for seed in SEEDS]
                column = f"{name}, after {after}"
                row[column] = sum(lost)
                row["answers"] = int(str(row["answers"])) + DEVICES * len(lost)
        rows.append(row)
        print(row, flush=True)
    tables.write(RESULTS / "honest_answers.csv", rows)
    tables.write(RESULTS / "honest_shares.csv", shares())


if __name__ == "__main__":
    main()

"""Clients whose gradients, curvatures and noise are known, and their reports."""

from __future__ import annotations

import math

import numpy as np

from coopt.measuring.estimates import estimate
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair

DIMENSION = 8


class Fleet:
    """Clients whose gradients are A_i w - b_i plus Gaussian noise: every constant is known."""

    def __init__(self, devices: int, seed: int, *, spread: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.samples = rng.integers(50, 500, size=devices)
        self.p = self.samples / self.samples.sum()
        self.curvature = np.linspace(0.5, 2.0, DIMENSION)
        self.offset = spread * rng.normal(size=(devices, DIMENSION))
        self.noise = rng.uniform(0.5, 8, size=devices)

    def full(self, model: np.ndarray) -> np.ndarray:
        return self.curvature * model - self.offset

    def truth(self, model: np.ndarray) -> dict[str, float]:
        gradients = self.full(model)
        mean = self.p @ gradients
        return {
            "gradient": float(mean @ mean),
            "divergence": float(self.p @ np.sum((gradients - mean) ** 2, axis=1)),
        }

    def report(self, client: int, model: np.ndarray, *, round_: int = 0, size: int = 8) -> ClientReport:
        scale = math.sqrt(self.noise[client] / (size / 2) / DIMENSION)
        clean = self.full(model)[client]
        first, second = clean + scale * self.rng.normal(size=(2, DIMENSION))
        step = self.rng.normal(size=DIMENSION) * 0.1
        blur = 0.05 * self.rng.normal(size=(2, DIMENSION))
        moved = self.curvature * step + blur
        return ClientReport(
            client=client,
            round=round_,
            samples=int(self.samples[client]),
            local_steps=2,
            batch_size=size,
            samples_processed=2 * size,
            loss=1.0 + client,
            seconds_computing=0.5 * size,
            seconds_communicating=0.25,
            halves=HalfBatches(
                size // 2, size // 2, float(np.sum((first - second) ** 2)), float(first @ second)
            ),
            pair=SameBatchPair(
                step=float(step @ step),
                product=float(moved[0] @ moved[1]),
                difference=float(np.sum((moved[0] - moved[1]) ** 2)),
                slope=float(moved.mean(axis=0) @ step),
                loss_change=0.1,
            ),
            gradient=(first + second) / 2,
            change=moved.mean(axis=0),
        )

    def reports(self, model: np.ndarray, round_: int = 0) -> list[ClientReport]:
        return [self.report(i, model, round_=round_) for i in range(len(self.samples))]


def run(fleet: Fleet, model: np.ndarray, rounds: int) -> Estimates:
    state, named = Estimates.empty(fleet.samples), 0
    for round_ in range(rounds):
        state, ignored = estimate.update(state, fleet.reports(model, round_), round=round_)
        named += len(ignored)
    assert named <= 1  # in fleets as small as these, an honest device is named once in a thousand reports
    return state

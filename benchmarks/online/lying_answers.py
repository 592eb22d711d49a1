"""A fifth of liars in a measurement: what the plan that a forecast then chooses loses.

    python -m benchmarks.online.lying_answers      # about a minute

Thirty devices with least-squares losses of their own are measured by messages, six of them lie in every
answer, each lie in all numbers that show it, and the controller's forecast plans from what is believed. The
plan is judged by the forecast of the honest measurement, in which nothing is left to chance, against the plan
that the honest measurement gives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import Budget, Measurement, Problem, solve_allocation
from coopt.measuring.exchange import ClientMeasure, Message, measure_clients

TABLE = Path(__file__).parent / "results" / "lying_answers.csv"
DEVICES, LIARS, DIMENSION, SEEDS, RATE = 30, 6, 8, range(10), 0.1
Values = dict[str, np.ndarray]
Lie = Callable[[Values], Values]


def scaled(**factors: float | list[float]) -> Lie:
    """All numbers that a lie has to change, each by its factor."""
    return lambda values: (
        values
        | {name: values[name] * np.asarray(factor) for name, factor in factors.items() if name in values}
    )


def gradients(factor: float) -> Lie:
    return scaled(gradient=factor, fresh=factor, square=factor**2)


def curvatures(factor: float) -> Lie:
    return scaled(product=factor, curvature=factor, sharpness=[factor, factor**2])


def covariances(factor: float) -> Lie:
    return scaled(noise=factor, covariance=factor)


def late(lie: Lie) -> Lie:
    """Told in the last answer only, which alone has the square of the gradient."""
    return lambda values: lie(values) if "square" in values else values


LIES: dict[str, Lie] = {
    "none": lambda values: values,
    "gradients x -5": gradients(-5.0),
    "gradients x -3": gradients(-3.0),
    "gradients x -3, loss x 9": lambda values: gradients(-3.0)(scaled(loss=9.0)(values)),
    "gradients x -3, loss x 9, at last": late(lambda values: gradients(-3.0)(scaled(loss=9.0)(values))),
    "gradients x -3, curvature x 9": lambda values: gradients(-3.0)(curvatures(9.0)(values)),
    "gradients x -1": gradients(-1.0),
    "curvature x 100": curvatures(100.0),
    "curvature x 10": curvatures(10.0),
    "covariances x 29": covariances(29.0),
    "covariances x 10": covariances(10.0),
}


class Federation:
    """Rows x and targets y of every device, and the loss (x w - y)^2 / 2."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([43, seed])
        self.samples = rng.integers(40, 200, size=DEVICES)
        scale = np.geomspace(0.3, 1.5, DIMENSION)
        self.data = []
        for size in self.samples.tolist():
            x = rng.normal(size=(size, DIMENSION)) * scale * np.exp(rng.normal(0, 0.2))
            true = 1.0 + 0.5 * rng.normal(size=DIMENSION)
            self.data.append((x, x @ true + np.exp(rng.normal(0, 0.3)) * rng.normal(size=size)))

    @staticmethod
    def gradient(w: np.ndarray, rows: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
        x, y = rows
        error = x @ w - y
        return 0.5 * float(np.mean(error**2)), x.T @ error / len(y)

    def measured(self, lie: Lie) -> tuple[Measurement, int, int]:
        """What is believed, and how many liars and others are left out."""
        clients = [ClientMeasure(i, self.gradient, data) for i, data in enumerate(self.data)]

        def ask(message: Message, asked: Sequence[int]) -> list[tuple[int, Message]]:
            answers = [(i, clients[i].answer(message)) for i in asked]
            return [
                (i, Message(answer.kind, lie(dict(answer.values))) if i < LIARS else answer)
                for i, answer in answers
            ]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = measure_clients(
                ask, np.full(DIMENSION, -1.0), self.samples, rows=16, directions=6, progress=False
            )
        return found, int((~found.measured[:LIARS]).sum()), int((~found.measured[LIARS:]).sum())


def problem_of(measurement: Measurement, budget: Budget) -> Problem:
    fleet = measurement.fleet(throughput=100.0, round_time=0.3)
    return Problem(fleet, measurement.constants(RATE), budget)


def planned(measurement: Measurement, samples: np.ndarray) -> tuple[int, int, np.ndarray]:
    budget = Budget(cost=60.0 * float(samples.sum()), time=60.0, max_local_steps=30)
    plan = solve_allocation(problem_of(measurement, budget), bound=measurement.forecast(RATE))
    return plan.rounds, plan.local_steps, plan.batch_sizes


def judged(name: str, seeds: range) -> dict[str, object]:
    """One row of the table: what a lie does to the plans of some federations."""
    ratios, out, others, steps, batches = [], [], [], [], []
    for seed in seeds:
        federation = Federation(seed)
        honest, _, _ = federation.measured(LIES["none"])
        problem = problem_of(honest, Budget(cost=1e12))
        judge = honest.forecast(RATE)
        best = judge.value(problem, *planned(honest, federation.samples))
        found, lost, unjustly = federation.measured(LIES[name])
        plan = planned(found, federation.samples)
        ratios.append(judge.value(problem, *plan) / best)
        out.append(lost)
        others.append(unjustly)
        steps.append(plan[1])
        batches.append(plan[2][:LIARS].mean() / plan[2][LIARS:].mean())
    return {
        "lie": name,
        "loss over the honest plan": f"{np.exp(np.mean(np.log(ratios))):.3f}",
        "worst": f"{max(ratios):.3f}",
        "liars left out": f"{np.mean(out) / LIARS:.0%}",
        "others left out": f"{np.mean(others) / (DEVICES - LIARS):.1%}",
        "local steps": f"{np.mean(steps):.1f}",
        "batch of liars over that of others": f"{np.mean(batches):.2f}",
    }


def main() -> None:
    rows = []
    for name in LIES:
        rows.append(judged(name, SEEDS))
        print(rows[-1], flush=True)
    tables.write(TABLE, rows)


if __name__ == "__main__":
    main()

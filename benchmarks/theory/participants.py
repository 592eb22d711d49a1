"""Some devices a round: is the bound above the true error, and what would it be without the sampling term?

Run: python -m benchmarks.theory.participants
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory.command import command_line
from benchmarks.theory.instances import Floats, Instance, sample
from benchmarks.theory.simulate import Truth, simulate
from benchmarks.theory.validity import SIGMAS
from coopt import Certified, NonConvex
from coopt.objectives.monotone import MonotoneBase

# How many of N devices take part.
COUNTS = {"one": lambda n: 1, "half": lambda n: n // 2, "as many as there are": lambda n: n}


def equal_weights(instance: Instance) -> Instance:
    """The same problem with equal weights, its constants recomputed."""
    devices = instance.weights.size
    weights = np.full(devices, 1.0 / devices)
    amplitude = instance.amplitude
    if instance.periodic:
        # Devices are non-convex, their mean is quadratic.
        amplitude = amplitude - weights @ amplitude
    changed = replace(instance, weights=weights, amplitude=amplitude)
    return replace(changed, learning_rate=min(instance.learning_rate, 1.0 / changed.curvature_range()[1]))


def independent(instance: Instance, most: int, replicas: int, rng: np.random.Generator) -> Floats:
    """Draw devices with the probabilities p_i; one drawn twice counts twice."""
    return rng.multinomial(most, instance.weights, size=replicas) / most


def distinct(instance: Instance, most: int, replicas: int, rng: np.random.Generator) -> Floats:
    """Draw a set of devices, each as likely as any other."""
    order = rng.permuted(np.tile(np.arange(instance.weights.size), (replicas, 1)), axis=1)
    return (order < most) / most


def value(bound: MonotoneBase, instance: Instance, most: int | None, apart: bool) -> float:
    """The bound with true curvatures; with `most` None as if all devices took part."""
    problem = instance.problem(
        floor=instance.curvature_range()[0], mean_smoothness=instance.mean_smoothness()
    )
    budget = replace(problem.budget, participants=most, distinct_participants=apart and most is not None)
    return bound.value(
        replace(problem, budget=budget), instance.rounds, instance.local_steps, instance.batch_sizes
    )


def rows_of(
    label: str, instances: Sequence[Instance], truths: Sequence[Truth], counts: Sequence[int], apart: bool
) -> list[Row]:
    """A row for each bound, with and without what sampling adds."""
    rows: list[Row] = []
    for bound in (Certified(), NonConvex()):
        gradient = isinstance(bound, NonConvex)
        truth = np.array([t.gradient if gradient else t.error for t in truths])
        error = np.array([t.gradient_se if gradient else t.error_se for t in truths])
        for with_sampling in (True, False):
            values = np.array(
                [
                    value(bound, instance, most if with_sampling else None, apart)
                    for instance, most in zip(instances, counts, strict=True)
                ]
            )
            broken = truth - SIGMAS * error > values * (1.0 + 1e-9)
            ratio = values / truth
            rows.append(
                {
                    "bound": bound.name if with_sampling else f"sampling left out of {bound.name}",
                    "devices a round": label,
                    "instances": len(instances),
                    "violations": int(np.sum(broken)),
                    "median": float(np.median(ratio)),
                    "10 %": float(np.quantile(ratio, 0.1)),
                    "90 %": float(np.quantile(ratio, 0.9)),
                }
            )
    return rows


def draw(axes: Any, rows: Sequence[Row]) -> None:
    """Bound over true error: median, and from the 10 to the 90 % quantile."""
    shown = [row for row in rows if row["bound"] == "certified"]
    for place, row in enumerate(shown):
        axes.plot([row["10 %"], row["90 %"]], [place, place], color="tab:blue", linewidth=4, alpha=0.4)
        axes.plot(row["median"], place, "o", color="tab:blue")
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="certified bound / true error")
    axes.set_yticks(range(len(shown)), [row["devices a round"] for row in shown])


def run(quick: bool, folder: Path) -> list[Row]:
    count, replicas = (6, 16) if quick else (600, 64)
    rows: list[Row] = []
    for apart in (False, True):
        drawn = list(sample(count, seed=11))
        instances = [equal_weights(instance) for instance in drawn] if apart else drawn
        for label, most_of in COUNTS.items():
            if apart and label == "as many as there are":
                continue
            counts = {id(instance): most_of(instance.weights.size) for instance in instances}
            scheme = distinct if apart else independent
            truths = simulate(
                instances,
                replicas=replicas,
                seed=12,
                shares=lambda i, n, rng, scheme=scheme, counts=counts: scheme(i, counts[id(i)], n, rng),
            )
            name = f"{label}, {'distinct' if apart else 'drawn independently'}"
            rows += rows_of(name, instances, truths, list(counts.values()), apart)
    save("participants", rows, folder)
    picture("participants", lambda axes: draw(axes, rows), folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)

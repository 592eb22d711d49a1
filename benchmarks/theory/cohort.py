"""Devices that never train: is the bound above the true error, and what would it be without the bias?

Run: python -m benchmarks.theory.cohort
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
from coopt import Certified, leave_out


def left_out(instance: Instance, which: str) -> list[int]:
    """Devices that never train: the one of least weight, or the lighter half."""
    order = np.argsort(instance.weights)
    return order[: 1 if which == "the lightest" else max(instance.weights.size // 2, 1)].tolist()


def fixed(instance: Instance, which: str, replicas: int) -> Floats:
    """The same shares in every round: nothing of those left out."""
    shares = instance.weights.copy()
    shares[left_out(instance, which)] = 0.0
    return np.tile(shares / shares.sum(), (replicas, 1))


def value(instance: Instance, which: str, with_bias: bool) -> float:
    """The certified bound for those that train, with true curvatures."""
    out = left_out(instance, which)
    problem = instance.problem(
        floor=instance.curvature_range()[0], mean_smoothness=instance.mean_smoothness()
    )
    rest = leave_out(problem, out)
    if not with_bias:
        rest = replace(rest, constants=replace(rest.constants, gradient_bias=None))
    batches = np.delete(instance.batch_sizes, out)
    return Certified().value(rest, instance.rounds, instance.local_steps, batches)


def rows_of(which: str, instances: Sequence[Instance], truths: Sequence[Truth]) -> list[Row]:
    """A row with the bias in the bound, and one without."""
    truth = np.array([t.error for t in truths])
    error = np.array([t.error_se for t in truths])
    rows: list[Row] = []
    for with_bias in (True, False):
        values = np.array([value(instance, which, with_bias) for instance in instances])
        rows.append(
            {
                "bound": "certified" if with_bias else "bias left out of certified",
                "devices left out": which,
                "instances": len(instances),
                "violations": int(np.sum(truth - SIGMAS * error > values * (1.0 + 1e-9))),
                "median": float(np.median(values / truth)),
                "10 %": float(np.quantile(values / truth, 0.1)),
                "90 %": float(np.quantile(values / truth, 0.9)),
            }
        )
    return rows


def draw(axes: Any, rows: Sequence[Row]) -> None:
    """Bound over true error: median, and from the 10 to the 90 % quantile."""
    for place, row in enumerate(rows):
        colour = "tab:blue" if row["bound"] == "certified" else "tab:orange"
        axes.plot([row["10 %"], row["90 %"]], [place, place], color=colour, linewidth=4, alpha=0.4)
        axes.plot(row["median"], place, "o", color=colour)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="bound / true error")
    axes.set_yticks(range(len(rows)), [f"{row['bound']},\n{row['devices left out']}" for row in rows])


def run(quick: bool, folder: Path) -> list[Row]:
    count, replicas = (6, 16) if quick else (600, 64)
    instances = list(sample(count, seed=21))
    rows: list[Row] = []
    for which in ("the lightest", "the lighter half"):
        truths = simulate(
            instances,
            replicas=replicas,
            seed=22,
            shares=lambda instance, n, _rng, which=which: fixed(instance, which, n),
        )
        rows += rows_of(which, instances, truths)
    save("cohort", rows, folder)
    picture("cohort", lambda axes: draw(axes, rows), folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)

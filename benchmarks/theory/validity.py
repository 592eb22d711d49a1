"""Is every bound above the true error, and by how much? Random instances with exactly known constants.

Run: python -m benchmarks.theory.validity
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory import tradeoff
from benchmarks.theory.command import command_line
from benchmarks.theory.instances import FAMILIES, Instance, sample
from benchmarks.theory.simulate import Truth, simulate
from coopt import AdaCoOpt, Certified, Dynamite, NonConvex, Problem, TradeOff
from coopt.objectives.monotone import MonotoneBase

# A bound counts as violated where the measured mean exceeds it by this many standard errors.
SIGMAS = 4.0
STRATA = ((0.0, 0.5), (0.5, 2.0), (2.0, 8.0), (8.0, np.inf))
SHOWN = (
    "published, rho = beta/2",
    "certified, smooth only",
    "certified, ell = min(0, true)",
    "certified, true ell and beta_F",
    "trade-off, true ell and beta_F",
    "certified, measured beta_d",
)
Evaluate = Callable[[Instance, Truth], float]


def _value(bound: MonotoneBase, problem: Problem, instance: Instance) -> float:
    return bound.value(problem, instance.rounds, instance.local_steps, instance.batch_sizes)


def _floor(instance: Instance, knowledge: str) -> float | None:
    """The curvature floor that a user who knows this much would give."""
    low, high = instance.curvature_range()
    if knowledge == "smooth":
        return None
    return max(low, -high) if knowledge == "known" else max(min(low, 0.0), -high)


def certified(knowledge: str, *, midpoint: bool = True, mean: bool = False) -> Evaluate:
    def evaluate(instance: Instance, _truth: Truth) -> float:
        problem = instance.problem(
            floor=_floor(instance, knowledge),
            coupling=None if midpoint else instance.curvature_range()[1],
            mean_smoothness=instance.mean_smoothness() if mean else None,
        )
        return _value(Certified(), problem, instance)

    return evaluate


def measured(bound: MonotoneBase) -> Evaluate:
    """With the coupling that the run itself showed."""

    def evaluate(instance: Instance, truth: Truth) -> float:
        problem = instance.problem(
            floor=_floor(instance, "known"),
            mean_smoothness=instance.mean_smoothness(),
            coupling=min(truth.coupling, instance.curvature_range()[1]),
        )
        return _value(bound, problem, instance)

    return evaluate


def trade_off(knowledge: str, *, mean: bool = False, pilot: bool = False, gradient: bool = False) -> Evaluate:
    """`pilot`: with the coupling that the run itself showed; `gradient`: the non-convex form."""
    best = tradeoff.best_gradient_value if gradient else TradeOff().value

    def evaluate(instance: Instance, truth: Truth) -> float:
        problem = instance.problem(
            floor=_floor(instance, knowledge),
            mean_smoothness=instance.mean_smoothness() if mean else None,
            coupling=min(truth.coupling, instance.curvature_range()[1]) if pilot else None,
        )
        return best(problem, instance.rounds, instance.local_steps, instance.batch_sizes)

    return evaluate


def published(rho: Callable[[Instance], float | None]) -> Evaluate:
    return lambda instance, _truth: _value(Dynamite(), instance.problem(rho=rho(instance)), instance)


def adacoopt(instance: Instance, _truth: Truth) -> float:
    """With the Lipschitz constant of F on the set of models that are no worse than the start."""
    problem = instance.problem()
    lipschitz = float(np.sqrt(2.0 * instance.mean_smoothness() * instance.initial_gap()))
    constants = replace(problem.constants, lipschitz=lipschitz)
    return _value(AdaCoOpt(), Problem(problem.fleet, constants, problem.budget), instance)


def nonconvex(knowledge: str) -> Evaluate:
    return lambda instance, _truth: _value(
        NonConvex(), instance.problem(floor=_floor(instance, knowledge)), instance
    )


ERROR_BOUNDS: dict[str, Evaluate] = {
    "published, drift dropped (rho = 0)": published(lambda _i: 0.0),
    "published, rho = beta/2": published(lambda i: i.curvature_range()[1] / 2.0),
    "published, rho = 1/(eta tau)": published(lambda _i: None),
    "AdaCoOpt, rho = Lipschitz on the start's level set": adacoopt,
    "certified, smooth only": certified("smooth"),
    "certified, ell = min(0, true), beta_d = beta": certified("convexity", midpoint=False),
    "certified, ell = min(0, true)": certified("convexity"),
    "certified, true ell, beta_d = beta": certified("known", midpoint=False),
    "certified, true ell": certified("known"),
    "certified, true ell and beta_F": certified("known", mean=True),
    "certified, measured beta_d": measured(Certified()),
    "trade-off, smooth only": trade_off("smooth"),
    "trade-off, ell = min(0, true)": trade_off("convexity"),
    "trade-off, true ell": trade_off("known"),
    "trade-off, true ell and beta_F": trade_off("known", mean=True),
    "trade-off, measured beta_d": trade_off("known", mean=True, pilot=True),
}
GRADIENT_BOUNDS: dict[str, Evaluate] = {
    "nonconvex, smooth only": nonconvex("smooth"),
    "nonconvex, true ell": nonconvex("known"),
    "nonconvex, measured beta_d": measured(NonConvex()),
    "trade-off nonconvex, smooth only": trade_off("smooth", gradient=True),
    "trade-off nonconvex, true ell": trade_off("known", gradient=True),
}


def ratios(
    bounds: dict[str, Evaluate], instances: Sequence[Instance], truths: Sequence[Truth], *, gradient: bool
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Bound over true value for every instance, and the number of violations."""
    found: dict[str, np.ndarray] = {}
    violated: dict[str, int] = {}
    for name, evaluate in bounds.items():
        values = np.array([evaluate(i, t) for i, t in zip(instances, truths, strict=True)])
        truth = np.array([t.gradient if gradient else t.error for t in truths])
        error = np.array([t.gradient_se if gradient else t.error_se for t in truths])
        found[name] = values / truth
        # Without noise both sides are deterministic: leave room for rounding.
        violated[name] = int(np.sum(truth - SIGMAS * error > values * (1.0 + 1e-9)))
    return found, violated


def table(found: dict[str, np.ndarray], violated: dict[str, int], instances: Sequence[Instance]) -> list[Row]:
    steepness = np.array([instance.steepness() for instance in instances])
    family = np.array([instance.family for instance in instances])
    rows: list[Row] = []
    for name, ratio in found.items():
        row: Row = {"bound": name, "instances": len(instances), "violations": violated[name]}
        row["median"] = float(np.median(ratio))
        row["10 %"], row["90 %"] = (float(np.quantile(ratio, level)) for level in (0.1, 0.9))
        for low, high in STRATA:
            inside = (steepness > low) & (steepness <= high)
            label = f"eta beta tau in ({low:g}, {high:g}]"
            row[label] = float(np.median(ratio[inside])) if inside.any() else None
        for kind in FAMILIES:
            row[kind] = float(np.median(ratio[family == kind]))
        rows.append(row)
    return rows


def draw_medians(axes: Any, steepness: np.ndarray, found: dict[str, np.ndarray]) -> None:
    """Median ratio of some bounds by eta beta tau, with the 10 and 90 % quantiles of the tightest."""
    edges = np.quantile(steepness, np.linspace(0.0, 1.0, 15 if len(steepness) > 100 else 3))
    bins = [(steepness >= low) & (steepness <= high) for low, high in itertools.pairwise(edges)]
    middles = [float(np.median(steepness[inside])) for inside in bins]
    for name in SHOWN:
        axes.plot(middles, [np.median(found[name][inside]) for inside in bins], ".-", label=name)
    low, high = ([np.quantile(found[SHOWN[-1]][inside], level) for inside in bins] for level in (0.1, 0.9))
    axes.fill_between(middles, low, high, alpha=0.15, color=axes.lines[-1].get_color(), linewidth=0)
    axes.axhline(1.0, color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", ylim=(0.7, 1e6))
    axes.set(xlabel="eta beta tau", ylabel="bound / true error, median")
    axes.legend(fontsize=7)


def run(quick: bool, folder: Path) -> list[Row]:
    count, replicas = (12, 16) if quick else (2100, 64)
    instances = list(sample(count, seed=1))
    truths = simulate(instances, replicas=replicas, seed=2)
    found, violated = ratios(ERROR_BOUNDS, instances, truths, gradient=False)
    rows = table(found, violated, instances)
    gradient, gradient_violated = ratios(GRADIENT_BOUNDS, instances, truths, gradient=True)
    rows += table(gradient, gradient_violated, instances)
    save("validity", rows, folder)
    steepness = np.array([instance.steepness() for instance in instances])
    picture("validity", lambda axes: draw_medians(axes, steepness, found), folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)

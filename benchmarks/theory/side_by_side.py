"""Published local-SGD bounds and ours on the same instances, each under its own assumptions.

Run: python -m benchmarks.theory.side_by_side
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory import local_sgd_bounds as published
from benchmarks.theory.command import command_line
from benchmarks.theory.instances import Floats, Instance, draw
from coopt import Certified, NonConvex, TradeOff

SIGMAS = 4.0
CONDITIONS = ((1.0, 10.0), (10.0, 100.0), (100.0, 1e4))


@dataclass(frozen=True)
class Mean:
    """A Monte Carlo mean."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Floats) -> Mean:
        return cls(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


@dataclass(frozen=True)
class Outcome:
    """What a run of one instance gives: losses are F - F*."""

    last: Mean  # loss of the last averaged model
    average: Mean  # loss of the mean over t of the averaged models
    weighted: Mean  # loss of the mean over t and devices, weighted by 1/eta_t^2
    distance2: Mean  # squared distance of the last averaged model from the optimum
    gradient: Mean  # mean over t of ||grad F||^2
    square: float  # largest E||g_i||^2 along the run


def follow(instance: Instance, etas: Floats, *, replicas: int, rng: np.random.Generator) -> Outcome:
    """Run one instance with the given step sizes."""
    devices, size = instance.tilt.shape
    p = instance.weights[:, None]
    spread = np.sqrt(instance.noise / instance.batch_sizes / size)[:, None]
    slope = np.cos if instance.periodic else np.tanh
    best = instance.minimiser()
    lowest = instance.mean_loss(best)
    a, b = instance.weights @ instance.amplitude, instance.weights @ instance.tilt
    w = np.broadcast_to(instance.start, (replicas, devices, size)).copy()
    average, weighted, total = np.zeros((replicas, size)), np.zeros((replicas, size)), 0.0
    gradients, square = np.zeros(replicas), 0.0
    for step, eta in enumerate(etas):
        mean = np.sum(p * w, axis=1)
        average += mean
        weighted += w.mean(axis=1) / eta**2
        total += 1.0 / eta**2
        full = instance.quadratic * mean + a * slope((mean - instance.centre) / instance.width) + b
        gradients += np.sum(full**2, axis=1)
        local = instance.quadratic * w + instance.tilt
        local += instance.amplitude * slope((w - instance.centre) / instance.width)
        local += spread * rng.standard_normal(w.shape)
        square = max(square, float(np.sum(local**2, axis=2).mean(axis=0).max()))
        w -= eta * local
        if (step + 1) % instance.local_steps == 0:
            w[:] = np.sum(p * w, axis=1, keepdims=True)
    last = np.sum(p * w, axis=1)
    return Outcome(
        last=Mean.of(instance.mean_loss(last) - lowest),
        average=Mean.of(instance.mean_loss(average / len(etas)) - lowest),
        weighted=Mean.of(instance.mean_loss(weighted / total) - lowest),
        distance2=Mean.of(np.sum((last - best) ** 2, axis=1)),
        gradient=Mean.of(gradients / len(etas)),
        square=square,
    )


def prepare(kind: str, rng: np.random.Generator) -> Instance:
    """An instance with equal weights and noise; convex ones with condition numbers up to 1,000."""
    instance = draw({"identical": "log-cosh", "convex": "hessian", "nonconvex": "sines"}[kind], rng)
    devices = len(instance.weights)
    quadratic = instance.quadratic
    if kind != "nonconvex":
        condition = float(np.exp(rng.uniform(np.log(2.0), np.log(1000.0))))
        quadratic = np.concatenate([[instance.curvature_range()[1] / condition], quadratic[1:]])
        quadratic = np.maximum(quadratic, quadratic[0])
    tilt = np.zeros_like(instance.tilt) if kind == "identical" else instance.tilt
    tilt = tilt - tilt.mean(axis=0)
    amplitude = instance.amplitude
    if kind == "nonconvex":
        amplitude = amplitude - amplitude.mean(axis=0)
    tau = int(rng.choice([1, 2, 5, 10, 20]))
    eta = float(np.exp(rng.uniform(np.log(0.05), np.log(1.0)))) / max(4.0, 8.0 * (tau - 1))
    equal = replace(
        instance,
        weights=np.full(devices, 1.0 / devices),
        noise=np.full(devices, instance.noise.max()),
        batch_sizes=np.full(devices, instance.batch_sizes[0]),
        quadratic=quadratic,
        amplitude=amplitude,
        tilt=tilt,
        local_steps=tau,
        rounds=max(1, int(rng.integers(200, 800)) // tau),
    )
    return replace(equal, learning_rate=eta / equal.curvature_range()[1])


def judge(
    kind: str, instance: Instance, replicas: int, rng: np.random.Generator
) -> dict[str, tuple[float, Mean]]:
    """Every bound that applies: name -> (bound, what it bounds)."""
    low, beta = instance.curvature_range()
    eta, tau, rounds = instance.learning_rate, instance.local_steps, instance.rounds
    steps, devices, batches = rounds * tau, len(instance.weights), instance.batch_sizes
    seen = follow(instance, np.full(steps, eta), replicas=replicas, rng=rng)
    sigma2 = float(instance.noise[0] / batches[0])
    best, mu = instance.minimiser(), instance.pl_constant()
    distance2 = float(np.sum((instance.start - best) ** 2))
    common: dict[str, Any] = {"eta": eta, "steps": steps, "tau": tau, "devices": devices, "beta": beta}
    problem = instance.problem(floor=max(low, -beta), mean_smoothness=instance.mean_smoothness())
    found: dict[str, tuple[float | None, Mean]] = {}
    if kind == "nonconvex":
        found["Yu et al. 2019, Thm 1"] = (
            published.yu(**common, gap=instance.initial_gap(), sigma2=sigma2, square=seen.square),
            seen.gradient,
        )
        found["nonconvex"] = NonConvex().value(problem, rounds, tau, batches), seen.gradient
        return {name: (value, mean) for name, (value, mean) in found.items() if value is not None}
    if kind == "identical":
        shift = published.stich_shift(beta=beta, mu=mu, tau=tau)
        own = follow(instance, 4.0 / (mu * (shift + np.arange(steps))), replicas=replicas, rng=rng)
        found["Stich 2019, Thm 2.2"] = (
            published.stich(
                steps=steps,
                tau=tau,
                devices=devices,
                beta=beta,
                mu=mu,
                distance2=distance2,
                sigma2=sigma2,
                square=own.square,
            ),
            own.weighted,
        )
        distance = published.khaled_identical_distance(**common, mu=mu, distance2=distance2, sigma2=sigma2)
        # Smoothness turns the distance into a loss; F is at most beta-smooth.
        found["Khaled et al. 2020, Thm 1, as a loss"] = (
            None if distance is None else beta / 2.0 * distance,
            seen.last,
        )
        found["Khaled et al. 2020, Thm 2"] = (
            published.khaled_identical_loss(**common, distance2=distance2, sigma2=sigma2),
            seen.average,
        )
    else:
        u = np.tanh((best - instance.centre) / instance.width)
        at_best = instance.quadratic * best + instance.amplitude * u + instance.tilt
        found["Khaled et al. 2020, Thm 5"] = (
            published.khaled_heterogeneous(
                **common, distance2=distance2, sigma2_opt=sigma2 + float(np.mean(np.sum(at_best**2, axis=1)))
            ),
            seen.average,
        )
    found["certified"] = Certified().value(problem, rounds, tau, batches), seen.last
    found["trade-off"] = TradeOff().value(problem, rounds, tau, batches), seen.last
    return {name: (value, mean) for name, (value, mean) in found.items() if value is not None}


def run(quick: bool, folder: Path) -> list[Row]:
    rng = np.random.default_rng(21)
    count, replicas = (6, 8) if quick else (200, 32)
    rows: list[Row] = []
    clouds: dict[str, Floats] = {}
    for kind in ("identical", "convex", "nonconvex"):
        instances = [prepare(kind, rng) for _ in range(count)]
        judged = [judge(kind, instance, replicas, rng) for instance in instances]
        ours = "nonconvex" if kind == "nonconvex" else "certified"
        condition = np.array([i.curvature_range()[1] / i.pl_constant() for i in instances])
        for name in judged[0]:
            there = [index for index, found in enumerate(judged) if name in found]
            value = np.array([judged[index][name][0] for index in there])
            truth = np.array([judged[index][name][1].value for index in there])
            error = np.array([judged[index][name][1].error for index in there])
            reference = np.array([judged[index][ours][0] for index in there])
            row: Row = {"instances": kind, "bound": name, "applies to": len(there)}
            row["violations"] = int(np.sum(truth - SIGMAS * error > value * (1.0 + 1e-9)))
            row["median bound / what it bounds"] = float(np.median(value / truth))
            row["median bound / ours"] = float(np.median(value / reference))
            for least, most in CONDITIONS:
                inside = (condition[there] > least) & (condition[there] <= most)
                label = f"below ours, condition in ({least:g}, {most:g}]"
                row[label] = f"{np.mean(value[inside] < reference[inside]):.0%}" if inside.any() else None
            rows.append(row)
            clouds[f"{name} ({kind})"] = value / truth
    save("side_by_side", rows, folder)

    def plot(axes: Any) -> None:
        axes.boxplot(list(clouds.values())[::-1], orientation="horizontal", whis=(10, 90), showfliers=False)
        axes.set_yticks(range(1, len(clouds) + 1), list(clouds)[::-1], fontsize=8)
        axes.set(xscale="log", xlabel="bound / what it bounds: median, quartiles, 10 and 90 %")

    picture("side_by_side", plot, folder, height=4.5)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)

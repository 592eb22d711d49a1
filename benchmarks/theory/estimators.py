"""Estimators of the constants, corrected and uncorrected, against the truth.

Non-i.i.d. logistic regression with batches of 8: clients report through coopt's probe at a model held
fixed, so that the truth is one number for each quantity. Run: python -m benchmarks.theory.estimators
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory.command import command_line
from benchmarks.theory.instances import Floats
from coopt.measuring.estimates import estimate, estimate_published, readings
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.probe import ClientProbe
from coopt.measuring.report import ClientReport
from coopt.measuring.screening import screen

DEVICES, SIZE, BATCH, LOCAL_STEPS, ETA, RIDGE = 10, 20, 8, 5, 0.2, 0.05


@dataclass(frozen=True)
class Task:
    """Logistic regression on devices that each hold their own region of the data and mix of labels."""

    features: tuple[Floats, ...]
    labels: tuple[Floats, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Task:
        truth = rng.normal(size=SIZE)
        features, labels = [], []
        for _ in range(DEVICES):
            centre = 0.5 * rng.normal(size=SIZE)
            x = centre + rng.normal(size=(int(rng.integers(100, 400)), SIZE))
            chance = 1.0 / (1.0 + np.exp(-(x @ truth)))
            features.append(x)
            labels.append((rng.random(len(x)) < chance).astype(float))
        return cls(tuple(features), tuple(labels))

    @property
    def samples(self) -> np.ndarray:
        return np.array([len(x) for x in self.features])

    @property
    def weights(self) -> Floats:
        return self.samples / self.samples.sum()

    def loss_gradient(self, device: int, model: Floats, batch: Any = slice(None)) -> tuple[float, Floats]:
        x, y = self.features[device][batch], self.labels[device][batch]
        logit = x @ model
        loss = float(np.mean(np.logaddexp(0.0, logit) - y * logit)) + RIDGE / 2.0 * float(model @ model)
        return loss, x.T @ (1.0 / (1.0 + np.exp(-logit)) - y) / len(y) + RIDGE * model

    def mean_gradient(self, model: Floats) -> Floats:
        return np.sum([p * self.loss_gradient(i, model)[1] for i, p in enumerate(self.weights)], axis=0)

    def mean_loss(self, model: Floats) -> float:
        return float(sum(p * self.loss_gradient(i, model)[0] for i, p in enumerate(self.weights)))

    def train(self, steps: int) -> Floats:
        model = np.zeros(SIZE)
        for _ in range(steps):
            model = model - 0.5 * self.mean_gradient(model)
        return model

    def noise(self, device: int, model: Floats) -> float:
        """M_i: trace of the covariance of single-sample gradients."""
        x, y = self.features[device], self.labels[device]
        each = x * (1.0 / (1.0 + np.exp(-(x @ model))) - y)[:, None]
        return float(np.sum(each.var(axis=0)))


@dataclass
class Tally:
    """Sums over rounds of true and naive quantities that depend on the local paths."""

    bend: float = 0.0
    independent: float = 0.0
    step: float = 0.0
    moved: float = 0.0


def one_round(
    task: Task, model: Floats, probes: list[ClientProbe], index: int, rng: np.random.Generator, tally: Tally
) -> tuple[list[ClientReport], Floats]:
    """Reports of a round, and the local models; every round starts from the same model."""
    reports, ends = [], []
    for device, probe in enumerate(probes):
        size = len(task.labels[device])
        local = model - ETA * probe.begin(model, round=index, batch_size=BATCH)
        for _ in range(LOCAL_STEPS - 1):
            local = local - ETA * task.loss_gradient(device, local, rng.integers(size, size=BATCH))[1]
        reports.append(probe.end(local, samples=size, local_steps=LOCAL_STEPS))
        ends.append(local)
    exact = [task.loss_gradient(i, end)[1] - task.loss_gradient(i, model)[1] for i, end in enumerate(ends)]
    for device, (p, end) in enumerate(zip(task.weights, ends, strict=True)):
        size = len(task.labels[device])
        one, two = (task.loss_gradient(device, at, rng.integers(size, size=BATCH))[1] for at in (end, model))
        tally.bend += p * float(exact[device] @ exact[device])
        tally.independent += p * float((one - two) @ (one - two))
        tally.step += p * float((end - model) @ (end - model))
    mean = np.sum([p * change for p, change in zip(task.weights, exact, strict=True)], axis=0)
    tally.moved += float(mean @ mean)
    return reports, np.array(ends)


def divergence_from_models(task: Task, model: Floats, ends: Floats, beta: float, noise: Floats) -> float:
    """d_h^2 from what devices send anyway; exact where every curvature is beta."""
    p, x = task.weights, ETA * beta
    moves = (model - ends) / (ETA * LOCAL_STEPS)
    raw = float(p @ np.sum((moves - p @ moves) ** 2, axis=1))
    left = (1.0 - x) ** LOCAL_STEPS
    factor = x * LOCAL_STEPS / (1.0 - left)
    nu2 = float(p * (1.0 - p) @ (noise / BATCH))
    return factor**2 * (raw - nu2 * (1.0 - left**2) / (LOCAL_STEPS**2 * x * (2.0 - x)))


def spread(values: list[float], batches: int = 15) -> float:
    """Standard error of the mean of a correlated series, from the means of long stretches."""
    means = [np.mean(part) for part in np.array_split(np.array(values), batches)]
    return float(np.std(means, ddof=1) / np.sqrt(batches))


def run(quick: bool, folder: Path) -> list[Row]:
    rng = np.random.default_rng(41)
    task = Task.draw(rng)
    best, model = task.train(50 if quick else 3000), task.train(12)
    p, rounds, warm = task.weights, 40 if quick else 1500, 20
    gradients = np.array([task.loss_gradient(i, model)[1] for i in range(DEVICES)])
    full = p @ gradients
    noise = np.array([task.noise(i, model) for i in range(DEVICES)])
    gap = task.mean_loss(model) - task.mean_loss(best)

    probes = [
        ClientProbe(
            i,
            lambda at, batch, i=i: task.loss_gradient(i, at, batch),
            lambda size, i=i: rng.integers(len(task.labels[i]), size=size),
        )
        for i in range(DEVICES)
    ]
    state, tally = Estimates.empty(task.samples), Tally()
    seen: dict[str, list[float]] = {}
    for index in range(rounds):
        reports, ends = one_round(task, model, probes, index, rng, tally)
        state, _ = estimate.update(state, reports, round=index)
        batch = np.array([report.gradient for report in reports])
        believed, _ = screen(reports, devices=DEVICES, round=index)
        naive = estimate_published.estimate(believed, task.samples)
        mean = p @ batch
        entry = {
            "naive d_h^2": float(p @ np.sum((batch - mean) ** 2, axis=1)),
            "naive gradient": float(p @ np.sum(batch**2, axis=1)),
            "server gradient": float(mean @ mean),
            "naive c": naive.convexity,
            "models d_h^2": divergence_from_models(
                task, model, ends, float(np.sqrt(tally.bend / tally.step)), noise
            ),
        }
        if index >= warm:
            entry["M"] = float(p @ readings.device_noise(state))
            entry["gradient"] = readings.squared_gradient(state).value
            roots = {
                "d_h^2": readings.divergence,
                "beta^2": readings.smoothness,
                "beta_d^2": readings.coupling,
            }
            entry |= {name: root(state).value ** 2 for name, root in roots.items()}
        for name, value in entry.items():
            seen.setdefault(name, []).append(value)
    found = {name: float(np.mean(values)) for name, values in seen.items()}
    square, apart = float(full @ full), float(p @ np.sum((gradients - full) ** 2, axis=1))
    rows: list[Row] = []

    def add(
        quantity: str, truth: float, name: str, naive: float | None, what: str, scale: float = 1.0
    ) -> None:
        corrected = scale * found[name]
        rows.append(
            {
                "quantity": quantity,
                "truth": truth,
                "corrected": corrected,
                "corrected / truth": corrected / truth,
                "its standard error": scale * spread(seen[name]) / truth,
                "uncorrected": naive,
                "uncorrected / truth": None if naive is None else naive / truth,
                "the uncorrected estimator": what,
            }
        )

    add("sum p_i M_i", float(p @ noise), "M", None, "")
    add("d_h^2", apart, "d_h^2", found["naive d_h^2"], "sum p_i ||g_i - g||^2")
    add("d_h^2 from models", apart, "models d_h^2", None, "")
    add("||grad F||^2", square, "gradient", found["naive gradient"], "sum p_i ||g_i||^2")
    add("||grad F||^2 at the server", square, "gradient", found["server gradient"], "||sum p_i g_i||^2")
    independent = tally.independent / tally.step
    add(
        "beta^2 along the local path",
        tally.bend / tally.step,
        "beta^2",
        independent,
        "independent batches at the two models",
    )
    add("beta_d^2", tally.moved / tally.step, "beta_d^2", None, "")
    twice = 2.0 * gap
    add("c", square / twice, "gradient", found["naive c"], "sum p_i ||g_i||^2/F_i", scale=1.0 / twice)
    save("estimators", rows, folder)

    def plot(axes: Any) -> None:
        place = np.arange(len(rows))
        axes.barh(place - 0.2, [row["corrected / truth"] for row in rows], 0.4, label="corrected")
        axes.barh(
            place + 0.2, [row["uncorrected / truth"] or np.nan for row in rows], 0.4, label="uncorrected"
        )
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set_yticks(place, [row["quantity"] for row in rows])
        axes.set(xscale="log", xlabel="estimate / truth")
        axes.legend()

    picture("estimators", plot, folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)

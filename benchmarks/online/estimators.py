"""Estimators against ground truth from full-batch gradients, on real data.

    COOPT_DATA=... python -m benchmarks.online.estimators      # about three minutes on one core

Federated averaging with 5 local steps of batch 16 on 46 phones and watches (human activity) and on MNIST
split over 20 clients with two digits each, with multinomial logistic regression and a squared-hinge SVM;
once more on the phones and watches while their data arrive. Every round the clients report through
`ClientProbe`, and the truth is computed from all samples at the same model.
"""

from __future__ import annotations

import gzip
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import ClientProbe
from coopt.measuring.estimates import estimate, estimate_published, readings
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.screening import screen
from coopt.streaming import Reservoir

RESULTS = Path(__file__).parent / "results"
ROUNDS, FROM = 80, 50
STEPS, BATCH, RIDGE = 5, 16, 1e-3
QUANTITIES = (
    "noise M",
    "divergence d_h",
    "squared gradient",
    "smoothness beta",
    "coupling beta_d",
    "contraction c",
)


@dataclass
class Task:
    """Samples of every client, and a linear model with a smooth loss."""

    name: str
    x: list[np.ndarray]
    y: list[np.ndarray]
    classes: int
    kind: str  # "logistic" or "svm"
    rate: float

    def size(self) -> int:
        return self.x[0].shape[1] * (self.classes if self.kind == "logistic" else 1)

    def residual(self, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss of each sample, and the derivative of each loss with respect to the scores, shape (n, k)."""
        if self.kind == "logistic":
            score = x @ w.reshape(x.shape[1], self.classes)
            score = score - score.max(axis=1, keepdims=True)
            p = np.exp(score)
            p /= p.sum(axis=1, keepdims=True)
            loss = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-300))
            p[np.arange(len(y)), y] -= 1
            return loss, p
        sign = np.where(y % 2 == 0, 1.0, -1.0)
        margin = np.maximum(0, 1 - sign * (x @ w))
        return margin**2, (-2 * margin * sign)[:, None]

    def gradient(self, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        loss, r = self.residual(w, x, y)
        return float(loss.mean() + RIDGE / 2 * (w @ w)), (x.T @ r / len(y)).ravel() + RIDGE * w

    def noise(self, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
        """Trace of the covariance of the per-sample gradients, which are outer products x r."""
        _, r = self.residual(w, x, y)
        mean = (x.T @ r / len(y)).ravel()
        return float(np.mean(np.sum(x**2, axis=1) * np.sum(r**2, axis=1)) - mean @ mean)


def sensors(root: Path) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    data = np.load(root / "federated/sp-sw-har/sp-sw-har-windows.npz")
    x = np.clip((data["x"] - data["x"].mean(axis=0)) / data["x"].std(axis=0), -5, 5) / np.sqrt(28)
    x = np.column_stack([x, np.full(len(x), 0.2)]).astype(np.float64)
    groups = [(s, d) for s in np.unique(data["subject"]) for d in np.unique(data["device"])]
    rows = [np.flatnonzero((data["subject"] == s) & (data["device"] == d)) for s, d in groups]
    rows = [r for r in rows if len(r)]
    return [x[r] for r in rows], [data["y"][r].astype(int) for r in rows], 5


def mnist(root: Path) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    def read(name: str, skip: int) -> np.ndarray:
        with gzip.open(next((root / "mnist").glob(f"{name}*.gz"))) as file:
            return np.frombuffer(file.read()[skip:], dtype=np.uint8)

    x = read("train-images", 16).reshape(-1, 784)[:10_000] / 255 / 9.2  # mean squared norm about 1
    y = read("train-labels", 8)[:10_000].astype(int)
    pieces = np.array_split(np.argsort(y, kind="stable"), 40)
    order = np.random.default_rng(0).permutation(40)
    rows = [np.concatenate([pieces[i], pieces[j]]) for i, j in order.reshape(20, 2)]
    return [x[r] for r in rows], [y[r] for r in rows], 10


def minimum(task: Task, p: np.ndarray) -> float:
    from scipy.optimize import minimize

    def total(w: np.ndarray) -> tuple[float, np.ndarray]:
        parts = [task.gradient(w, x, y) for x, y in zip(task.x, task.y, strict=True)]
        return float(sum(a * f for a, (f, _) in zip(p, parts, strict=True))), sum(
            a * g for a, (_, g) in zip(p, parts, strict=True)
        )

    found = minimize(total, np.zeros(task.size()), jac=True, method="L-BFGS-B", options={"maxiter": 3000})
    return float(found.fun)


def truth(
    task: Task, p: np.ndarray, w: np.ndarray, held: np.ndarray | None, optimum: float
) -> dict[str, float]:
    """Every quantity from all samples; the pair compares the last local models with the model received."""
    parts = [task.gradient(w, x, y) for x, y in zip(task.x, task.y, strict=True)]
    gradients = np.array([g for _, g in parts])
    mean = p @ gradients
    loss = float(p @ [f for f, _ in parts])
    result = {
        "noise M": float(p @ [task.noise(w, x, y) for x, y in zip(task.x, task.y, strict=True)]),
        "divergence d_h": float(np.sqrt(p @ np.sum((gradients - mean) ** 2, axis=1))),
        "squared gradient": float(mean @ mean),
        "contraction c": float(mean @ mean) / (2 * (loss - optimum)),
    }
    if held is not None:
        moved = [task.gradient(v, x, y)[1] for v, x, y in zip(held, task.x, task.y, strict=True)]
        change, step = gradients - np.array(moved), p @ np.sum((w - held) ** 2, axis=1)
        result["smoothness beta"] = float(np.sqrt(p @ np.sum(change**2, axis=1) / step))
        result["coupling beta_d"] = float(np.sqrt(np.sum((p @ change) ** 2) / step))
    return result


def run(task: Task, *, streaming: bool) -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    full_x, full_y = task.x, task.y
    buffers = [Reservoir(60, seed=rng) for _ in full_x]
    streams = [rng.permutation(len(y)) for y in full_y]
    held_rows = [np.arange(len(y)) for y in full_y]

    def receive(round_: int) -> None:
        for i, (buffer, stream) in enumerate(zip(buffers, streams, strict=True)):
            now, then = (int(len(stream) * min(1, 0.2 + 0.012 * k)) for k in (round_ - 1, round_))
            buffer.insert(stream[0 if round_ == 0 else now : then])
            held_rows[i] = np.sort(buffer.items)

    def draw(i: int) -> object:
        return lambda size: rng.choice(held_rows[i], size)

    def gradient(i: int) -> object:
        return lambda w, batch: task.gradient(w, full_x[i][batch], full_y[i][batch])

    probes = [ClientProbe(i, gradient(i), draw(i)) for i in range(len(full_x))]
    samples = np.array([len(y) for y in full_y])
    state = Estimates.empty(samples)
    model, held = np.zeros(task.size()), None
    rows: list[dict[str, object]] = []
    p = samples / samples.sum()
    optimum = minimum(task, p)
    for round_ in range(ROUNDS):
        if streaming:
            receive(round_)
            task = Task(
                task.name,
                [x[r] for x, r in zip(full_x, held_rows, strict=True)],
                [y[r] for y, r in zip(full_y, held_rows, strict=True)],
                task.classes,
                task.kind,
                task.rate,
            )
        true = truth(task, p, model, held, optimum)
        local, reports = [], []
        for i, probe in enumerate(probes):
            w = model - task.rate * probe.begin(model, round=round_, batch_size=BATCH)
            for _ in range(STEPS - 1):
                w = w - task.rate * gradient(i)(w, draw(i)(BATCH))[1]
            reports.append(probe.end(w, samples=int(samples[i]), local_steps=STEPS))
            local.append(w)
        seen, ignored = screen(reports, devices=len(probes), round=round_)
        state = estimate.absorb(state, seen, local_steps=STEPS, replacement=True, streaming=False)
        old = estimate_published.estimate(seen, samples)
        gradients = np.array([report.gradient for report in reports])
        c = readings.contraction(state, task.rate, caution=0.0)
        corrected = {
            "noise M": float(p @ state.noise.mean),
            "divergence d_h": readings.divergence(state).value,
            "squared gradient": readings.squared_gradient(state).value,
            "smoothness beta": readings.smoothness(state).value,
            "coupling beta_d": readings.coupling(state).value,
            "contraction c": c.value,
        }
        published = {
            "divergence d_h": old.divergence,
            "squared gradient": float(np.sum((p @ gradients) ** 2)),
            "smoothness beta": old.smoothness,
            "contraction c": old.convexity,
        }
        rows += [
            {
                "task": task.name + (", streaming" if streaming else ""),
                "round": round_,
                "quantity": name,
                "truth": f"{true[name]:.6g}",
                "corrected": f"{corrected[name]:.6g}",
                "published": f"{published.get(name, np.nan):.6g}",
                "ignored": len(ignored),
            }
            for name in QUANTITIES
            if name in true
        ]
        model, held = np.array(p @ np.array(local)), np.array(local)
    return rows


def report(rows: list[dict[str, str]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = [
        "# Estimators against the truth",
        "",
        f"Median relative error over rounds {FROM} to {ROUNDS - 1}, corrected / as published, in per cent; a",
        "dash where nothing was published (for the squared gradient: uncorrected). The truth is from all",
        "samples at the same model; for a stream from all samples in the buffers.",
        "`python -m benchmarks.online.estimators` makes this table.",
        "",
        "| task | " + " | ".join(QUANTITIES) + " |",
        "|---|" + "---|" * len(QUANTITIES),
    ]
    figure, axes = plt.subplots(len(tasks), len(QUANTITIES), figsize=(17, 2.3 * len(tasks)), sharex=True)
    for line_of_axes, task in zip(axes, tasks, strict=True):
        cells = []
        for axis, name in zip(line_of_axes, QUANTITIES, strict=True):
            chosen = [row for row in rows if row["task"] == task and row["quantity"] == name]
            values = {
                k: np.array([float(row[k]) for row in chosen]) for k in ("truth", "corrected", "published")
            }
            late = np.array([int(row["round"]) >= FROM for row in chosen])
            errors = {
                k: 100 * float(np.median(np.abs(v / values["truth"] - 1)[late])) for k, v in values.items()
            }
            cells.append(
                f"{errors['corrected']:.0f} / "
                + ("-" if np.isnan(errors["published"]) else f"{errors['published']:.0f}")
            )
            when = [int(row["round"]) for row in chosen]
            axis.plot(when, values["truth"], "k", lw=2, label="truth")
            axis.plot(when, values["published"], color="tab:orange", lw=1, label="as published")
            axis.plot(when, values["corrected"], color="tab:blue", lw=1.2, label="corrected")
            axis.set_yscale("symlog", linthresh=float(np.min(np.abs(values["truth"]))) / 3)
            axis.tick_params(labelsize=6)
            if task == tasks[0]:
                axis.set_title(name, fontsize=9)
        line_of_axes[0].set_ylabel(task, fontsize=7)
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    axes[0, 0].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(RESULTS / "estimators.png", dpi=110)
    (RESULTS / "estimators.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    root = os.environ.get("COOPT_DATA")
    if root is None:
        sys.exit("COOPT_DATA is not set: it names the folder with the human-activity and MNIST data")
    phones, digits = sensors(Path(root)), mnist(Path(root))
    rows: list[dict[str, object]] = []
    for name, (x, y, classes) in (("activity", phones), ("MNIST", digits)):
        for kind, label in (("logistic", "logistic regression"), ("svm", "squared-hinge SVM")):
            rate = 0.5 if kind == "logistic" else 0.1
            rows += run(Task(f"{name}, {label}", x, y, classes, kind, rate), streaming=False)
            print(name, kind, flush=True)
    x, y, classes = phones
    rows += run(Task("activity, logistic regression", x, y, classes, "logistic", 0.5), streaming=True)
    RESULTS.mkdir(exist_ok=True)
    tables.write(RESULTS / "estimators.csv", rows)
    report([{key: str(value) for key, value in row.items()} for row in rows])


if __name__ == "__main__":
    main()

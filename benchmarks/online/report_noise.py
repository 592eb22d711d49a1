"""What Gaussian noise on reports does to the estimates that are made of them.

    python -m benchmarks.online.report_noise      # some seconds

Digits on thirty devices, softmax regression, at the untrained model and ten rounds after each other there:
estimates after the tenth round with noise on every report, over those of full batches without any. Gradients
are clipped at 2, losses at 5; delta is 1e-5.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import ClientProbe
from coopt.adapters.simulated import Softmax, digits
from coopt.measuring.estimates import estimate, readings
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.report_noise import ReportNoise

RESULTS = Path(__file__).parent / "results"
DEVICES, BATCH, ROUNDS, RUNS = 30, 16, 10, 5
EPSILONS = (math.inf, 100_000.0, 10_000.0, 1_000.0, 100.0)


def _gradient(softmax: Softmax, images, labels, model, rows):
    return softmax.gradient(model, (images[rows], labels[rows]))


def run(epsilon: float, seed: int) -> dict[str, float]:
    """Estimates over the truth, after ten rounds at the same model."""
    federation, softmax = digits(DEVICES, skew=0.5, seed=seed), Softmax(64, 10)
    rng = np.random.default_rng([71, seed])
    noise = None if math.isinf(epsilon) else ReportNoise(epsilon, 1e-5, gradient_clip=2.0, loss_clip=5.0)
    start = softmax.start()
    state = Estimates.empty(federation.samples)
    shares = federation.samples / federation.samples.sum()
    for now in range(ROUNDS):
        reports = []
        for i, (images, labels) in enumerate(federation.clients):
            probe = ClientProbe(
                i,
                partial(_gradient, softmax, images, labels),
                lambda size, held=labels.size: rng.integers(held, size=size),
                noise=noise,
                seed=rng,
                clock=lambda: 0.0,
            )
            first = probe.begin(start, round=now, batch_size=BATCH)
            held = len(labels)
            reports.append(
                probe.end(start - 0.1 * first, samples=held, local_steps=1, extra_evaluation=False)
            )
        state, _ = estimate.update(state, reports, round=now)
    gradients = np.array([softmax.gradient(start, client)[1] for client in federation.clients])
    mean = shares @ gradients
    spread = math.sqrt(float(shares @ np.sum((gradients - mean) ** 2, axis=1)))
    per_sample = []
    for (images, labels), whole in zip(federation.clients, gradients, strict=True):
        each = [
            softmax.gradient(start, (images[k : k + 1], labels[k : k + 1]))[1] for k in range(len(labels))
        ]
        per_sample.append(float(np.mean(np.sum((np.array(each) - whole) ** 2, axis=1))))
    return {
        "squared gradient": state.gradient.now.value / float(mean @ mean),
        "divergence": readings.divergence(state).value / spread,
        "gradient noise": float(shares @ readings.device_noise(state)) / float(shares @ per_sample),
        "loss": state.loss.now.value / math.log(10),
    }


def main() -> None:
    rows, lines = (
        [],
        [
            "# Noise on reports",
            "",
            "Estimates over the truth after ten rounds, mean of five runs and standard deviation; digits on",
            "thirty devices, 650 parameters, delta 1e-5 for all data of a client, for each report.",
            "`python -m benchmarks.online.report_noise` makes this table.",
            "",
        ],
    )
    for epsilon in EPSILONS:
        found = [run(epsilon, seed) for seed in range(RUNS)]
        if not rows:
            lines += ["| epsilon | " + " | ".join(found[0]) + " |", "|---|" + "---|" * len(found[0])]
        cells = []
        for name in found[0]:
            values = np.array([each[name] for each in found])
            rows.append(
                {"epsilon": epsilon, "estimate": name, "mean": values.mean(), "deviation": values.std(ddof=1)}
            )
            cells.append(f"{values.mean():.3g} ± {values.std(ddof=1):.2g}")
        label = "no noise" if math.isinf(epsilon) else f"{epsilon:,.0f}"
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    tables.write(RESULTS / "report_noise.csv", rows)
    (RESULTS / "report_noise.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

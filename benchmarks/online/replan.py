"""How long the controller takes to plan again and to take in reports.

    python -m benchmarks.online.replan      # about a minute

Simulated reports of quadratic clients; each size runs 40 rounds with horizon planning, and the table shows
medians over the rounds after warm-up, on one core.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from coopt import Budget, ClientReport, Controller, Fleet
from coopt.measuring.report import HalfBatches, SameBatchPair
from coopt.online.round_plan import RoundPlan

RESULTS = Path(__file__).parent / "results"
ROUNDS = 40
DIMENSION = 10


def reports(
    plan: RoundPlan, fleet: Fleet, speed: np.ndarray, model: np.ndarray, rng: np.random.Generator
) -> list:
    devices = len(fleet)
    size = plan.batch_sizes
    half = np.maximum(size // 2, 1)
    centre = np.sin(np.arange(devices))[:, None] * np.ones(DIMENSION)
    clean = model - centre
    noise = rng.normal(size=(2, devices, DIMENSION)) / np.sqrt(half)[None, :, None]
    first, second = clean + noise[0], clean + noise[1]
    step = rng.normal(size=(devices, DIMENSION)) * 0.1
    busy = plan.local_steps * size / speed
    return [
        ClientReport(
            client=i,
            round=plan.round,
            samples=int(fleet.samples[i]),
            local_steps=plan.local_steps,
            batch_size=int(size[i]),
            samples_processed=int(plan.local_steps * size[i]),
            loss=float(1 + clean[i] @ clean[i] / 2),
            seconds_computing=float(busy[i]),
            seconds_communicating=0.5,
            halves=HalfBatches(
                int(half[i]),
                int(half[i]),
                float(np.sum((first[i] - second[i]) ** 2)),
                float(first[i] @ second[i]),
            ),
            pair=SameBatchPair(*(float(step[i] @ step[i]),) * 2, 0.0, float(step[i] @ step[i]), 0.0),
            gradient=(first[i] + second[i]) / 2,
            change=step[i],
        )
        for i in range(devices)
    ]


def measure(devices: int) -> tuple[float, float, float, int]:
    rng = np.random.default_rng(devices)
    fleet = Fleet(rng.integers(50, 500, devices), gradient_noise=1.0, divergence=1.0)
    speed = rng.lognormal(4, 0.7, devices)
    budget = Budget(cost=devices * 2e5, time=2e4, round_cost=devices * 10)
    controller = Controller(fleet, budget, 0.05)
    model = np.full(DIMENSION, 5.0)
    planning, observing, first = [], [], 0.0
    for round_ in range(ROUNDS):
        begun = time.process_time()
        plan = controller.plan()
        took = time.process_time() - begun
        assert isinstance(plan, RoundPlan)
        received = reports(plan, fleet, speed, model, rng)
        begun = time.process_time()
        controller.observe(received, seconds=1.0)
        if round_ == controller.warm_up_rounds:
            first = took
        if round_ > controller.warm_up_rounds:
            planning.append(took)
            observing.append(time.process_time() - begun)
        model = model * 0.9
    return float(np.median(planning)), float(np.median(observing)), first, plan.local_steps


def main() -> None:
    lines = [
        "# Time to plan again",
        "",
        "Median processor milliseconds a round on one core after warm-up, and the first plan, which searches",
        "from nothing.",
        "`python -m benchmarks.online.replan` makes this table.",
        "",
        "| clients | plan() | observe() | first plan() |",
        "|---|---|---|---|",
    ]
    for devices in (10, 100, 1000, 10_000):
        plan, observe, first, _ = measure(devices)
        lines.append(f"| {devices:,} | {1e3 * plan:.1f} | {1e3 * observe:.1f} | {1e3 * first:.0f} |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "replan.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

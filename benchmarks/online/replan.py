"""How long the controller takes to plan again and to take in reports.

    python -m benchmarks.online.replan      # about a minute

Simulated reports of quadratic clients; each size runs 40 rounds by the reports alone and 40 by a measurement
that is taken once, and the table shows medians over the rounds after warm-up, on one core. The slow devices
are a hundred times slower than the others, and hold .5 % of the data: each round the controller asks whether
to wait for them.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from coopt import Budget, ClientReport, Controller, Fleet, Measurement
from coopt.measuring.report import HalfBatches, SameBatchPair
from coopt.online.round_plan import RoundPlan

RESULTS = Path(__file__).parent / "results"
ROUNDS = 40
DIMENSION = 10
# Directions of the measurement, and fleets for which a plan is made by it.
DIRECTIONS, LARGEST_MEASURED = 16, 1000
SLOW = 0.005


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


def measurement(fleet: Fleet, rng: np.random.Generator) -> Measurement:
    """Made up, of devices that are alike but for chance."""
    devices, m = len(fleet), DIRECTIONS
    factors = 0.02 * rng.normal(size=(devices, m, m))
    gradients = np.geomspace(3.0, 0.3, m) + 0.3 * rng.normal(size=(devices, m))
    mean = fleet.weights @ gradients
    return Measurement(
        samples=fleet.samples,
        weights=fleet.weights,
        names=None,
        gradients=gradients,
        fresh_gradient=mean,
        curvatures=np.diag(np.geomspace(1.0, 0.02, m)) + factors @ factors.transpose(0, 2, 1),
        covariances=np.broadcast_to(0.05 * np.eye(m), (devices, m, m)),
        noise=np.full(devices, 2.0),
        divergence=np.ones(devices),
        gradient_norm=float(np.linalg.norm(mean)),
        unseen=0.05,
        unseen_divergence=0.2,
        loss=3.0,
        sample_curvature=2.0,
        rows=np.full(devices, 8),
        measured=np.ones(devices, dtype=bool),
        samples_used=320 * devices,
        curvature_kind="hessian",
        curvature_reason="",
        parameters=1000,
    )


def measure(devices: int, *, measuring: bool, slow: bool = False) -> tuple[float, float, float]:
    """Milliseconds of plan(), observe() and the first plan()."""
    rng = np.random.default_rng(devices)
    fleet = Fleet(rng.integers(50, 500, devices), gradient_noise=1.0, divergence=1.0)
    speed = rng.lognormal(4, 0.3, devices)
    if slow:
        speed[: max(int(SLOW * devices), 1)] = 0.5
    budget = Budget(cost=devices * 2e5, time=2e4, round_cost=devices * 10)
    controller = Controller(fleet, budget, 0.05)
    model = np.full(DIMENSION, 5.0)
    planning, observing, first = [], [], 0.0
    for round_ in range(ROUNDS):
        if measuring and controller.wants() is not None:
            controller.measured(measurement(fleet, rng), seconds=100.0)
        begun = time.process_time()
        plan = controller.plan()
        took = time.process_time() - begun
        assert isinstance(plan, RoundPlan)
        received = reports(plan, fleet, speed * rng.lognormal(0.0, 0.1, devices), model, rng)
        busy = max(report.seconds_computing for report in received)
        begun = time.process_time()
        controller.observe(received, seconds=busy + 0.5)
        if round_ == controller.warm_up_rounds:
            first = took
        if round_ > controller.warm_up_rounds:
            planning.append(took)
            observing.append(time.process_time() - begun)
        model = model * 0.9
    assert plan.policy == ("schedule" if measuring else "horizon")
    return 1e3 * float(np.median(planning)), 1e3 * float(np.median(observing)), 1e3 * first


def main() -> None:
    lines = [
        "# Time to plan again",
        "",
        "Median processor milliseconds a round on one core after warm-up, and the first plan, which searches",
        "from nothing: by the reports alone, by a measurement of the fleet that stands, and where every",
        "two-hundredth device is so slow that it is asked each round whether to wait for it.",
        "`python -m benchmarks.online.replan` makes this table.",
        "",
        "| clients | planned by | slow devices | plan() | observe() | first plan() |",
        "|---|---|---|---|---|---|",
    ]
    for devices in (10, 100, 1000, 10_000):
        for measuring in (False, True) if devices <= LARGEST_MEASURED else (False,):
            for slow in (False, True) if devices >= 1000 else (False,):
                plan, observe, first = measure(devices, measuring=measuring, slow=slow)
                by = "measurement" if measuring else "reports"
                lines.append(
                    f"| {devices:,} | {by} | {'yes' if slow else 'no'} | {plan:.1f} | {observe:.1f} "
                    f"| {first:.0f} |"
                )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "replan.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

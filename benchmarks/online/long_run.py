"""A controller for a long time: 1,000 clients that come and go, and an account kept beside it exactly.

    python benchmarks/online/long_run.py --minutes 5      # of processor time

In every round some clients are away, and now and then a tenth of them changes places with others. The exact
cost is the sum of what the clients did in rational numbers. Memory is what Python has allocated.
"""

from __future__ import annotations

import argparse
import csv
import gc
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np

from coopt import Budget, ClientReport, Controller, Fleet, RoundPlan
from coopt.measuring.report import HalfBatches

RESULTS = Path(__file__).parent / "results"
CLIENTS, PARTS = 1000, 10
COST = 0.1  # no float: its sums are rounded


def reports(plan: RoundPlan, there: np.ndarray, rng: np.random.Generator) -> list[ClientReport]:
    loss = 2.0 / (1 + plan.round / 50) + 0.2
    made = []
    for client in np.flatnonzero(there).tolist():
        size = int(plan.batch_sizes[client])
        extra = 2 * max(1, size // 4) if plan.extra_evaluation and size >= 2 else 0
        processed = plan.local_steps * size + extra
        first = size // 2
        halves = None
        if first:
            noise = 4.0 * rng.gamma(20, 1 / 20)
            square = loss * 0.5
            halves = HalfBatches(first, size - first, noise * (1 / first + 1 / (size - first)), square)
        made.append(
            ClientReport(
                client=client,
                round=plan.round,
                samples=600,
                local_steps=plan.local_steps,
                batch_size=size,
                samples_processed=processed,
                loss=loss * rng.gamma(100, 0.01),
                seconds_computing=processed / 100 * rng.gamma(50, 0.02),
                halves=halves,
            )
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    ends = time.process_time() + 60 * parser.parse_args().minutes
    rng = np.random.default_rng(0)
    fleet = Fleet(np.full(CLIENTS, 600), 4.0, 0.1, throughput=100.0, sample_cost=COST)
    # As much as 100,000 rounds like the first ones would cost: the end of the budget is far away.
    controller = Controller(fleet, Budget(cost=1e5 * CLIENTS * 20 * COST, round_cost=0.3), 0.1)
    exact, away = Fraction(0), rng.random(CLIENTS) < 0.2
    rows, seconds, answer = [], [], None
    tracemalloc.start()
    last = time.process_time()
    share = (ends - last) / PARTS
    while time.process_time() < ends:
        began = time.process_time()
        answer = controller.plan()
        if not isinstance(answer, RoundPlan):
            break
        planned = time.process_time() - began
        if answer.round % 20 == 0:  # a tenth of the clients leaves, and others come
            away = rng.permutation(away) if answer.round % 200 == 0 else away ^ (rng.random(CLIENTS) < 0.1)
        there = ~away & (rng.random(CLIENTS) < 0.95)
        told = reports(answer, there, rng)
        began = time.process_time()
        ignored = controller.observe(told, seconds=1.0, absent=np.flatnonzero(~there).tolist())
        seconds.append((planned, time.process_time() - began))
        assert not [each for each in ignored if each.what == "samples_processed"]
        exact += sum((report.samples_processed for report in told), 0) * Fraction(COST) + Fraction(0.3)
        if time.process_time() - last > share:
            last = time.process_time()
            gc.collect()
            plan_ms, observe_ms = 1e3 * np.median(seconds, axis=0)
            rows.append(
                {
                    "rounds": controller.round,
                    "plan_ms": f"{plan_ms:.2f}",
                    "observe_ms": f"{observe_ms:.2f}",
                    "megabytes": f"{tracemalloc.get_traced_memory()[0] / 1e6:.2f}",
                    "cost": f"{controller.spent_cost:.10g}",
                    "relative_difference": f"{float(abs(Fraction(controller.spent_cost) / exact - 1)):.1e}",
                }
            )
            print(rows[-1], flush=True)
            seconds = []
    with (RESULTS / "long_run.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(answer)


if __name__ == "__main__":
    main()

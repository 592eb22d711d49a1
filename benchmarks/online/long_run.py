"""A controller for a long time: 1,000 clients that come and go, and an account kept beside it exactly.

    python -m benchmarks.online.long_run --minutes 30     # of processor time; goes on where it ended

In every round some clients are away, and now and then a tenth of them changes places with others. The exact
cost is the sum of what the clients did in rational numbers. Memory is that of the process. The run is kept in
`build/long_run`, so every start is a restart from the controller's checkpoint too; it is over after 100,000
rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt import Budget, ClientReport, Controller, Fleet, RoundPlan
from coopt.measuring.report import HalfBatches

HERE = Path(__file__).resolve()
TABLE = HERE.parent / "results" / "long_run.csv"
FOLDER = HERE.parents[2] / "build" / "long_run"
STATE, BESIDE = FOLDER / "controller.ckpt", FOLDER / "beside.json"
CLIENTS, ROUNDS = 1000, 100_000
# So often the run is saved, and a line of the table written.
EVERY, LINE = 1000, 10_000
COST = 0.1  # no float: its sums are rounded


def reports(plan: RoundPlan, there: np.ndarray, rng: np.random.Generator) -> list[ClientReport]:
    loss = 2.0 / (1 + plan.round / 50) + 0.2
    clients = np.flatnonzero(there)
    luck = [rng.gamma(shape, 1 / shape, size=clients.size).tolist() for shape in (20, 100, 50)]
    made = []
    for client, noise, told, slow in zip(clients.tolist(), *luck, strict=True):
        size = int(plan.batch_sizes[client])
        extra = 2 * max(1, size // 4) if plan.extra_evaluation and size >= 2 else 0
        processed = plan.local_steps * size + extra
        first = size // 2
        halves = None
        if first:
            difference = 4.0 * noise * (1 / first + 1 / (size - first))
            halves = HalfBatches(first, size - first, difference, loss * 0.5)
        made.append(
            ClientReport(
                client=client,
                round=plan.round,
                samples=600,
                local_steps=plan.local_steps,
                batch_size=size,
                samples_processed=processed,
                loss=loss * told,
                seconds_computing=processed / 100 * slow,
                halves=halves,
            )
        )
    return made


def make() -> Controller:
    fleet = Fleet(np.full(CLIENTS, 600), 4.0, 0.1, throughput=100.0, sample_cost=COST)
    # As much as 100,000 rounds like the first ones would cost: the end of the budget is far away.
    return Controller(fleet, Budget(cost=1e5 * CLIENTS * 20 * COST, round_cost=0.3), 0.1)


class Beside:
    """What is kept beside the controller: the exact cost, who is away, and the table."""

    def __init__(self, controller: Controller) -> None:
        self.rng = np.random.default_rng(0)
        self.exact, self.away = Fraction(0), self.rng.random(CLIENTS) < 0.2
        self.rows: list[dict[str, object]] = []
        if BESIDE.exists():
            controller.load(STATE)
            kept = json.loads(BESIDE.read_text(encoding="utf-8"))
            self.rng.bit_generator.state = kept["rng"]
            self.exact, self.away = Fraction(kept["exact"]), np.array(kept["away"])
            self.rows = kept["rows"]

    def save(self, controller: Controller) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        controller.save(STATE)
        kept = {
            "rng": self.rng.bit_generator.state,
            "exact": str(self.exact),
            "away": self.away.tolist(),
            "rows": self.rows,
        }
        BESIDE.write_text(json.dumps(kept), encoding="utf-8")
        whole = [row for row in self.rows if int(str(row["rounds"])) % LINE == 0]
        tables.write(TABLE, whole or self.rows[-1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    ends = time.process_time() + 60 * parser.parse_args().minutes
    controller = make()
    beside = Beside(controller)
    rng, seconds = beside.rng, []
    while time.process_time() < ends and controller.round < ROUNDS:
        began = time.process_time()
        plan = controller.plan()
        assert isinstance(plan, RoundPlan), plan
        planned = time.process_time() - began
        if plan.round % 20 == 0:  # a tenth of the clients leaves, and others come
            away = beside.away
            beside.away = (
                rng.permutation(away) if plan.round % 200 == 0 else away ^ (rng.random(CLIENTS) < 0.1)
            )
        there = ~beside.away & (rng.random(CLIENTS) < 0.95)
        told = reports(plan, there, rng)
        began = time.process_time()
        ignored = controller.observe(told, seconds=1.0, absent=np.flatnonzero(~there).tolist())
        seconds.append((planned, time.process_time() - began))
        assert not [each for each in ignored if each.what == "samples_processed"]
        processed = sum(report.samples_processed for report in told)
        beside.exact += processed * Fraction(COST) + Fraction(0.3)
        if controller.round % EVERY == 0:
            gc.collect()
            plan_ms, observe_ms = 1e3 * np.median(seconds, axis=0)
            off = abs(Fraction(controller.spent_cost) / beside.exact - 1)
            beside.rows.append(
                {
                    "rounds": controller.round,
                    "plan_ms": f"{plan_ms:.2f}",
                    "observe_ms": f"{observe_ms:.2f}",
                    "megabytes": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}",
                    "cost": f"{controller.spent_cost:.10g}",
                    "relative_difference": f"{float(off):.1e}",
                }
            )
            print(beside.rows[-1], flush=True)
            seconds = []
            beside.save(controller)


if __name__ == "__main__":
    main()

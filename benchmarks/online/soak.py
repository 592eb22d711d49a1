"""Two thousand rounds with 500 devices that join, leave, hang, answer NaN and do half of their work.

    python -m benchmarks.online.soak      # about ten minutes on one core

One run after the other, each with a budget of its own that ends it, until there were enough rounds. An audit
counts what the devices really worked, and checks that nothing was overspent and every exclusion named.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables
from coopt import Budget, ClientReport, Controller, Fleet, RoundPlan, Stopped
from coopt.adapters.simulated import simulate
from coopt.adapters.system import RoundTimes, SystemModel
from coopt.measuring.ignored import Ignored

RESULTS = Path(__file__).parent / "results"
DEVICES, ROUNDS, DIMENSION = 500, 2000, 4
# Shares of the devices, and of the rounds of each.
HUNG, WITH_NAN, CUT_SHORT, STUCK, AWAY, RESTLESS = 0.03, 0.05, 0.1, 0.02, 0.1, 0.02
STUCK_SECONDS = 20.0


@dataclass
class Audit:
    """What really happened."""

    rounds: int = 0
    work: float = 0.0
    named: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    unnamed: list[str] = field(default_factory=list)
    waited: float = 0.0
    longest_plan: float = 0.0


class Restless:
    """A planner whose devices come and go, and that the audit listens to."""

    def __init__(self, controller: Controller, audit: Audit, seed: int) -> None:
        self.controller, self.audit = controller, audit
        self.rng = np.random.default_rng([seed, 7])
        self.gone: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.controller, name)

    def plan(self, *, absent: Iterable[int] = ()) -> RoundPlan | Stopped:
        devices = len(self.controller.fleet)
        for device in np.flatnonzero(self.rng.random(devices) < RESTLESS).tolist():
            if device in self.gone:
                self.controller.join(device)
                self.gone.remove(device)
                self.audit.faults["came back"] += 1
            elif len(self.gone) < devices // 2:
                self.controller.leave(device)
                self.gone.add(device)
                self.audit.faults["left"] += 1
        began = time.perf_counter()
        plan = self.controller.plan(absent=absent)
        self.audit.longest_plan = max(self.audit.longest_plan, time.perf_counter() - began)
        if isinstance(plan, RoundPlan) and self.gone & set(plan.participants.tolist()):
            self.audit.unnamed.append(f"round {plan.round}: work for devices that have left")
        return plan

    def observe(self, reports: Iterable[ClientReport], *, absent: list[int], **told_by: Any) -> list[Ignored]:
        plan = self.controller.plan()
        told = list(reports)
        lines = self.controller.observe(told, absent=absent, **told_by)
        audit = self.audit
        audit.rounds += 1
        named = {(line.client, "steps" if "local steps" in line.what else line.what) for line in lines}
        audit.named.update(what for _, what in named)
        worked = np.setdiff1d(plan.participants, absent)
        arrived = {report.client: report for report in told}
        for device in worked.tolist():
            planned, report = int(plan.steps[device]), arrived.get(device)
            if report is None:
                # It may have done all of it: the server does not see that.
                audit.work += planned * int(plan.batch_sizes[device])
                audit.faults["did not answer"] += 1
                continue
            audit.work += report.samples_processed
            if report.local_steps < planned:
                audit.faults["did a part"] += 1
                if (device, "steps") not in named:
                    audit.unnamed.append(f"round {plan.round}: device {device} did a part")
            if not math.isfinite(report.loss):
                audit.faults["loss not finite"] += 1
                if (device, "loss") not in named:
                    audit.unnamed.append(f"round {plan.round}: device {device} has no loss")
        return lines


class Faulty(SystemModel):
    """Devices that hang for ever, or for some rounds."""

    def round(self, now: int, *work: Any) -> RoundTimes:
        times = super().round(now, *work)
        stuck = np.random.default_rng([self.seed, 9, now]).random(len(self)) < STUCK
        return RoundTimes(
            np.where(stuck, STUCK_SECONDS, times.computing), times.communicating, times.absent, times.done
        )


def clients(devices: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Samples of each device, of which some hold one that is no number."""
    rng = np.random.default_rng([seed, 1])
    held = rng.integers(20, 80, size=devices)
    data = [rng.normal(size=(n, DIMENSION)) + rng.normal(size=DIMENSION) for n in held]
    for device in np.flatnonzero(rng.random(devices) < WITH_NAN):
        data[device][0, 0] = math.nan
    return [(rows, np.zeros(len(rows))) for rows in data]


def gradient(model: np.ndarray, rows: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
    away = model - rows[0]
    return 0.5 * float(np.mean(np.sum(away**2, axis=1))), away.mean(axis=0)


def run(devices: int, seed: int, budget: Budget, **options: Any) -> dict[str, Any]:
    """One run, and what the audit says of it."""
    data = clients(devices, seed)
    samples = np.array([len(rows) for rows, _ in data])
    rng = np.random.default_rng([seed, 2])
    speed = np.where(rng.random(devices) < HUNG, 1e-9, rng.uniform(50, 500, size=devices))
    first = devices - devices // 10
    # Devices that are drawn as distinct ones have equal weights.
    equal = budget.distinct_participants

    def fleet(held: np.ndarray) -> Fleet:
        return Fleet(held, 1.0, 1.0, weights=np.full(len(held), 1 / len(held)) if equal else None)

    controller = Controller(fleet(samples[:first]), budget, 0.2, seed=seed, **options)
    controller.join(fleet(samples[first:]), share=1 - first / devices if equal else None)
    audit = Audit()
    planner = Restless(controller, audit, seed)
    system = Faulty(speed, 0.2, dropout=AWAY, partial=CUT_SHORT, straggler_rate=0.05, seed=seed)
    # The devices that hold NaN are no part of what the loss is evaluated on.
    result = simulate(planner, gradient, np.full(DIMENSION, 5.0), data, system=system, progress=False)
    lost = sum(len(left_out) for left_out in result.left_out)
    return {
        "budget": budget,
        "audit": audit,
        "stopped": result.stopped.name,
        "spent_cost": controller.spent_cost,
        "spent_seconds": controller.spent_seconds,
        "left out": lost,
        "model": result.parameters,
        "mean": np.nanmean(np.concatenate([rows for rows, _ in data]), axis=0),
    }


def faults(found: dict[str, Any]) -> list[str]:
    """What is wrong with a run: an empty list."""
    budget, audit = found["budget"], found["audit"]
    wrong = list(audit.unnamed)
    if found["spent_cost"] > budget.cost * (1 + 1e-9):
        wrong.append(f"cost {found['spent_cost']} of {budget.cost}")
    if found["spent_seconds"] > budget.time * (1 + 1e-9):
        wrong.append(f"seconds {found['spent_seconds']} of {budget.time}")
    if audit.work > found["spent_cost"] * (1 + 1e-9):
        wrong.append(f"worked {audit.work}, charged {found['spent_cost']}")
    if not np.isfinite(found["model"]).all():
        wrong.append("the model is not finite")
    return wrong


def budgets(seed: int, devices: int, most: int = 300) -> Budget:
    """A budget that ends a run after some hundred rounds, or `most`."""
    rng = np.random.default_rng([seed, 3])
    many = None if seed % 6 == 0 else [devices // 5, devices // 10][seed % 2]
    return Budget(
        cost=float(rng.uniform(6000, 20000)) * (many or devices),
        time=float(rng.uniform(60, 600)),
        # Rounds that cost something of their own have several local steps, of which a part can be done.
        round_cost=20.0 * (many or devices),
        max_rounds=int(rng.integers(most // 3, most)),
        participants=many,
        distinct_participants=seed % 6 in (2, 3),
    )


def main() -> None:
    rows, seed = [], 0
    while sum(row["rounds"] for row in rows) < ROUNDS:
        found = run(DEVICES, seed, budgets(seed, DEVICES), quorum=[1.0, 0.9][seed % 2])
        wrong, audit, budget = faults(found), found["audit"], found["budget"]
        if wrong:
            raise SystemExit(f"seed {seed}: {wrong[:5]}")
        rows.append(
            {
                "seed": seed,
                "devices a round": budget.participants or "all",
                "rounds": audit.rounds,
                "stopped": found["stopped"],
                "cost used": f"{found['spent_cost'] / budget.cost:.4f}",
                "time used": f"{found['spent_seconds'] / budget.time:.4f}",
                "worked of charged": f"{audit.work / found['spent_cost']:.4f}",
                "left, came back": audit.faults["left"] + audit.faults["came back"],
                "no answer": audit.faults["did not answer"],
                "did a part": audit.faults["did a part"],
                "not finite": found["left out"],
                "distance": f"{float(np.linalg.norm(found['model'] - found['mean'])):.3f}",
            }
        )
        print(rows[-1], flush=True)
        seed += 1
    tables.write(RESULTS / "soak.csv", rows)
    report()


def report() -> None:
    """Write the table of what is kept."""
    rows = tables.read(RESULTS / "soak.csv")
    names = list(rows[0])
    lines = [
        "# Soak",
        "",
        f"{sum(int(row['rounds']) for row in rows)} rounds with {DEVICES} devices: in every round a tenth",
        f"is away, a tenth is cut short, {STUCK:.0%} hang and {RESTLESS:.0%} leave or come back;",
        f"{HUNG:.0%} hang for ever, and {WITH_NAN:.0%} hold a sample that is no number.",
        "Each line is a run with a budget of its own. No crash, nothing overspent, every exclusion named.",
        "`worked of charged` is what the devices worked at most over what the account says, rounds",
        "included; `distance` is that of the model from the mean of all samples, which began at about 10.",
        "More rounds are no better: all losses have the same curvature, so that a plan by the forecast",
        "reaches with few rounds what others need many for, and then has time to wait for devices that hang.",
        "",
        "`python -m benchmarks.online.soak` makes this table.",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(row.values()) + " |" for row in rows),
    ]
    (RESULTS / "soak.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

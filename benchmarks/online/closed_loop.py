"""How close each policy comes to the best fixed (K, tau, s) found with hindsight, on log-cosh federations.

    python -m benchmarks.online.closed_loop --tune     # choose the baselines' settings: five minutes
    python -m benchmarks.online.closed_loop            # with these settings: twenty minutes
    python -m benchmarks.online.closed_loop --report   # table and picture from the committed results

Every policy runs in closed loop with one stream of noise; the plans that it made are then replayed with 60
fresh streams, so that the table shows its decisions and not its luck. Baselines run at their defaults and at
the one setting that did best on twelve other instances.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.online.hindsight import best_fixed
from benchmarks.online.logcosh import Instance, Simulation, expected_error, instance
from coopt import Controller
from coopt.online.round_plan import RoundPlan
from coopt.policies import AdaCoOpt, DynamicBatch, DynamicTau, FedAvg, Horizon, Marginal, Policy

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SEEDS, TUNING = range(100, 150), range(1000, 1012)
MOST_ROUNDS = 3000
SCENARIOS = ("static", "jump")
TUNED = RESULTS / "tuned.json"

Setting = tuple[int, ...]
GRIDS: dict[str, list[Setting]] = {
    "marginal": [(25,), (50,), (100,), (200,)],
    "uniform CoOptFL": [(25,), (50,), (100,), (200,)],
    "no straggler": [(25,), (50,), (100,), (200,)],
    "AdaCoOpt": [(25,), (50,), (100,), (200,)],
    "Dynamic-tau": [(8,), (16,), (32,)],
    "Dynamic-batch": [(1, 8), (5, 8), (10, 8), (5, 32)],
    "FedAvg": [(1, 16), (5, 8), (5, 32), (10, 8), (10, 32), (20, 16)],
}
DEFAULTS: dict[str, Setting] = {
    "marginal": (100,),
    "uniform CoOptFL": (100,),
    "no straggler": (100,),
    "AdaCoOpt": (100,),
    "Dynamic-tau": (32,),
    "Dynamic-batch": (5, 8),
    "FedAvg": (0, 32),  # one epoch
}


def policy(name: str, setting: Setting, problem: Instance) -> Policy:
    """Make a policy from its row in the table."""
    if name == "horizon":
        return Horizon()
    if name == "marginal":
        return Marginal(*setting)
    if name == "uniform CoOptFL":
        return Marginal(*setting, split="uniform")
    if name == "no straggler":
        return Marginal(*setting, split="speed")
    if name == "AdaCoOpt":
        return AdaCoOpt(*setting)
    if name == "Dynamic-tau":
        return DynamicTau(*setting)
    if name == "Dynamic-batch":
        return DynamicBatch(*setting)
    steps, batch = setting
    return FedAvg(steps or max(1, round(float(problem.samples.mean()) / batch)), batch)


def closed_loop(problem: Instance, chosen: Policy, seed: int) -> Simulation:
    """Run one policy to the end of its budget."""
    simulation = Simulation(problem, seed)
    # A user knows that the loss is not negative where it is not; tilted losses may be, and then need a
    # number.
    floor = min(0.0, np.floor(problem.minimum() - 1)) if problem.minimum() < 0 else 0.0
    controller = Controller(
        problem.fleet(),
        problem.budget,
        problem.learning_rate,
        policy=chosen,
        lowest_loss=floor,
        curvature_floor=0.0,
    )
    while isinstance(plan := controller.plan(), RoundPlan) and controller.round < MOST_ROUNDS:
        reports, seconds = simulation.run(plan)
        controller.observe(reports, seconds=seconds)
    return simulation


def regret(problem: Instance, name: str, setting: Setting, seed: int, best: float) -> dict[str, object]:
    """Run and judge one policy on one instance."""
    begun = time.perf_counter()
    simulation = closed_loop(problem, policy(name, setting, problem), seed)
    took = time.perf_counter() - begun
    budget = problem.budget
    return {
        "policy": name,
        "setting": "-".join(map(str, setting)),
        "seed": seed,
        "regret": f"{expected_error(problem, simulation.history, 60, seed + 5) / best:.6g}",
        "rounds": len(simulation.history),
        "cost_used": f"{simulation.cost / budget.cost:.4f}",
        "time_used": f"{simulation.seconds / budget.time:.4f}",
        "ms_per_round": f"{1e3 * took / max(len(simulation.history), 1):.2f}",
    }


def tune() -> dict[str, Setting]:
    """Choose each baseline's one setting with the smallest median regret on the tuning instances."""
    problems = {seed: instance(seed, jump=False) for seed in TUNING}
    best = {seed: best_fixed(problem, seed)[0] for seed, problem in problems.items()}
    tuned = {}
    for name, grid in GRIDS.items():
        medians = {
            setting: np.median(
                [float(str(regret(problems[s], name, setting, s, best[s])["regret"])) for s in problems]
            )
            for setting in grid
        }
        tuned[name] = min(medians, key=medians.get)
        print(name, tuned[name], {k: round(float(v), 2) for k, v in medians.items()}, flush=True)
    RESULTS.mkdir(exist_ok=True)
    TUNED.write_text(json.dumps(tuned) + "\n", encoding="utf-8")
    return tuned


def run(scenario: str) -> None:
    tuned = {name: tuple(setting) for name, setting in json.loads(TUNED.read_text(encoding="utf-8")).items()}
    rows: list[dict[str, object]] = []
    for seed in SEEDS:
        problem = instance(seed, jump=scenario == "jump")
        best, rounds, tau = best_fixed(problem, seed)
        runs: list[tuple[str, str, Setting]] = [("horizon", "default", ())]
        runs += [(name, "default", setting) for name, setting in DEFAULTS.items()]
        runs += [(name, "tuned", setting) for name, setting in tuned.items() if setting != DEFAULTS[name]]
        for name, kind, setting in runs:
            row = regret(problem, name, setting, seed, best)
            rows.append({"scenario": scenario, "kind": kind, **row, "best_rounds": rounds, "best_tau": tau})
        print(scenario, seed, rows[-len(runs)]["regret"], flush=True)
        tables.write(RESULTS / f"closed_loop_{scenario}.csv", rows)


def interval(values: Iterable[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    x = np.asarray(list(values))
    medians = np.median(x[np.random.default_rng(0).integers(len(x), size=(4000, len(x)))], axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def report() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = []
    for scenario in SCENARIOS:
        rows += tables.read(RESULTS / f"closed_loop_{scenario}.csv")
    count = len({row["seed"] for row in rows})
    lines = [
        "# Closed loop on log-cosh federations",
        "",
        "Expected error of the plans made, over the expected error of the best fixed (K, tau, s) found with",
        f"hindsight; {count} random instances. Below 1 is possible: a fixed plan may",
        "not change while training runs.",
        "`python -m benchmarks.online.closed_loop` makes this table.",
    ]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, scenario in zip(axes, SCENARIOS, strict=True):
        title = {"static": "Constant speeds", "jump": "Speeds jump when half the time is over"}[scenario]
        lines += ["", f"## {title}", "", "| policy | setting | median (95 %) | 90 % quantile | worst |"]
        lines += ["|---|---|---|---|---|"]
        table = []
        for name in ["horizon", *DEFAULTS]:
            for kind in ("default", "tuned"):
                chosen = [
                    r for r in rows if (r["policy"], r["kind"], r["scenario"]) == (name, kind, scenario)
                ]
                if chosen:
                    values = np.array([float(r["regret"]) for r in chosen])
                    setting = chosen[0]["setting"]
                    table.append((float(np.median(values)), name, kind, setting, values))
        for median, name, kind, setting, values in sorted(table, key=lambda entry: entry[0]):
            low, high = interval(values)
            label = f"{kind} {setting}".strip()
            tail = f"{np.quantile(values, 0.9):.2f} | {values.max():.1f}"
            lines.append(f"| {name} | {label} | {median:.2f} ({low:.2f} to {high:.2f}) | {tail} |")
            style = {"lw": 3, "color": "k"} if name == "horizon" else {"lw": 1.2}
            axis.step(
                np.sort(values), np.arange(1, len(values) + 1) / len(values), label=f"{name} {kind}", **style
            )
        axis.set(xscale="log", xlim=(0.3, 300), title=title, xlabel="error / error of the best fixed plan")
        axis.axvline(1, color="grey", lw=0.8)
    axes[0].set_ylabel("share of instances")
    axes[1].legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(RESULTS / "closed_loop.png", dpi=130)

    def most(column: str, scenario: str, names: Iterable[str]) -> float:
        return max(float(r[column]) for r in rows if r["scenario"] == scenario and r["policy"] in names)

    ours, all_names = ["horizon"], ["horizon", *DEFAULTS]
    cost = max(most("cost_used", scenario, all_names) for scenario in SCENARIOS)
    horizon = [most("time_used", scenario, ours) for scenario in SCENARIOS]
    anyone = [most("time_used", scenario, all_names) for scenario in SCENARIOS]
    lines += [
        "",
        f"No policy ever used more than {cost:.4f} of the cost. The largest share of the time that `horizon`",
        f"used is {horizon[0]:.4f} with constant speeds and {horizon[1]:.4f} when they jump, in the round of",
        "the jump: the simulated server enforces no deadline. Of all policies it is",
        f"{anyone[0]:.4f}, in a first round planned while speeds were unknown, and {anyone[1]:.4f}.",
    ]
    (RESULTS / "closed_loop.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="choose the baselines' settings again")
    parser.add_argument("--scenario", choices=SCENARIOS, help="only this one, without the report")
    parser.add_argument("--report", action="store_true", help="only tables and picture")
    options = parser.parse_args()
    if options.tune:
        tune()
    elif options.scenario:
        run(options.scenario)
    else:
        for each in () if options.report else SCENARIOS:
            run(each)
        report()

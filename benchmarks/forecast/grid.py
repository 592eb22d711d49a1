"""Plans of equal cost, really trained: who picks the best one?

    python -m benchmarks.forecast.grid            # what is not in the cache is trained: an hour of one core
    python -m benchmarks.forecast.grid --quick

Regret is the gap F - F* of the plan picked over that of the best plan of the grid. What measuring or tuning
costs is taken off the budget before the plan is trained, and the best plan has all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.report import write_cells
from benchmarks.forecast import choosers, tuners
from benchmarks.forecast.federations import BATCHES, CASES, LOCAL_STEPS, QUICK
from benchmarks.forecast.limits import CostLimit, Limit, Phones
from benchmarks.forecast.report import command_line, spread
from benchmarks.forecast.study import Measured, Pair, Study, kept_text
from benchmarks.tables import Row, picture, save
from coopt import Constants, Problem, solve_allocation

# What coopt measures unless it is told otherwise.
PILOT, ROWS, DIRECTIONS = 5, 16, 24
# Rows and directions at each budget, by the table of `benchmarks.forecast.effort`; a deadline is one of 4x.
EFFORT = {1: (8, 8), 4: (32, 8), 16: (32, 32)}
SLOW = (16, 8)
# To be raised whenever something changes that changes who picks what.
VERSION = 2
MEASUREMENTS, EXACT_RUNS = 3, 2
GAP = 1e-3  # to which a plan is proved the best one for the forecast
TIMED_LEVEL = 4
QUICK_GRID = ((1, 5, 20), (2, 16))


def studies(quick: bool) -> Iterator[tuple[str, Study]]:
    """The federations, with their names."""
    for name, case in (QUICK if quick else CASES).items():
        grid, seeds = (QUICK_GRID, 2) if quick else ((LOCAL_STEPS, BATCHES), None)
        yield name, Study(case, *grid, seeds)


class Contest:
    """All choosers at one limit of one federation.

    Parameters
    ----------
    name : str
        Of the federation.
    study : Study
    limit : Limit
    budget : str
        The limit in words.
    """

    def __init__(self, name: str, study: Study, limit: Limit, budget: str) -> None:
        self.name, self.study, self.limit, self.budget = name, study, limit, budget
        rounds = {pair: limit.rounds(pair) for pair in study.runs}
        self.pairs = [pair for pair, many in rounds.items() if many >= 1]
        self.gaps = {pair: study.gap(pair, rounds[pair]) for pair in self.pairs}
        self.best = min(self.gaps.values())

    def rounds(self, share: float) -> dict[Pair, int]:
        found = {pair: self.limit.rounds(pair, share) for pair in self.pairs}
        return {pair: many for pair, many in found.items() if many >= 1}

    def row(self, chooser: str, seed: int, charge: float, pair: Pair | None, rank: float = np.nan) -> Row:
        gap = np.nan
        if pair is not None:
            gap = self.study.gap(pair, self.limit.rounds(pair, max(1.0 - charge, 0.0)))
        return {
            "federation": self.name,
            "budget": self.budget,
            "chooser": chooser,
            "seed": seed,
            "charge": float(charge),
            "tau": pair[0] if pair else None,
            "s": pair[1] if pair else None,
            "gap": float(gap),
            "regret": float(gap / self.best),
            "rank": float(rank),
        }

    def measuring(self, measured: Measured, seed: int) -> Iterator[Row]:
        """Those that plan from a measurement."""
        charge = self.limit.charge(measured)
        rounds = self.rounds(1.0 - charge)
        for name, chooser in choosers.MEASURING.items():
            values = chooser(self.study, measured, rounds)
            yield self._picked(name, seed, charge, values, rounds)
            if name == "forecast":
                yield self.exact(measured, seed)

    def forecast(self, measured: Measured, seed: int) -> Row:
        """The forecast's pick alone."""
        charge = self.limit.charge(measured)
        rounds = self.rounds(max(1.0 - charge, 0.0))
        if not rounds:
            return self.row("forecast", seed, charge, None)
        values = choosers.by_forecast(self.study, measured, rounds)
        return self._picked("forecast", seed, charge, values, rounds)

    def exact(self, measured: Measured, seed: int) -> Row:
        """The best plan there is for the forecast, off the grid, trained from where the pilot ended."""
        study, charge = self.study, self.limit.charge(measured)
        rate = study.federation.learning_rate
        problem = Problem(
            measured.measurement.fleet(**self.limit.fleet()),
            Constants(rate, smoothness=1.0 / rate, initial_gap=1.0),  # the forecast needs only the rate
            self.limit.budget(1.0 - charge),
        )
        plan = solve_allocation(problem, bound=measured.measurement.forecast(), gap_tolerance=GAP)
        gap = study.off_grid(
            plan.rounds, plan.local_steps, plan.batch_sizes, measured.model, EXACT_RUNS, 2000 + seed
        )
        row = self.row("forecast, exact batches", seed, charge, None)
        mean = float(plan.batch_sizes.mean())
        return row | {"tau": plan.local_steps, "s": mean, "gap": gap, "regret": gap / self.best}

    def _picked(
        self, name: str, seed: int, charge: float, values: dict[Pair, float], rounds: dict[Pair, int]
    ) -> Row:
        from scipy.stats import spearmanr

        known = {pair: value for pair, value in values.items() if not np.isnan(value)}
        if not known:
            return self.row(name, seed, charge, None)
        truth = [self.study.gap(pair, rounds[pair]) for pair in known]
        predicted = list(known.values())
        flat = len(known) < 3 or np.ptp(np.nan_to_num(predicted, posinf=1e300)) == 0
        rank = np.nan if flat else float(spearmanr(predicted, truth).statistic)
        return self.row(name, seed, charge, min(known, key=lambda pair: known[pair]), rank)

    def rules(self) -> Iterator[Row]:
        """Those that measure nothing."""
        rounds = self.rounds(1.0)
        steps = {(tau, s): 1.0 / (tau * many) for (tau, s), many in rounds.items()}
        yield self._picked("most steps", 0, 0.0, steps, rounds)
        default = choosers.nearest(rounds, choosers.FEDAVG_STEPS, choosers.FEDAVG_BATCH)
        yield self.row("FedAvg, 5 steps of 32", 0, 0.0, default)
        yield self.row("FedAvg, an epoch of 32", 0, 0.0, choosers.epoch(self.study, rounds))

    def tuners(self, seeds: int) -> Iterator[Row]:
        default = choosers.nearest(self.rounds(1.0), choosers.FEDAVG_STEPS, choosers.FEDAVG_BATCH)
        for share in tuners.SHARES:
            for name, plan in (("TPE", tuners.TPE), ("halving", tuners.HALVING)):
                for seed in range(seeds):
                    pair = tuners.tuned(self.study, self.limit.rounds, share, plan, seed, self.pairs)
                    # Whose trials were all too small for a round trains the default plan.
                    yield self.row(f"optuna, {name}, {share:.0%}", seed, share, pair or default)


def contests(name: str, study: Study, quick: bool) -> Iterator[Contest]:
    for level in study.case.levels:
        yield Contest(name, study, CostLimit(study, level), f"{level}x")
    if not quick and TIMED_LEVEL in study.case.levels:
        yield Contest(name, study, Phones(study, TIMED_LEVEL), f"{TIMED_LEVEL}x, phones")


def cells(name: str, study: Study, quick: bool) -> list[Row]:
    """Every chooser, budget and seed of one federation; from the cache if they are there."""
    what = ["cells", VERSION, name, PILOT, sorted(EFFORT.items()), SLOW, tuners.have_optuna(), quick]
    rows: list[Row] = json.loads(kept_text(study.case, what, lambda: json.dumps(_cells(name, study, quick))))
    return rows


def _cells(name: str, study: Study, quick: bool) -> list[Row]:
    rows: list[Row] = []
    for contest in contests(name, study, quick):
        limit = contest.limit
        effort = SLOW if isinstance(limit, Phones) else EFFORT[limit.level]
        left_out = limit.too_slow(*effort)
        for seed in range(1 if quick else MEASUREMENTS):
            rows += contest.measuring(study.measured(PILOT, *effort, seed, left_out=left_out), seed)
        rows += contest.rules()
        if tuners.have_optuna():
            rows += contest.tuners(2 if quick else tuners.SEEDS)
    return rows


def trained(name: str, study: Study) -> Iterator[Row]:
    """The gap of every plan of the grid at every budget."""
    for pair in study.runs:
        row: Row = {"federation": name, "tau": pair[0], "s": pair[1]}
        for level in (1, 4, 16):
            rounds = CostLimit(study, level).rounds(pair) if level in study.case.levels else 0
            gaps = study.gaps(pair, rounds) if rounds else np.array([np.nan, np.nan])
            row |= {f"rounds {level}x": rounds, f"gap {level}x": float(gaps.mean())}
            row[f"deviation {level}x"] = float(gaps.std(ddof=1))
        yield row


def per_federation(rows: list[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """Geometric mean regret and mean rank over seeds, by (budget, chooser) and federation."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    keys = dict.fromkeys((r["budget"], r["chooser"], r["federation"]) for r in rows)
    for budget, chooser, federation in keys:
        own = [
            r
            for r in rows
            if (r["budget"], r["chooser"], r["federation"]) == (budget, chooser, federation)
            and np.isfinite(r["regret"])
        ]
        if own:
            found.setdefault((budget, chooser), {})[federation] = {
                "regret": spread(r["regret"] for r in own),
                "worst": max(r["regret"] for r in own),
                "rank": float(np.mean([r["rank"] for r in own])),
            }
    return found


def summary(rows: list[Row]) -> list[Row]:
    """One row a chooser: over federations, geometric mean and worst of their mean regrets, and ranks."""
    found = per_federation(rows)
    budgets = list(dict.fromkeys(budget for budget, _ in found))
    table = []
    for chooser in dict.fromkeys(chooser for _, chooser in found):
        row: Row = {"chooser": chooser}
        for budget in budgets:
            each = found.get((budget, chooser), {}).values()
            row[budget] = row[f"{budget} worst"] = row[f"{budget} rank"] = None
            if each:
                row[budget] = spread(r["regret"] for r in each)
                row[f"{budget} worst"] = max(r["worst"] for r in each)
                ranks = [r["rank"] for r in each if np.isfinite(r["rank"])]
                row[f"{budget} rank"] = f"{np.mean(ranks):.2f} ({min(ranks):.2f})" if ranks else "-"
        table.append(row)
    return table


def draw(rows: list[Row], budget: str) -> Any:
    """Regret of every chooser on every federation."""

    def plot(axes: Any) -> None:
        found = {chooser: each for (b, chooser), each in per_federation(rows).items() if b == budget}
        for place, (_, each) in enumerate(reversed(found.items())):
            values = [r["regret"] for r in each.values()]
            axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.5, markersize=5)
            axes.plot(spread(values), place, "|", color="black", markersize=14, markeredgewidth=2)
        axes.axvline(1.0, color="grey", linewidth=0.8)
        axes.set_yticks(range(len(found)), list(reversed(found)), fontsize=8)
        axes.set(xscale="log", xlabel=f"gap of the plan picked / best of the grid, budget {budget}")

    return plot


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    rows: list[Row] = []
    plans: list[Row] = []
    for name, study in studies(quick):
        if only and name not in only:
            continue
        rows += cells(name, study, quick)
        plans += trained(name, study)
        write_cells("grid", rows, folder)
        write_cells("plans", plans, folder)
        print(name, flush=True)
    return saved(rows, folder)


def saved(rows: list[Row], folder: Path) -> list[Row]:
    """Write the cells, the table and its pictures."""
    write_cells("grid", rows, folder)
    table = summary(rows)
    save("grid", table, folder)
    for budget in dict.fromkeys(r["budget"] for r in rows):
        picture(f"grid_{budget.replace(', ', '_')}", draw(rows, budget), folder, height=5.0)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)

"""Accuracy at equal cost and time, and time and cost to a target, against every baseline at its best.

    python -m benchmarks.federated.headline            # about two hours of one core
    python -m benchmarks.federated.headline --quick

Nothing of coopt is tuned, and everything is charged, measuring included. It runs at the learning rate that
all methods share, and with rates of its own. Every baseline runs at the one setting of its grid that was most
accurate on two other seeds of the same federation. The fixed plan that knows all speeds runs at the setting
that is best on the compared seeds themselves. Savings refer to the accuracy that the baseline ends with: the
share of its time (or cost) until it first shows that accuracy which coopt does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.federation import Instance
from benchmarks.federated.headline_summary import summarise
from benchmarks.federated.methods import CAPPED, FREE, SCHEDULE, Setting
from benchmarks.federated.report import (
    cell_row,
    command_line,
    interval,
    points,
    reached,
    saving,
    write_cells,
)
from benchmarks.federated.runner import Record, cell
from benchmarks.federated.tuning import in_hindsight, tuned
from benchmarks.tables import Row, picture, save

# No rule of coopt was made looking at these seeds.
SEEDS, TUNING = range(30, 40), range(100, 102)
OURS = {SCHEDULE: "given", FREE: "free"}
LIMITS = {"1x": 1.0, "1/4": 0.25}


@dataclass(frozen=True)
class Contender:
    """A baseline, and how its setting is chosen: with the rate or without, in hindsight or before."""

    method: str
    rates: bool = False
    hindsight: bool = False

    @property
    def name(self) -> str:
        """Its name in the tables."""
        if self.hindsight:
            return f"{self.method}, in hindsight" + (", any rate" if self.rates else "")
        return f"{self.method}, rate tuned" if self.rates and self.method == "AdaCoOpt" else self.method

    def setting(self, instance: Instance, tuning: range, seeds: range, device: str) -> Setting:
        """Its best setting."""
        if self.hindsight:
            return in_hindsight(instance, self.method, tuning, seeds, device, rates=self.rates)
        return tuned(instance, self.method, tuning, device, rates=self.rates)


# The other rules for the batches of DYNAMITE are left out: tuned, none was more than .7 points away from
# its own on four federations.
CONTENDERS = (
    Contender("AdaCoOpt"),
    Contender("AdaCoOpt", rates=True),
    Contender(CAPPED, hindsight=True),
    Contender(CAPPED, rates=True, hindsight=True),
    Contender("FedAvg", rates=True),
    Contender("FedAvgM", rates=True),
    Contender("DYNAMITE"),
    Contender("Dynamic-tau"),
)


@dataclass(frozen=True)
class Comparison:
    """Who is compared where, on which seeds."""

    instance: Instance
    contenders: Sequence[Contender] = CONTENDERS
    seeds: range = SEEDS
    tuning: range = TUNING
    limits: Sequence[str] = tuple(LIMITS)


BURST = ("reservoir", "burst", "iid")
COMPARISONS = {
    "MNIST, 10 phones": Comparison(Instance("mnist", 2, "svm", devices=10, rounds=40)),
    "activity, 46 devices": Comparison(Instance("sensors", 1, "logistic", rounds=40)),
    "CIFAR-10 stream": Comparison(Instance("cifar10", 4, "logistic", devices=10, rounds=40, stream=BURST)),
    "activity stream": Comparison(Instance("sensors", 1, "logistic", rounds=40, stream=BURST)),
    "MNIST stream by class": Comparison(
        Instance(
            "mnist",
            2,
            "logistic",
            devices=20,
            case="dirichlet",
            alpha=0.3,
            speeds=10,
            rounds=40,
            stream=("reservoir", "random", "ordered"),
        )
    ),
    # A run takes several times as long here: one seed to tune with.
    "CIFAR-10 at 32 x 32, network": Comparison(
        Instance(
            "cifar10",
            1,
            "cnn",
            devices=5,
            alpha=0.2,
            samples=1500,
            spread=0.5,
            rounds=96,
            rate=0.1,
            evaluate_every=20,
            test=1000,
        ),
        [contender for contender in CONTENDERS if contender.method != "Dynamic-tau"],
        tuning=range(100, 101),
    ),
}
QUICK = {
    "digits, 4 phones": Comparison(
        Instance("digits", 1, "logistic", devices=4, samples=60, rounds=4, speeds=10),
        (
            Contender("DYNAMITE"),
            Contender(CAPPED, hindsight=True),
            Contender(CAPPED, rates=True, hindsight=True),
        ),
        range(30, 32),
        range(100, 101),
    )
}


def limited(instance: Instance, share: float) -> Instance:
    """The same federation with a share of both limits."""
    return replace(instance, rounds=max(1, round(share * instance.rounds)))


def baselines(chosen: Comparison, instance: Instance, device: str) -> dict[str, tuple[Setting, list[Record]]]:
    """Setting and records of every baseline, by its name."""
    found = {}
    for contender in chosen.contenders:
        setting = contender.setting(instance, chosen.tuning, chosen.seeds, device)
        records = [cell(instance, contender.method, setting, seed, device) for seed in chosen.seeds]
        found[contender.name] = setting, records
    return found


def compare(
    where: str, limits: str, chosen: Comparison, device: str
) -> tuple[list[Row], list[Row], dict[str, list[Record]]]:
    """Rows of the table, rows of single runs, and the records by method."""
    instance = limited(chosen.instance, LIMITS[limits])
    others = baselines(chosen, instance, device)
    ours = {
        kind: [cell(instance, method, (), seed, device) for seed in chosen.seeds]
        for method, kind in OURS.items()
    }
    everyone = {f"coopt, {kind} rate{'s' * (kind == 'free')}": ((), runs) for kind, runs in ours.items()}
    everyone |= others
    table = [
        {"federation": where, "limits": limits, **_row(name, setting, runs, ours)}
        for name, (setting, runs) in everyone.items()
    ]
    cells = [
        {"limits": limits, **cell_row(where, name, "", setting, seed, record)}
        for name, (setting, runs) in everyone.items()
        for seed, record in zip(chosen.seeds, runs, strict=True)
    ]
    return table, cells, {name: runs for name, (_, runs) in everyone.items()}


def _row(method: str, setting: Setting, theirs: list[Record], ours: dict[str, list[Record]]) -> Row:
    row: Row = {
        "method": method,
        "setting": "-".join(f"{value:g}" for value in setting),
        "accuracy, %": points(r.accuracy for r in theirs),
        "test loss": interval(r.loss for r in theirs)[0],
    }
    for kind, mine in ours.items():
        pairs = list(zip(mine, theirs, strict=True))
        met = sum(np.isfinite(reached(a, b.accuracy, 0)) for a, b in pairs)
        against = not method.startswith("coopt")
        row |= {
            f"{kind}: points more": points(a.accuracy - b.accuracy for a, b in pairs) if against else "",
            f"{kind}: time saved, %": points((saving(a, b, 1) for a, b in pairs), 0) if against else "",
            f"{kind}: cost saved, %": points((saving(a, b, 0) for a, b in pairs), 0) if against else "",
            f"{kind}: target met": f"{met} of {len(pairs)}" if against else "",
        }
    return row | {
        "rounds": int(np.median([r.rounds for r in theirs])),
        "tau": float(np.median([r.local_steps for r in theirs])),
        "mean s": float(np.median([r.batch for r in theirs])),
    }


def draw(runs: dict[str, list[Record]]) -> Any:
    """Mean accuracy over time, ours bold."""

    def plot(axes: Any) -> None:
        grid = np.linspace(0.02, 1, 50)
        for name, records in runs.items():
            curves = np.empty((len(records), len(grid)))
            for line, record in zip(curves, records, strict=True):
                curve = np.array(record.curve)
                last = np.searchsorted(curve[:, 1], grid, side="right") - 1
                line[:] = np.where(last >= 0, curve[np.maximum(last, 0), 2], np.nan)
            axes.plot(grid, curves.mean(axis=0), label=name, linewidth=3 if name.startswith("coopt") else 1)
        axes.set(xlabel="share of the time budget", ylabel="test accuracy")
        axes.legend(fontsize=7)

    return plot


def run(quick: bool, folder: Path, device: str) -> list[Row]:
    table: list[Row] = []
    cells: list[Row] = []
    for where, chosen in (QUICK if quick else COMPARISONS).items():
        for limits in chosen.limits:
            rows, single, runs = compare(where, limits, chosen, device)
            table += rows
            cells += single
            save("headline", table, folder)  # after each: a run that is stopped leaves what it has
            write_cells("headline", cells, folder)
            if limits == "1x":
                picture("headline_" + where.replace(",", "").replace(" ", "_").lower(), draw(runs), folder)
    summarise(folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)

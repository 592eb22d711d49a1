"""Predicted against measured times of rounds: steps that take time of their own, on a data centre and here.

    COOPT_DATA=... python -m benchmarks.online.step_time            # 1 minute of one core
    python -m benchmarks.online.step_time --report                  # table and picture from the committed CSV

The data centre: 69 recorded runs of one model on four accelerators behind a shaped link, all with batches of
four. A round is tau - 1 steps and one that synchronises; medians over a run without its first twenty steps,
which warm up, and without its first synchronisation, which sets up the connections. In each way of training
and behind each link, alpha + s/pi, u and what the set-up takes are fitted to runs of 1 and 32 local steps,
and rounds of 8 and 128 are predicted; those of 128 hold the only synchronisation of their run, so the set-up
is theirs. With one batch size the two parts of a step cannot be told apart, and need not be.

Then links are predicted that none of the fitted runs was behind, in two ways. The first is latency and bits
over bandwidth, both fitted to the fastest link and the slowest but one. The second knows the bits that a
device sends in a ring, and lets a link lose a share of its bandwidth that grows as one over its root; that
share and the latency are fitted to the fastest and the slowest link. A step and the set-up are taken from
these two links as well. Last, each link is measured once, by the rounds of the other way of training, and all
rounds behind it are predicted from that.

This machine: rounds of four steps of plain SGD with three torch models and batches from 1 to 256, in turns,
and the median of the processor's time. alpha and pi are fitted to batches of 2, 16 and 128, as
`coopt.measuring` fits them; beside that are the estimates of a controller that sees six of those rounds of
each, and one number for the speed, measured at batches of 16, which is what a plan without the time of a step
goes by.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import tables
from coopt.measuring.estimates.step_seconds import fit_step_seconds
from coopt.measuring.estimates.step_timing import StepTiming

RESULTS = Path(__file__).parent / "results"
FIELDS = ("part", "group", "fitted", "setting", "measured", "predicted", "controller", "one_number")
WARM_UP = 20
FITTED_STEPS = (1, 32)
FITTED_LINKS = (5000.0, 200.0)
# What a device sends in a ring of four that averages 30,846,720 numbers of 32 bits.
RING_MEGABITS = 2 * 3 / 4 * 30_846_720 * 32 / 1e6
OTHER_WAY = {"diloco": "localsgd", "localsgd": "diloco"}
FITTED_BATCHES, BLIND = (2, 16, 128), 16
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TAU, REPEATS = 4, 300


@dataclass(frozen=True)
class Rounds:
    """What was recorded of one way of training behind one link.

    Attributes
    ----------
    seconds : dict of int to float
        Of a round, by its local steps: medians over a run, of which the median over runs.
    alone : dict of int to float
        Of a step that does not synchronise, likewise.
    set_up : dict of int to float
        By how much the first synchronisation of a run takes longer than the others.
    single : tuple of int
        Local steps of the runs that synchronise once: their round is the first one.
    """

    seconds: dict[int, float]
    alone: dict[int, float]
    set_up: dict[int, float]
    single: tuple[int, ...]

    @property
    def step(self) -> float:
        """Seconds of a step, from the runs that are fitted."""
        return statistics.median(self.alone[tau] for tau in FITTED_STEPS if tau in self.alone)

    @property
    def wait(self) -> float:
        """Seconds of a synchronisation, from the rounds that are fitted."""
        return statistics.median(self.seconds[tau] - tau * self.step for tau in FITTED_STEPS)

    @property
    def first(self) -> float:
        """Seconds that setting up the connections takes, from the runs that are fitted."""
        return statistics.median(self.set_up[tau] for tau in FITTED_STEPS)


def recorded(folder: Path) -> dict[tuple[str, float], Rounds]:
    """What was recorded, by way of training and link."""
    with gzip.open(folder / "devices" / "datacentre_steps.csv.gz", "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    runs = defaultdict(list)
    for row in rows:
        if row["bandwidth_mbps"] and row["algorithm"] != "ddp":
            key = row["algorithm"], float(row["bandwidth_mbps"]), int(row["local_steps"]), row["repeat"]
            took = float(row["wall_ms"]) / 1000.0, float(row["sync_ms"] or 0.0) / 1000.0
            runs[key].append((int(row["step"]), row["synchronised"] == "1", *took))
    seconds, steps, set_ups = (defaultdict(lambda: defaultdict(list)) for _ in range(3))
    single = defaultdict(set)
    for (algorithm, link, tau, _), whole in runs.items():
        first, *later = [each for each in whole if each[1]]
        late = [each for each in whole if each[0] >= WARM_UP] or whole[len(whole) // 4 :]
        alone = [took for _, synchronised, took, _ in late if not synchronised]
        usual = [each for each in later if each[0] >= WARM_UP] or later
        if alone:
            steps[algorithm, link][tau].append(statistics.median(alone))
        if usual:
            # The first step of a run is slow in other ways, too.
            set_ups[algorithm, link][tau].append(first[3] - statistics.median(each[3] for each in usual))
        else:
            single[algorithm, link].add(tau)
        step = statistics.median(alone) if alone else 0.0
        seconds[algorithm, link][tau].append(
            (tau - 1) * step + statistics.median(each[2] for each in usual or [first])
        )
    return {
        group: Rounds(
            *(
                {tau: statistics.median(each) for tau, each in found[group].items()}
                for found in (seconds, steps, set_ups)
            ),
            tuple(single[group]),
        )
        for group in seconds
    }


def data_centre(folder: Path) -> list[dict[str, object]]:
    known, rows = recorded(folder), []

    def predicted(
        part: str, group: str, of: Rounds, label: str, fitted: object, times: tuple[float, ...]
    ) -> None:
        """Rows of all rounds of a way of training and a link, from a step, a synchronisation and a set-up."""
        step, wait, first = times
        for tau, seconds in sorted(of.seconds.items()):
            said = tau * step + wait + (first if tau in of.single else 0.0)
            seen = tau in FITTED_STEPS if fitted is None else bool(fitted)
            rows.append(row(part, group, seen, f"{label}tau {tau}", seconds, said, one=said))

    for (algorithm, link), of in sorted(known.items()):
        predicted("steps", f"{algorithm}, {link:g} Mbit/s", of, "", None, (of.step, of.wait, of.first))
    for algorithm in OTHER_WAY:
        links = {link: of for (way, link), of in sorted(known.items()) if way == algorithm}
        fastest, slowest = links[max(links)], links[min(links)]
        # A step takes as long behind any link, and so does setting up, which the fastest shows best.
        step = statistics.median([fastest.step, slowest.step])
        fast, slow = FITTED_LINKS
        bits = (links[slow].wait - links[fast].wait) / (1.0 / slow - 1.0 / fast)
        latency = links[fast].wait - bits / fast
        waits = lossy_ring({link: of.wait for link, of in links.items()})
        for link, of in links.items():
            label = f"{link:g} Mbit/s, "
            plain = (step, latency + bits / link, fastest.first)
            predicted("links", algorithm, of, label, link in FITTED_LINKS, plain)
            ring = (step, waits[link], fastest.first)
            predicted("ring", algorithm, of, label, of in (fastest, slowest), ring)
            once = known[OTHER_WAY[algorithm], link].wait
            predicted("once", algorithm, of, label, False, (step, once, fastest.first))
    return rows


def lossy_ring(waits: dict[float, float]) -> dict[float, float]:
    """Seconds behind each link by latency and lost share fitted to the fastest and the slowest."""
    ends = np.array([max(waits), min(waits)])
    beyond = np.array([waits[link] - RING_MEGABITS / link for link in ends])
    latency, lost = np.linalg.solve(np.column_stack([np.ones(2), ends**-1.5]), beyond)
    return {link: RING_MEGABITS / link + latency + lost * link**-1.5 for link in waits}


def models() -> dict[str, tuple[object, tuple[int, ...]]]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return {
        "linear, 784 inputs": (nn.Linear(784, 10), (784,)),
        "two layers of 128, 64 inputs": (
            nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 10)),
            (64,),
        ),
        "small convolutions, 1 x 28 x 28": (
            nn.Sequential(
                *(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU()),
                *(nn.Flatten(), nn.Linear(16 * 16, 10)),
            ),
            (1, 28, 28),
        ),
    }


def this_machine() -> list[dict[str, object]]:
    import torch

    from coopt.adapters.torch import FlatModel

    torch.set_num_threads(1)
    rows = []
    for name, (module, shape) in models().items():
        model = FlatModel(module, torch.nn.functional.cross_entropy)
        inputs = torch.randn(max(BATCHES), *shape)
        targets = torch.randint(10, (max(BATCHES),))
        took = defaultdict(list)
        for _ in range(REPEATS):
            # In turns: what slows the machine down slows all batches down.
            for batch in BATCHES:
                began = time.process_time()
                for _ in range(TAU):
                    model.evaluate(inputs[:batch], targets[:batch])
                    model.parameters.sub_(model.gradient, alpha=1e-6)
                took[batch].append(time.process_time() - began)
        seconds = {batch: statistics.median(each[3:]) for batch, each in took.items()}
        used = np.array(FITTED_BATCHES)
        fit = fit_step_seconds(
            np.full(used.size, float(TAU)), TAU * used, np.array([seconds[batch] for batch in FITTED_BATCHES])
        )
        timing = StepTiming.empty([0.0])
        for turn in range(3, 9):
            for batch in FITTED_BATCHES:
                timing = timing.add([took[batch][turn]], [TAU], [TAU * batch])
        alpha, per_sample = (float(each[0]) for each in timing.seconds())
        group = f"{name} (a step is worth {fit.step_time * fit.throughput:.0f} samples)"
        rows += [
            row(
                "batches",
                group,
                batch in FITTED_BATCHES,
                f"s {batch}",
                seconds[batch],
                TAU * (fit.step_time + batch / fit.throughput),
                controller=TAU * (alpha + batch * per_sample),
                one=seconds[BLIND] * batch / BLIND,
            )
            for batch in BATCHES
        ]
    return rows


def row(
    part: str,
    group: str,
    fitted: bool,
    setting: str,
    measured: float,
    predicted: float,
    *,
    one: float,
    controller: float | None = None,
) -> dict[str, object]:
    numbers = measured, predicted, predicted if controller is None else controller, one
    return dict(
        zip(FIELDS, (part, group, int(fitted), setting, *(f"{each:.6g}" for each in numbers)), strict=True)
    )


def errors(rows: list[dict[str, str]], column: str) -> list[float]:
    return [abs(float(each[column]) / float(each["measured"]) - 1.0) for each in rows]


def table(rows: list[dict[str, str]]) -> str:
    said = {
        "steps": "data centre, step counts that were not fitted",
        "links": "data centre, links that were not fitted: latency and bits over bandwidth",
        "ring": "data centre, links that were not fitted: bits of a ring, and a lost share",
        "once": "data centre, each link measured once, by the other way of training",
        "batches": "this machine, batches that were not fitted",
    }
    lines = [
        "# Predicted against measured times of rounds",
        "",
        "Relative errors of rounds that no fit has seen: median, and the largest.",
        "",
        "| | rounds | with the time of a step | a controller's estimate | one number for the speed |",
        "|---|---|---|---|---|",
    ]
    for part, words in said.items():
        groups = sorted({each["group"] for each in rows if each["part"] == part})
        for name, chosen in ((words, groups), *((group, [group]) for group in groups if part != "steps")):
            kept = [r for r in rows if r["part"] == part and r["fitted"] == "0" and r["group"] in chosen]
            cells = []
            for column in ("predicted", "controller", "one_number"):
                found = errors(kept, column)
                cells.append(f"{statistics.median(found):.1%}, {max(found):.1%}")
            if part != "batches":
                cells[1] = cells[2] = "the same: one batch size" if part == "steps" else "-"
            label = f"**{name}**" if name == words else f"&nbsp; {name}"
            lines.append(f"| {label} | {len(kept)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(rows: list[dict[str, str]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, part, column, label, marker in (
        (axes[0], "steps", "predicted", "other step counts", "o"),
        (axes[0], "links", "predicted", "other links, latency and bits over bandwidth", "^"),
        (axes[0], "ring", "predicted", "other links, with a lost share", "v"),
        (axes[0], "once", "predicted", "links that were measured once", "."),
        (axes[1], "batches", "predicted", "with the time of a step", "o"),
        (axes[1], "batches", "one_number", "one number, measured at 16", "x"),
    ):
        kept = [each for each in rows if each["part"] == part and each["fitted"] == "0"]
        measured = np.array([float(each["measured"]) for each in kept])
        predicted = np.array([float(each[column]) for each in kept])
        axis.plot(measured, predicted / measured, marker, label=label, alpha=0.7)
    for axis, title in zip(axes, ("data centre", "this machine"), strict=True):
        axis.axhline(1.0, color="grey", linewidth=1)
        axis.set(xscale="log", xlabel="measured [s]", title=title)
        axis.legend(loc="lower left")
    axes[1].set(yscale="log", ylim=(0.02, 10.0))
    axes[0].set_ylabel("predicted / measured time of a round")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="table and picture from the committed CSV")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    path = options.output / "step_time.csv"
    if not options.report:
        if "COOPT_DATA" not in os.environ:
            sys.exit(
                "COOPT_DATA is not set: it must name the folder that holds devices/datacentre_steps.csv.gz"
            )
        rows = data_centre(Path(os.environ["COOPT_DATA"])) + this_machine()
        tables.write(path, rows)
    read = tables.read(path)
    text = table(read)
    (options.output / "step_time.md").write_text(text, encoding="utf-8")
    picture(read, options.output / "step_time.png")
    print(text)


if __name__ == "__main__":
    main()

"""How many client-rounds a second the torch trainer does, beside a plain loop and pfl-research.

    OMP_NUM_THREADS=1 python -m benchmarks.federated.trainer_speed     # about two minutes

The work: logistic regression from 64 features to 10 classes, five local steps of batch 8, one thread. The
contenders take turns in one run, so that whatever else the machine does meets all of them alike; the table
has medians of five turns, in processor time. pfl-research runs in an environment of its own, made by
`make example-pfl` (or named by --pfl); its rows are left out where there is none.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks import tables
from coopt import Fleet
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.torch import (
    FederatedTrainer,
    FlatModel,
    ProbeOptions,
    RoundWork,
    SharedData,
    StackedEngine,
)
from coopt.adapters.torch.data import client_rows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
FEATURES, CLASSES, HELD, STEPS, BATCH, RATE = 64, 10, 60, 5, 8, 0.1
TURNS = 5


def data(clients: int, features: int = FEATURES) -> SharedData:
    generator = torch.Generator().manual_seed(0)
    return SharedData(
        torch.randn(clients * HELD, features, generator=generator),
        torch.randint(CLASSES, (clients * HELD,), generator=generator),
        [np.arange(HELD) + HELD * i for i in range(clients)],
    )


def plain_loop(clients: int, rounds: int) -> float:
    """What one writes without a library: a module, torch's SGD, an average of state dictionaries."""
    shared = data(clients)
    parts = [(shared.inputs[rows], shared.targets[rows]) for rows in shared.rows]
    model = torch.nn.Linear(FEATURES, CLASSES)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    times = [time.process_time()]
    for _ in range(rounds):
        total = {name: torch.zeros_like(value) for name, value in state.items()}
        for x, y in parts:
            model.load_state_dict(state)
            optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
            for _ in range(STEPS):
                batch = torch.randint(len(x), (BATCH,))
                optimizer.zero_grad()
                functional.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
            for name, value in model.state_dict().items():
                total[name] += value / clients
        state = total
        times.append(time.process_time())
    return float(np.median(np.diff(times)))


def trainer(
    mode: str,
    probe: ProbeOptions | None,
    *,
    model: torch.nn.Module | None = None,
    features: int = FEATURES,
    batch: int = BATCH,
) -> Callable[[int, int], float]:
    def seconds(clients: int, rounds: int) -> float:
        times: list[float] = []
        FederatedTrainer(
            torch.nn.Linear(FEATURES, CLASSES) if model is None else model,
            functional.cross_entropy,
            data(clients, features),
            mode=mode,
            probe=probe,
            progress=False,
            callbacks=[lambda _: times.append(time.process_time())],
        ).run(FixedPlan(Fleet(np.full(clients, HELD), 1.0, 1.0), rounds + 1, STEPS, batch, RATE))
        return float(np.median(np.diff(times)))

    return seconds


def every_client_its_own(clients: int, rounds: int) -> float:
    """Local steps from 3 to 7 and batches from 4 to 12, drawn anew in every round: 5 and 8 on average."""
    shared, rng = data(clients), np.random.default_rng(0)
    model = FlatModel(torch.nn.Linear(FEATURES, CLASSES), functional.cross_entropy)
    engine = StackedEngine(
        model, shared.inputs, shared.targets, seed=0, probe=ProbeOptions(), replacement=True
    )
    state, rows, times = model.state.clone(), client_rows(shared.rows, len(shared.inputs)), []
    for round_ in range(rounds + 1):
        work = RoundWork(
            round=round_,
            clients=np.arange(clients),
            local_steps=rng.integers(3, 8, clients),
            batch_sizes=rng.integers(4, 13, clients),
            shares=np.full(clients, 1 / clients),
            rows=rows,
            learning_rate=RATE,
            extra_evaluation=False,
            seconds=None,
        )
        state = engine.run(state, work).state
        times.append(time.process_time())
    return float(np.median(np.diff(times)))


class PflResearch:
    """pfl-research in a process of its own, asked a turn at a time."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [python, Path(__file__).parent / "pfl_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, clients: int, rounds: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{clients} {rounds}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise RuntimeError("pfl_worker.py has ended: run it by hand to see why")


MEASURED = ProbeOptions()
ROWS: list[tuple[str, Callable[[int, int], float], int]] = [
    # name, contender, client-rounds a turn
    ("plain torch loop", plain_loop, 300),
    ("coopt, loop", trainer("loop", None), 300),
    ("coopt, loop, measuring", trainer("loop", MEASURED), 300),
    ("coopt, vectorised", trainer("vectorised", None), 5000),
    ("coopt, vectorised, measuring", trainer("vectorised", MEASURED), 5000),
    ("coopt, vectorised, measuring, every client its own steps and batch", every_client_its_own, 5000),
]


def measure(rows: list[tuple[str, Callable[[int, int], float], int]]) -> list[dict[str, object]]:
    speeds: dict[tuple[str, int], list[float]] = {}
    for _ in range(TURNS):
        for clients in (100, 1000):
            for name, contender, work in rows:
                seconds = contender(clients, max(1, round(work / clients)))
                speeds.setdefault((name, clients), []).append(clients / seconds)
    return [
        {
            "contender": name,
            "clients": clients,
            "median": round(float(np.median(values))),
            "least": round(min(values)),
            "most": round(max(values)),
        }
        for (name, clients), values in speeds.items()
    ]


def widths() -> list[dict[str, object]]:
    """Ten clients, batches of 32, a network with one hidden layer: where training together stops paying."""
    table = []
    for hidden in (8, 32, 64, 128, 512):
        net = torch.nn.Sequential(torch.nn.Linear(784, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))
        ratios, size = [], sum(parameter.numel() for parameter in net.parameters())
        for _ in range(TURNS):
            times = [
                trainer(mode, None, model=net, features=784, batch=32)(10, 4)
                for mode in ("loop", "vectorised")
            ]
            ratios.append(times[0] / times[1])
        table.append({"parameters": size, "speedup": round(float(np.median(ratios)), 2)})
    return table


def report(speeds: list[dict[str, object]], sizes: list[dict[str, object]], missing: str | None) -> str:
    cell = {(row["contender"], row["clients"]): row for row in speeds}
    lines = [
        "# Speed of the torch trainer",
        "",
        "Client-rounds per second of processor time (least to most of five turns), one thread, logistic",
        'regression 64 -> 10, five local steps of batch 8. "Measuring" includes the reports from which',
        "a controller estimates noise, divergence and loss.",
        "`OMP_NUM_THREADS=1 python -m benchmarks.federated.trainer_speed` makes this table.",
        "",
        "| | 100 clients | 1,000 clients |",
        "|---|---:|---:|",
    ]
    for name in dict.fromkeys(row["contender"] for row in speeds):
        found = [cell[name, clients] for clients in (100, 1000)]
        shown = [f"{row['median']:,} ({row['least']:,} to {row['most']:,})" for row in found]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    if missing is not None:
        lines += ["", missing]
    lines += [
        "",
        "## Where training together pays",
        "",
        "Vectorised over loop, ten clients with batches of 32, 784 -> hidden -> 10. Up to 50,000 parameters",
        '`mode="auto"` trains together on a processor.',
        "",
        "| parameters | times as fast |",
        "|---:|---:|",
        *(f"| {row['parameters']:,} | {row['speedup']} |" for row in sizes),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pfl", type=Path, default=ROOT / ".venv-pfl" / "bin" / "python")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, missing = list(ROWS), None
    if arguments.pfl.exists():
        rows.insert(1, ("pfl-research 0.6", PflResearch(arguments.pfl), 300))
    else:
        missing = f"pfl-research is left out: there is no {arguments.pfl.name} at {arguments.pfl.parent}."
    speeds, sizes = measure(rows), widths()
    tables.write(RESULTS / "trainer_speed.csv", speeds)
    tables.write(RESULTS / "trainer_widths.csv", sizes)
    text = report(speeds, sizes, missing)
    (RESULTS / "trainer_speed.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

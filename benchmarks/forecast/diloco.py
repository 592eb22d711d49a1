"""DiLoCo's local steps and batch, chosen by a forecast, against a grid that was really trained.

    python -m benchmarks.forecast.diloco            # ten minutes of one core; what is in the cells stays
    python -m benchmarks.forecast.diloco 50 200     # these links alone
    python -m benchmarks.forecast.diloco --quick

Four workers with shards of MNIST (14 x 14 pixels) train a network of one hidden layer, AdamW inside and
Nesterov's step outside, until a deadline on a clock that was measured: a local step and a synchronisation of
a model of 30.8 M parameters on four GPUs, behind links of 50 to 5,000 Mbit/s. It is in the shared data as
devices/datacentre_steps.csv.gz (Apache-2.0, github.com/Adnan082/diloco-measured). Steps were measured at one
batch; here half of the time of one is taken to be there whatever the batch, and the other half to grow with
it.

Shards are alike, so after one small round one worker measures alone, without a word to the others: for
Adam, with its second moments frozen there. Then it forecasts every plan of the grid, and solves for one of
its own. What that takes is charged to the plan that is chosen; plans of the grid are trained from the start
with all of the time.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables
from benchmarks.federated.data import load
from benchmarks.federated.report import write_cells
from benchmarks.forecast.report import command_line, spread
from benchmarks.tables import Row, save
from coopt import (
    Budget,
    ClientAdam,
    Constants,
    Fleet,
    Forecast,
    LocalModel,
    Optimiser,
    Problem,
    ServerSGD,
    solve_allocation,
)
from coopt.adapters.fixed_plan import FixedPlan

WORKERS, SHARD, HIDDEN, SEEDS = 4, 1500, 32, (0, 1, 2)
OPTIMISER = Optimiser(ClientAdam(weight_decay=0.01), ServerSGD(0.7, 0.9, nesterov=True))
RATE, TEST_BATCH = 1e-3, 4
LINKS = (50, 200, 1000, 5000)
STEPS, BATCHES = (2, 8, 32, 128), (2, 8, 32)
# Seconds that training has, or so many synchronisations where these take longer; first steps of a run.
SECONDS, QUICK_SECONDS, FEWEST, WARMING_UP = 120.0, 60.0, 6, 20
PILOT, ROWS, DIRECTIONS = (1, 16, 8), 128, 12  # rounds, steps and batch; of one worker


def trace(link: int) -> tuple[float, float]:
    """Seconds of a local step and of a synchronisation: medians after the first 20 steps."""
    path = Path(os.environ["COOPT_DATA"]) / "devices" / "datacentre_steps.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["algorithm"] == "diloco"]
    late = [row for row in rows if row["bandwidth_mbps"] and int(row["step"]) >= WARMING_UP]
    own = [row for row in late if float(row["bandwidth_mbps"]) == link]
    met = [float(row["sync_ms"]) for row in own if row["synchronised"] == "1"]
    return float(np.median([float(row["compute_ms"]) for row in own])) / 1e3, float(np.median(met)) / 1e3


def shards(seed: int) -> tuple[Any, Any]:
    """Inputs and classes of all workers, alike but for chance."""
    import torch

    data = load("mnist", 2)
    picked = np.random.default_rng(seed).permutation(len(data.y))[: WORKERS * SHARD]
    x = data.x[picked].reshape(len(picked), -1).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(data.y[picked])


def network(features: int, seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(features, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 10)
    )


class Job:
    """The workers behind one link."""

    def __init__(self, link: int, seed: int, quick: bool) -> None:
        import torch

        self.seed = seed
        self.x, self.y = shards(seed)
        self.loss = torch.nn.functional.cross_entropy
        step, self.exchange = trace(link)
        self.alpha, self.throughput = step / 2.0, TEST_BATCH / (step / 2.0)
        self.seconds = max(QUICK_SECONDS if quick else SECONDS, FEWEST * self.exchange)

    def rounds(self, local_steps: int, batch: float, seconds: float) -> int:
        """How many fit."""
        one = local_steps * (self.alpha + batch / self.throughput) + self.exchange
        return int(seconds / one * (1.0 + 1e-12))

    def train(self, start: Any, rounds: int, local_steps: int, batch: int, stream: int) -> Any:
        """A model after training by a plan."""
        from coopt.adapters.torch import FederatedTrainer

        clients = [
            (self.x[i * SHARD : (i + 1) * SHARD], self.y[i * SHARD : (i + 1) * SHARD]) for i in range(WORKERS)
        ]
        trainer = FederatedTrainer(
            start,
            self.loss,
            clients,
            optimiser=OPTIMISER,
            seed=1000 * self.seed + stream,
            probe=None,
            mode="vectorised",
            progress=False,
        )
        fleet = Fleet([SHARD] * WORKERS, gradient_noise=1.0, divergence=0.0)
        trainer.run(FixedPlan(fleet, rounds, local_steps, batch, RATE))
        return trainer.model

    def value(self, model: Any) -> float:
        """The loss on all data."""
        import torch

        with torch.no_grad():
            return float(self.loss(model(self.x), self.y))


def measured(job: Job, model: Any) -> tuple[Forecast, float]:
    """What one worker forecasts for four that are like it, and the seconds that it measured for."""
    from coopt.adapters.torch import measure

    own = [(job.x[:SHARD], job.y[:SHARD])]
    found = measure(
        model,
        job.loss,
        own,
        rows=ROWS,
        directions=DIRECTIONS,
        optimiser=OPTIMISER.client,
        seed=job.seed,
        progress=False,
    )
    one = found.model
    four = LocalModel(
        [1.0 / WORKERS] * WORKERS,
        *(np.repeat(part, WORKERS, axis=0) for part in (one.gradients, one.curvatures, one.covariances)),
        samples=[SHARD] * WORKERS,
        sample_curvature=one.sample_curvature,
        point=one.point,
        sample_curvatures=np.repeat(one.single, WORKERS),
    )
    return Forecast(four, RATE, optimiser=OPTIMISER), found.samples_used / job.throughput


def kept_cells(folder: Path) -> list[Row]:
    """What was run already."""
    path = folder / "diloco_cells.csv"
    if not path.exists():
        return []
    return [{key: _number(value) for key, value in row.items()} for row in tables.read(path)]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def cell(link: int, seed: int, quick: bool) -> Row:
    """One link, with one draw of shards, networks and batches."""
    from scipy.stats import spearmanr

    grid = [(tau, s) for tau in STEPS for s in BATCHES]
    job = Job(link, seed, quick)
    start = network(job.x.shape[1], seed)
    rounds = {plan: k for plan in grid if (k := job.rounds(*plan, job.seconds)) >= 1}
    truth = {plan: job.value(job.train(start, k, *plan, stream=1)) for plan, k in rounds.items()}
    warm = job.train(start, *PILOT, stream=2)
    forecast, spent = measured(job, warm)
    pilot = PILOT[1] * (job.alpha + PILOT[2] / job.throughput) + job.exchange
    left = job.seconds - PILOT[0] * pilot - spent
    fleet = Fleet(
        [SHARD] * WORKERS,
        1.0,
        0.0,
        throughput=job.throughput,
        step_time=job.alpha,
        round_time=job.exchange,
        max_batch=64,
    )
    problem = Problem(fleet, Constants(RATE, 1.0, 1.0), Budget(time=left, max_local_steps=256))
    after = {plan: k for plan in grid if (k := job.rounds(*plan, left)) >= 1}
    guess = {plan: forecast.value(problem, k, *plan) for plan, k in after.items()}
    plan = solve_allocation(problem, bound=forecast)
    chosen = job.value(job.train(warm, plan.rounds, plan.local_steps, int(plan.batch_sizes[0]), stream=3))
    best = min(truth, key=lambda each: truth[each])
    picked = min(guess, key=lambda each: guess[each])
    finite = [each for each in guess if math.isfinite(truth.get(each, math.inf))]
    rank = spearmanr([truth[each] for each in finite], [guess[each] for each in finite]).statistic
    return {
        "link, Mbit/s": float(link),
        "seed": float(seed),
        "seconds": job.seconds,
        "charge, %": 100.0 * (1.0 - left / job.seconds),
        "best of the grid": f"H {best[0]}, batch {best[1]}",
        "its loss": truth[best],
        "chosen": f"H {plan.local_steps}, batch {int(plan.batch_sizes[0])}",
        "loss": chosen,
        "forecast's pick of the grid": f"H {picked[0]}, batch {picked[1]}",
        "loss of that": truth[picked],
        "H 32, batch 8": truth.get((32, 8), math.nan),
        "worst of the grid": max(truth.values()),
        "rank": float(rank),
    }


def summary(cells: list[Row]) -> list[Row]:
    """One row a link: geometric means over seeds of losses over the best one of the grid, and ranges."""
    table = []
    for link in sorted({row["link, Mbit/s"] for row in cells}):
        own = [row for row in cells if row["link, Mbit/s"] == link]
        ratios = [row["loss"] / row["its loss"] for row in own]
        ranks = [row["rank"] for row in own]
        table.append(
            {
                "link, Mbit/s": link,
                "seeds": len(own),
                "charge, %": float(np.mean([row["charge, %"] for row in own])),
                "best of the grid": "; ".join(dict.fromkeys(row["best of the grid"] for row in own)),
                "chosen": "; ".join(dict.fromkeys(row["chosen"] for row in own)),
                "loss over the best": spread(ratios),
                "smallest": min(ratios),
                "largest": max(ratios),
                "forecast's pick of the grid": spread(row["loss of that"] / row["its loss"] for row in own),
                "H 32, batch 8": spread(row["H 32, batch 8"] / row["its loss"] for row in own),
                "worst of the grid": spread(row["worst of the grid"] / row["its loss"] for row in own),
                "rank": float(np.mean(ranks)),
                "smallest rank": min(ranks),
            }
        )
    return table


def run(quick: bool, folder: Path, only: list[str] | None = None) -> list[Row]:
    links, seeds = ((1000,), (0,)) if quick else (tuple(map(int, only or LINKS)), SEEDS)
    cells = [] if quick else kept_cells(folder)
    for seed in seeds:
        for link in links:
            if all((row["link, Mbit/s"], row["seed"]) != (link, seed) for row in cells):
                cells.append(cell(link, seed, quick))
                write_cells("diloco", cells, folder)
                print(cells[-1], flush=True)
    table = summary(cells)
    save("diloco", table, folder)
    return table


if __name__ == "__main__":
    command_line(run, __doc__)

"""A plan on the clock of this machine: is its time as predicted, and is it the best that the time allows?

    python benchmarks/online/wall_clock.py               # half an hour of one idle core
    python benchmarks/online/wall_clock.py --seconds 8   # eight minutes

Nothing is simulated. Four devices hold handwritten digits, each other shares of the classes, and train a
small network in turns on one core; the time of a round is that of the slowest, as if they ran side by side.

1. Rounds of 1 and of 8 steps with batches from 1 to 128 are timed. The time of a round, of a step and of a
   sample are fitted to the medians: a round takes some time whatever its steps, which a fit to one tau would
   take for that of steps, and a plan would then have too few of them.
2. After them the federation is measured at the model that they left.
3. `solve_allocation` plans for the time limit by that forecast, and the plan is trained.
4. Fixed settings, tau of 1, 4 and 16 with batches of 1, 8, 32 and 128 on every device, are each trained until
   the same time is over: what trying them all finds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from coopt import Budget, Constants, Fleet, Problem, solve_allocation
from coopt.adapters.fixed_plan import FixedPlan

RESULTS = Path(__file__).parent / "results"
DEVICES, RATE, SEED = 4, 0.1, 20
TIMED, TIMED_ROUNDS, TIMED_STEPS = (1, 4, 16, 64, 128), 30, (1, 8)
TAUS, BATCHES = (1, 4, 16), (1, 8, 32, 128)
LARGEST = 128


def federation():
    """Data of every device with a skewed share of the classes, and test data."""
    import torch
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(y))
    x, y = torch.tensor(x[order] / 16.0 - 0.5, dtype=torch.float32), torch.tensor(y[order])
    train, test = slice(0, 1400), slice(1400, None)
    shares = rng.dirichlet(np.full(DEVICES, 0.5), size=10)
    owner = np.array([rng.choice(DEVICES, p=shares[label]) for label in y[train].tolist()])
    clients = [(x[train][owner == i], y[train][owner == i]) for i in range(DEVICES)]
    return clients, (x[test], y[test])


def network():
    import torch

    torch.manual_seed(SEED)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))


def trainer(module, clients, **options):
    import torch

    from coopt.adapters.torch import FederatedTrainer

    options |= {"mode": "loop", "seed": SEED, "probe": None, "progress": False, "metric": None}
    return FederatedTrainer(module, torch.nn.functional.cross_entropy, clients, **options)


def train_loss(module, clients) -> float:
    import torch

    with torch.no_grad():
        losses = [float(torch.nn.functional.cross_entropy(module(x), y)) for x, y in clients]
    return float(np.average(losses, weights=[len(y) for _, y in clients]))


def timed(module, clients, fleet):
    """Seconds of a round, of a step and of a sample, and the model that the timed rounds leave."""
    parts, seconds = [], []
    for batch in TIMED:
        for steps in TIMED_STEPS:
            run = trainer(module, clients)
            run.run(FixedPlan(fleet, TIMED_ROUNDS, steps, batch, RATE / 10.0))
            module = run.model
            took = np.diff([0.0, *(record.seconds for record in run.history)])
            parts.append([1.0, steps, steps * batch])
            seconds.append(float(np.median(took)))
    # Relative deviations: a slow round is slower in all its parts.
    columns, seconds = np.array(parts), np.array(seconds)
    found, _ = nnls(columns / seconds[:, None], np.ones(len(seconds)))
    return found.tolist(), module


def run_for(module, clients, fleet, tau, batch, limit):
    """Train one setting until the time is over; the loss of the last model within it."""
    plan = FixedPlan(fleet, 10**7, tau, batch, RATE)
    kept = {}

    def end(history):
        if history.records[-1].seconds > limit:
            return True
        kept["model"] = run.model.state_dict()
        kept["model"] = {name: value.clone() for name, value in kept["model"].items()}
        return False

    run = trainer(module, clients, callbacks=[end])
    run.run(plan)
    last = network()
    last.load_state_dict(kept["model"])
    return train_loss(last, clients), len(run.history) - 1


def measured(limit: float) -> dict[str, object]:
    import torch

    from coopt.adapters.torch import measure

    torch.set_num_threads(1)
    clients, _ = federation()
    sizes = np.array([len(y) for _, y in clients])
    fleet = Fleet(sizes, 1.0, 1.0, max_batch=np.minimum(sizes, LARGEST))
    (of_round, of_step, of_sample), start = timed(network(), clients, fleet)
    found = measure(start, torch.nn.functional.cross_entropy, clients, seed=SEED, progress=False)
    known = found.fleet(
        round_time=of_round,
        step_time=of_step,
        throughput=1.0 / max(of_sample, 1e-12),
        max_batch=np.minimum(sizes, LARGEST),
    )
    problem = Problem(known, Constants(RATE, 1.0, 1.0), Budget(time=limit))
    plan = solve_allocation(problem, bound=found.forecast(RATE), gap_tolerance=1e-3)
    run = trainer(start, clients)
    history = run.run(FixedPlan.from_allocation(plan))
    result = {
        "limit": limit,
        "round_time": of_round,
        "step_time": of_step,
        "sample_time": of_sample,
        "plan": [plan.rounds, plan.local_steps, plan.batch_sizes.tolist()],
        "predicted_seconds": plan.time,
        "measured_seconds": history.records[-1].seconds,
        "loss": train_loss(run.model, clients),
        "start_loss": train_loss(start, clients),
        "settings": [],
    }
    for tau in TAUS:
        for batch in BATCHES:
            loss, rounds = run_for(start, clients, fleet, tau, np.minimum(sizes, batch), limit)
            result["settings"].append([tau, batch, rounds, loss])
            print(f"tau {tau:2}, batch {batch:3}: {rounds} rounds, loss {loss:.4f}", flush=True)
    return result


def table(result: dict) -> str:
    rounds, tau, batches = result["plan"]
    best = min(result["settings"], key=lambda row: row[3])
    off = result["predicted_seconds"] / result["measured_seconds"] - 1.0
    times = ", ".join(
        f"a {name} {result[f'{name}_time'] * 1e3:.3f} ms" for name in ("round", "step", "sample")
    )
    seconds = (
        f"{result['predicted_seconds']:.2f} predicted, {result['measured_seconds']:.2f} measured ({off:+.1%})"
    )
    sizes = ", ".join(map(str, batches))
    lines = [
        "# A plan on the clock of this machine",
        "",
        f"Four devices, {result['limit']:g} s for the slowest of them. Fitted times: {times}.",
        "",
        "| | rounds | tau | batches | seconds | training loss |",
        "|---|---|---|---|---|---|",
        f"| **plan** | {rounds} | {tau} | {sizes} | {seconds} | **{result['loss']:.4f}** |",
    ]
    for tau, batch, rounds, loss in sorted(result["settings"], key=lambda row: row[3]):
        lines.append(f"| fixed | {rounds} | {tau} | {batch} | to the limit | {loss:.4f} |")
    verdict = (
        f"The loss of the plan is {result['loss'] / best[3]:.3f} times that of the best fixed setting "
        f"(tau {best[0]}, batches of {best[1]}), which took twelve trials to find. All start from the model "
        f"that the timed rounds left, at a loss of {result['start_loss']:.3f}."
    )
    return "\n".join([*lines, "", verdict]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="time limit of a run [s]")
    parser.add_argument("--report", action="store_true", help="table from the committed result")
    options = parser.parse_args()
    path = RESULTS / "wall_clock.json"
    if not options.report:
        path.write_text(json.dumps(measured(options.seconds), indent=1) + "\n", encoding="utf-8")
    text = table(json.loads(path.read_text(encoding="utf-8")))
    (RESULTS / "wall_clock.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

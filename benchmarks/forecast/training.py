"""Train plans to their ends, every seed, and keep the loss along the way: nothing is trained twice.

    python -m benchmarks.forecast.training [NAME ...]    # fills the cache, one federation after the other

Exact federated averaging with local SGD, mini-batches drawn with replacement, on one thread. A plan on the
grid gives every device the same batch; it is trained to the largest budget and read at smaller ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.federated.data import Floats, Ints, cache_folder
from benchmarks.forecast.federations import (
    BATCHES,
    CASES,
    LINEAR,
    LOCAL_STEPS,
    RIDGE,
    Case,
    Federation,
    build,
)
from benchmarks.forecast.kernels import GRADIENTS, rounds_of
from benchmarks.forecast.losses import network, training_loss, vector, widths

VERSION = 1  # to be raised whenever something changes that changes results
# Runs of every plan, of linear models and of networks.
SEEDS, NETWORK_SEEDS = 5, 3
POINTS = 40
NEAR_THE_END = (0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
DRAWN_AT_ONCE = 1 << 20


def seeds_of(case: Case) -> int:
    """With how many seeds every plan of a federation is trained."""
    return SEEDS if case.model in LINEAR else NETWORK_SEEDS


@dataclass(frozen=True, eq=False)
class Run:
    """What became of one plan.

    Attributes
    ----------
    rounds : numpy.ndarray of int64, shape (points,)
        Rounds after which the loss was taken; the first is 0.
    losses : numpy.ndarray, shape (seeds, points)
        F on all data of the federation.
    models : numpy.ndarray of float32, shape (seeds, parameters)
        At the end.
    """

    rounds: Ints
    losses: Floats
    models: Floats

    def after(self, rounds: float) -> Floats:
        """F after so many rounds, by every seed; linear between the rounds where it was taken."""
        return np.array([np.interp(rounds, self.rounds, line) for line in self.losses])


def train(
    federation: Federation,
    local_steps: int,
    batches: Ints,
    checkpoints: Ints,
    seeds: int,
    start: Floats | None = None,
    *,
    learning_rate: float | None = None,
    stream: int = 0,
) -> Run:
    """Train with the same plan from the same start with several seeds.

    Parameters
    ----------
    federation : Federation
    local_steps : int
    batches : numpy.ndarray of int64, shape (N,)
        s_i.
    checkpoints : numpy.ndarray of int64
        Rounds after which the loss is taken; the last is where training ends.
    seeds : int
        How many.
    start : numpy.ndarray of float32, shape (parameters,) or (seeds, parameters), optional
        Where training starts; by default where the federation's model does.
    learning_rate : float, optional
        By default the federation's.
    stream : int
        Further source of the draws.
    """
    first = vector(network(federation)) if start is None else start
    models = np.array(np.broadcast_to(first, (seeds, first.shape[-1])), dtype=np.float32)
    run = rounds_of(GRADIENTS[federation.case.model])
    rate = federation.learning_rate if learning_rate is None else learning_rate
    cut = np.array(widths(federation), dtype=np.int64)
    shares, top = federation.weights.astype(np.float32), int(batches.max())
    at_once = max(1, DRAWN_AT_ONCE // (len(batches) * local_steps * top))
    sizes, starts = federation.samples[:, None, None], federation.starts[:, None, None]
    points = np.unique(np.concatenate([[0], checkpoints]))
    losses = np.empty((seeds, len(points)))
    for seed in range(seeds):
        rng = np.random.default_rng([seed, local_steps, top, stream])
        w = models[seed]
        for j, (now, end) in enumerate(zip(np.concatenate([[0], points[:-1]]), points, strict=True)):
            while now < end:
                many = int(min(at_once, end - now))
                drawn = rng.random((many, len(batches), local_steps, top))
                picks = (drawn * sizes).astype(np.int64) + starts
                run(w, federation.x, federation.y, picks, batches, shares, rate, RIDGE, cut)
                now += many
            losses[seed, j] = training_loss(federation, w) if np.isfinite(w).all() else np.inf
    return Run(points, losses, models)


def checkpoints(federation: Federation, local_steps: int, batch: float) -> Ints:
    """Rounds of a plan at which its loss is kept: dense near the end of every budget."""
    last = federation.rounds(federation.cost(max(federation.case.levels)), local_steps, batch)
    near = [
        federation.rounds(share * federation.cost(level), local_steps, batch)
        for level in federation.case.levels
        for share in NEAR_THE_END
    ]
    spaced = np.geomspace(1, max(last, 1), POINTS).round().astype(np.int64)
    every = np.unique(np.concatenate([spaced, near]))
    return every[(every >= 1) & (every <= last)]


def _path(case: Case, plan: object, seeds: int) -> Path:
    key = json.dumps([VERSION, asdict(case), plan, seeds], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    return cache_folder() / "forecast" / case.data / f"{case.model}-{name}.npz"


def _keep(path: Path, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part.npz")
    np.savez(part, rounds=run.rounds, losses=run.losses, models=run.models)
    part.replace(path)


def _load(path: Path) -> Run:
    with np.load(path) as stored:
        return Run(stored["rounds"], stored["losses"], stored["models"])


def kept_run(case: Case, plan: object, seeds: int, make: Callable[[], Run]) -> Run:
    """A run from the cache, made where it is not there."""
    path = _path(case, plan, seeds)
    if not path.exists():
        _keep(path, make())
    return _load(path)


def grid_run(case: Case, local_steps: int, batch: int, seeds: int) -> Run | None:
    """A plan of the grid, trained to the largest budget; None where that has no round."""

    def make() -> Run:
        batches = np.full(len(federation), batch, dtype=np.int64)
        return train(federation, local_steps, batches, points, seeds)

    federation = build(case)
    points = checkpoints(federation, local_steps, batch)
    return kept_run(case, ["grid", local_steps, batch], seeds, make) if len(points) else None


def fill(case: Case, steps: tuple[int, ...] = LOCAL_STEPS, batches: tuple[int, ...] = BATCHES) -> None:
    for tau in steps:
        for batch in batches:
            begun = time.process_time()
            run = grid_run(case, tau, batch, seeds_of(case))
            if run is not None:
                now = time.process_time() - begun
                end = run.losses[:, -1].mean()
                print(f"  tau {tau:3d}  s {batch:3d}  rounds {run.rounds[-1]:6d}  F {end:.5f}  {now:.1f} s")


if __name__ == "__main__":
    for name in sys.argv[1:] or list(CASES):
        print(name, time.strftime("%H:%M:%S"), flush=True)
        fill(CASES[name])

"""A federation with all its trained plans: gaps at any budget, and what was measured along the way."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated.data import Floats, cache_folder
from benchmarks.forecast.federations import (
    BATCHES,
    LINEAR,
    LOCAL_STEPS,
    RIDGE,
    ROUND_COST,
    Case,
    Federation,
    build,
)
from benchmarks.forecast.losses import load_vector, lowest, mean_loss, network, vector
from benchmarks.forecast.training import VERSION, Run, grid_run, kept_run, seeds_of, train
from coopt import Budget, Constants, Fleet, Measurement, MeasurementWarning, Problem

Pair = tuple[int, int]  # tau, s
PILOT_STEPS, PILOT_BATCH = 2, 8
# To be raised whenever something changes that changes what is measured.
MEASURED = 3


def kept_text(case: Case, what: object, make: Callable[[], str]) -> str:
    """Text from the cache, made where it is not there."""
    key = json.dumps([VERSION, asdict(case), what], sort_keys=True)
    path = _folder(case) / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.txt"
    if not path.exists():
        text = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return path.read_text(encoding="utf-8")


def _folder(case: Case) -> Path:
    return cache_folder() / "forecast" / case.data


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known after a pilot.

    Attributes
    ----------
    measurement : Measurement
    model : numpy.ndarray of float32, shape (parameters,)
        The model measured: where the pilot ended.
    work : float
        Samples that pilot and measurement took, of all devices, rounds and exchanges at their cost included.
    pilot : int
        Rounds of the pilot.
    """

    measurement: Measurement
    model: Floats
    work: float
    pilot: int


class Study:
    """One federation and its grid.

    Parameters
    ----------
    case : Case
    steps, batches : tuple of int
        The grid.
    seeds : int
        Runs of every plan; default `training.seeds_of`.
    """

    def __init__(
        self,
        case: Case,
        steps: tuple[int, ...] = LOCAL_STEPS,
        batches: tuple[int, ...] = BATCHES,
        seeds: int | None = None,
    ) -> None:
        self.case, self.seeds = case, seeds_of(case) if seeds is None else seeds
        self.pairs: list[Pair] = [(tau, s) for tau in steps for s in batches]

    @cached_property
    def federation(self) -> Federation:
        return build(self.case)

    @cached_property
    def runs(self) -> dict[Pair, Run]:
        """Every plan that the largest budget allows a round of."""
        found = {pair: grid_run(self.case, *pair, self.seeds) for pair in self.pairs}
        return {pair: run for pair, run in found.items() if run is not None}

    @cached_property
    def lowest(self) -> float:
        """F*: by L-BFGS; from the ends of the best run where the model is a network, and no run is lower."""

        def find() -> str:
            best = min(self.runs.values(), key=lambda run: float(run.losses[:, -1].mean()))
            steps = 3000 if self.case.model in LINEAR else 400
            ends = min(float(run.losses.min()) for run in self.runs.values())
            return repr(min(lowest(self.federation, [best.models[0]], steps), ends))

        return float(kept_text(self.case, ["lowest", self.pairs, self.seeds], find))

    def off_grid(
        self, rounds: int, local_steps: int, batches: np.ndarray, start: Floats, runs: int, stream: int
    ) -> float:
        """F - F* of a plan with batches of every device's own, from a start: mean over some runs."""
        digest = hashlib.sha256(start.tobytes()).hexdigest()
        what = ["plan", rounds, local_steps, batches.tolist(), digest, stream]

        def make() -> Run:
            end = np.array([rounds], dtype=np.int64)
            return train(self.federation, local_steps, batches, end, runs, start, stream=stream)

        return float(kept_run(self.case, what, runs, make).losses[:, -1].mean()) - self.lowest

    def rounds(self, cost: float, pair: Pair) -> int:
        return self.federation.rounds(cost, *pair)

    def gaps(self, pair: Pair, rounds: float) -> Floats:
        """F - F* of a plan of the grid after so many rounds, by every seed."""
        return self.runs[pair].after(rounds) - self.lowest

    def gap(self, pair: Pair, rounds: float) -> float:
        """Mean of `gaps`."""
        return float(self.gaps(pair, rounds).mean())

    def allowed(self, cost: float) -> dict[Pair, int]:
        """Rounds of every plan of the grid that a cost allows one of."""
        found = {pair: self.rounds(cost, pair) for pair in self.runs}
        return {pair: rounds for pair, rounds in found.items() if rounds >= 1}

    def problem(self, cost: float) -> Problem:
        """The federation with its cost limit, all that a forecast needs."""
        federation = self.federation
        fleet = Fleet(federation.samples, gradient_noise=1.0, divergence=1.0)
        constants = Constants(federation.learning_rate, 1.0, 1.0)
        return Problem(fleet, constants, self.budget(cost))

    def budget(self, cost: float) -> Budget:
        return Budget(
            cost=cost,
            round_cost=ROUND_COST * len(self.federation),
            max_local_steps=max(tau for tau, _ in self.pairs),
        )

    def measured(
        self,
        pilot: int,
        rows: int,
        directions: int,
        seed: int,
        budget: float | None = None,
        left_out: tuple[int, ...] = (),
    ) -> Measured:
        """Run a pilot of small rounds, and measure where it ends.

        Parameters
        ----------
        pilot : int
            Rounds of two steps with batches of eight.
        rows, directions, left_out
            See `coopt.adapters.torch.measure`.
        seed : int
            Source of both.
        budget : float, optional
            Samples that training may take; measuring takes at most a tenth.
        """
        what = [self.case_key, MEASURED, pilot, rows, directions, seed, budget, left_out]
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
        path = _folder(self.case) / f"measured-{name}.npz"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MeasurementWarning)
                found = self.measure_anew(pilot, rows, directions, seed, budget, left_out)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part.npz")
            found.save(part)
            part.replace(path)
        measurement = Measurement.load(path)
        devices = len(self.federation)
        work = pilot * PILOT_STEPS * PILOT_BATCH * devices + measurement.samples_used
        exchanges = pilot + measurement.directions + 1
        model = vector(self._module(pilot, seed))
        return Measured(measurement, model, work + exchanges * ROUND_COST * devices, pilot)

    def _module(self, pilot: int, seed: int) -> Any:
        """The model after a pilot."""
        module = network(self.federation)
        return load_vector(module, self._pilot(pilot, seed)) if pilot else module

    @property
    def case_key(self) -> list[object]:
        return [VERSION, asdict(self.case)]

    def _pilot(self, rounds: int, seed: int) -> Floats:
        def make() -> Run:
            batches = np.full(len(self.federation), PILOT_BATCH, dtype=np.int64)
            points = np.array([rounds], dtype=np.int64)
            return train(self.federation, PILOT_STEPS, batches, points, 1, stream=1000 + seed)

        return kept_run(self.case, ["pilot", rounds, seed], 1, make).models[0]

    def measure_anew(
        self,
        pilot: int,
        rows: int,
        directions: int,
        seed: int,
        budget: float | None = None,
        left_out: tuple[int, ...] = (),
    ) -> Measurement:
        """As `measured`, without the cache, so that warnings are heard."""
        import torch

        from coopt.adapters.torch import SharedData, measure

        federation = self.federation
        hands = [np.arange(len(federation.y))[federation.rows(i)] for i in range(len(federation))]
        return measure(
            self._module(pilot, seed),
            mean_loss(federation),
            SharedData(torch.from_numpy(federation.x), torch.from_numpy(federation.y), hands),
            rows=rows,
            directions=directions,
            weight_decay=RIDGE,
            seed=seed,
            progress=False,
            samples=budget,
            left_out=left_out,
        )

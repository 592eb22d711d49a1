"""What a round of training takes and gives, and the engine that trains one client after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coopt.adapters.draws import draw_positions
from coopt.adapters.torch.data import ClientRows
from coopt.adapters.torch.flat import FlatModel, own_randomness
from coopt.adapters.torch.local import PLAIN, LocalClient, LocalWork, ProbeOptions, client_seed
from coopt.measuring.report import ClientReport
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


MOST_DRAWN = 2**20  # rows drawn at once, for the sake of memory


@dataclass(frozen=True, eq=False)
class RoundWork:
    """A round, as the clients that take part are told it.

    Attributes
    ----------
    round : int
        Round, from 0.
    clients : numpy.ndarray of int64, shape (m,)
        Who trains, increasing.
    local_steps, batch_sizes : numpy.ndarray of int64, shape (m,)
        tau_i and s_i.
    shares : numpy.ndarray, shape (m,)
        How much each model counts in the average; they sum to one.
    rows : ClientRows
        What all clients hold.
    learning_rate : float
        eta.
    extra_evaluation : bool
        Whether to measure curvature.
    seconds : numpy.ndarray, shape (m, 2), optional
        Simulated seconds of computing and of communicating.
    micro_batches : numpy.ndarray of int64, shape (m,), optional
        Most samples that each takes at once.
    """

    round: int
    clients: Ints
    local_steps: Ints
    batch_sizes: Ints
    shares: Floats
    rows: ClientRows
    learning_rate: float
    extra_evaluation: bool
    seconds: Floats | None
    micro_batches: Ints | None = None

    def part(self, chosen: Ints) -> RoundWork:
        """Give the work of some of the clients, by their positions."""
        return replace(
            self,
            clients=self.clients[chosen],
            local_steps=self.local_steps[chosen],
            batch_sizes=self.batch_sizes[chosen],
            shares=self.shares[chosen],
            seconds=None if self.seconds is None else self.seconds[chosen],
            micro_batches=None if self.micro_batches is None else self.micro_batches[chosen],
        )


@dataclass(frozen=True, eq=False)
class RoundResult:
    """What the clients of a round came to.

    Attributes
    ----------
    state : torch.Tensor, shape (n + b,)
        The average of the usable models; the state that they started from where none is usable.
    reports : list of ClientReport
        One a client, in the order of the work.
    usable : numpy.ndarray of bool, shape (m,)
        Whose model and loss are finite: one number that is not would make all of the average so.
    """

    state: Tensor
    reports: list[ClientReport]
    usable: npt.NDArray[np.bool_]


class Engine(Protocol):
    """Runs the clients of a round; averages are accumulated in double precision."""

    def run(self, start: Tensor, work: RoundWork) -> RoundResult:
        """Train from `start`, and average what is finite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What clients keep from round to round, as torch saves it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


def averaged(start: Tensor, total: Tensor, shares: Floats, usable: npt.NDArray[np.bool_]) -> Tensor:
    """The average, from the sum of the usable models times their shares, which then count for all."""
    if usable.all():
        return total.to(start)
    counted = float(shares[usable].sum())
    return (total / counted).to(start) if counted > 0 else start


class LoopEngine:
    """Trains one client after the other, for any model.

    Parameters
    ----------
    model : FlatModel
        Workspace.
    inputs, targets : torch.Tensor, shape (m, ...)
        Samples of all clients.
    seed : int
        Seed of the whole training.
    probe : ProbeOptions, optional
        What clients measure.
    replacement : bool
        Whether mini-batches are drawn with replacement.
    optimiser : ClientSGD or ClientAdam
        What clients do with gradients.
    clock : callable
        Tells the seconds that clients take.
    """

    def __init__(
        self,
        model: FlatModel,
        inputs: Tensor,
        targets: Tensor,
        *,
        seed: int,
        probe: ProbeOptions | None,
        replacement: bool,
        optimiser: ClientSGD | ClientAdam = PLAIN,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self.seed = seed
        self.replacement = replacement
        self._new_client = partial(
            LocalClient,
            model=model,
            inputs=inputs,
            targets=targets,
            probe=probe,
            optimiser=optimiser,
            clock=clock,
        )
        self._clients: dict[int, LocalClient] = {}

    def _client(self, client: int) -> LocalClient:
        if client not in self._clients:
            self._clients[client] = self._new_client(client)
        return self._clients[client]

    def run(self, start: Tensor, work: RoundWork) -> RoundResult:
        """Train from `start`, and average what is finite."""
        total = torch.zeros_like(start, dtype=torch.float64)
        reports = []
        usable = np.zeros(len(work.clients), dtype=bool)
        with own_randomness(self.model.device) as reseed:
            for k, batches in enumerate(self._batches(work)):
                client = int(work.clients[k])
                reseed(client_seed(self.seed, work.round, client))
                task = LocalWork(
                    work.round,
                    int(work.local_steps[k]),
                    int(work.batch_sizes[k]),
                    work.learning_rate,
                    work.extra_evaluation,
                    None if work.micro_batches is None else int(work.micro_batches[k]),
                )
                seconds = (
                    None if work.seconds is None else (work.seconds[k, 0].item(), work.seconds[k, 1].item())
                )
                held = int(work.rows.counts[client])
                reports.append(self._client(client).train(start, task, batches, held, seconds=seconds))
                usable[k] = math.isfinite(reports[-1].loss) and bool(torch.isfinite(self.model.state).all())
                if usable[k]:
                    total.add_(self.model.state, alpha=work.shares[k].item())
        return RoundResult(averaged(start, total, work.shares, usable), reports, usable)

    def _batches(self, work: RoundWork) -> Iterator[Ints]:
        """Give every client's mini-batches, shape (local_steps + 1, batch_size); drawn for many at a time."""
        steps, widest = int(work.local_steps.max()) + 1, int(work.batch_sizes.max())
        at_once = max(1, MOST_DRAWN // (steps * widest))
        for start in range(0, len(work.clients), at_once):
            part = work.part(np.arange(start, min(start + at_once, len(work.clients))))
            positions = draw_positions(
                self.seed,
                work.round,
                part.clients,
                work.rows.counts[part.clients],
                steps=np.arange(steps),
                sizes=part.batch_sizes,
                replacement=self.replacement,
            )
            rows = work.rows.flat[work.rows.first[part.clients, None, None] + positions]
            for row, tau, size in zip(rows, part.local_steps, part.batch_sizes, strict=True):
                yield row[: tau + 1, :size]

    def state_dict(self) -> dict[str, Any]:
        """What clients keep from round to round, as torch saves it."""
        return {
            str(client): worker.probe.state_dict()
            for client, worker in self._clients.items()
            if worker.probe is not None
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._clients = {}
        for client, held in state.items():
            probe = self._client(int(client)).probe
            if probe is not None:
                probe.load_state_dict(held)

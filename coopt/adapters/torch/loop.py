"""The engine that trains one client after the other, for any model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coopt.adapters.torch.engine import MOST_DRAWN, RoundResult, RoundWork, averaged, drawn_rows
from coopt.adapters.torch.flat import FlatModel, own_randomness
from coopt.adapters.torch.local import PLAIN, LocalClient, LocalWork, ProbeOptions, client_seed
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD

Ints = npt.NDArray[np.int64]


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
            rows = drawn_rows(part, len(part.clients), np.arange(steps), self.seed, self.replacement)
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

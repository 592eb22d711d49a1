"""Train many clients at once: their parameters are stacked, and torch.func runs the model over the stack.

The mini-batches are those of one client after the other, so the results are the same up to rounding; only the
hundreds of small operations become a few large ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coopt.adapters.torch.buckets import bucket_clients
from coopt.adapters.torch.engine import MOST_DRAWN, RoundResult, RoundWork, averaged, drawn_rows
from coopt.adapters.torch.flat import FlatModel
from coopt.adapters.torch.local import PLAIN, ProbeOptions
from coopt.adapters.torch.optimisers import LocalSteps
from coopt.adapters.torch.stack import Stack
from coopt.adapters.torch.stacked_probe import StackedProbe
from coopt.measuring.report import ClientReport
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD

Ints = npt.NDArray[np.int64]

# What a bucket may hold at once: numbers in stacked parameters or in a step's mini-batches, and their rows.
MOST_NUMBERS, MOST_ROWS = 2**25, 2**14


class StackedEngine:
    """Trains the clients of a round together, bucket by bucket.

    Parameters
    ----------
    model : FlatModel
        What to train.
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
        self.optimiser = optimiser
        self._clock = clock
        self._stack = Stack(model, inputs, targets)
        self._probe = None if probe is None else StackedProbe(self._stack, probe)

    def run(self, start: Tensor, work: RoundWork) -> RoundResult:
        """Train from `start`, and average what is finite."""
        self.model.module.train()
        total = torch.zeros_like(start, dtype=torch.float64)
        usable = np.zeros(len(work.clients), dtype=bool)
        reports: dict[int, ClientReport] = {}
        numbers = self._stack.inputs[0].numel()
        for bucket in bucket_clients(
            work.local_steps,
            work.batch_sizes,
            most_clients=max(1, MOST_NUMBERS // self.model.size),
            most_rows=min(MOST_ROWS, MOST_NUMBERS // max(1, numbers)),
        ):
            trained, told = self._train(start[: self.model.size], work.part(bucket))
            losses = torch.tensor([report.loss for report in told], dtype=torch.float64, device=total.device)
            finite = torch.isfinite(trained).all(dim=1) & torch.isfinite(losses)
            usable[bucket] = finite.cpu().numpy()
            shares = torch.from_numpy(work.shares[bucket]).to(total)
            # Nothing times infinity is not a number: what does not count is taken out before the sum.
            counted = torch.where(finite[:, None], trained, 0.0).to(total)
            total[: self.model.size] += (shares * finite) @ counted
            reports |= zip(bucket.tolist(), told, strict=True)
        state = averaged(start, total, work.shares, usable)
        state[self.model.size :] = start[self.model.size :]  # buffers, which no client changes
        return RoundResult(state, [reports[k] for k in range(len(work.clients))], usable)

    def _train(self, start: Tensor, work: RoundWork) -> tuple[Tensor, list[ClientReport]]:
        """Train one bucket, whose local steps do not increase."""
        began = self._clock()
        stack, probe, sizes, clients = self._stack, self._probe, work.batch_sizes, len(work.clients)
        same, weights = start.expand(clients, -1), stack.weights(sizes)
        fresh = self._rows(work, np.zeros(1, dtype=np.int64), clients)[:, 0]
        if probe is None:
            losses, gradients = stack.gradients(same, stack.places(fresh), weights)
            gradient = stack.join(gradients)
        else:
            opening = probe.begin(start, work, fresh)
            losses, gradient = opening.losses, opening.gradient
        steps, parameters = LocalSteps(self.optimiser), same.clone()
        steps.step(parameters, gradient, work.learning_rate)
        for rows in self._later_steps(work):
            active = len(rows)
            front = parameters[:active]
            gradients = stack.gradients(front, rows, weights[:active])[1]
            if steps.plain:
                stack.step(front, gradients, work.learning_rate)
            else:
                steps.step(front, stack.join(gradients), work.learning_rate)
        if probe is None:
            measured: list[dict[str, Any]] = [{} for _ in range(clients)]
            extra = np.zeros(clients, dtype=np.int64)
        else:
            last = (
                self._rows(work, work.local_steps[:, None], clients)[:, 0] if work.extra_evaluation else None
            )
            measured, extra = probe.end(opening, work, parameters, last)
        processed = work.local_steps * sizes + extra
        told = losses.tolist()  # waits for an accelerator
        if work.seconds is None:
            # Stacked clients have no times of their own: what each took is its share of the samples.
            busy = (self._clock() - began) * processed / processed.sum()
            seconds = np.stack([busy, np.zeros(clients)], axis=1)
        else:
            seconds = work.seconds
        columns = (work.clients, work.rows.counts[work.clients], work.local_steps, sizes, processed)
        table = zip(*(column.tolist() for column in columns), told, seconds.tolist(), measured, strict=True)
        reports = [
            ClientReport(client, work.round, held, tau, size, total, loss, computing, communicating, **rest)
            for client, held, tau, size, total, loss, (computing, communicating), rest in table
        ]
        return parameters, reports

    def _later_steps(self, work: RoundWork) -> Iterator[Tensor]:
        """Give the mini-batches of steps 1, 2, ... of the clients that take them, shape (active, s)."""
        end, widest = int(work.local_steps[0]), int(work.batch_sizes.max())
        at_once = max(1, MOST_DRAWN // (len(work.clients) * widest))
        for first in range(1, end, at_once):
            steps = np.arange(first, min(first + at_once, end))
            active = np.count_nonzero(work.local_steps[:, None] > steps, axis=0)
            rows = self._stack.places(self._rows(work, steps, int(active[0])))
            for k, count in enumerate(active.tolist()):
                yield rows[:count, k]

    def _rows(self, work: RoundWork, steps: Ints, active: int) -> Ints:
        return drawn_rows(work, active, steps, self.seed, self.replacement)

    def state_dict(self) -> dict[str, Any]:
        """What clients keep from round to round, as torch saves it."""
        return {} if self._probe is None else self._probe.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        if self._probe is not None:
            self._probe.load_state_dict(state, self.model.state)

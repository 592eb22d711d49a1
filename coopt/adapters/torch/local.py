"""What one client does in a round: local SGD steps, and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from coopt.adapters.draws import draw_positions
from coopt.adapters.torch.flat import FlatModel, own_randomness
from coopt.adapters.torch.optimisers import LocalSteps
from coopt.errors import InvalidProblemError
from coopt.measuring.probe import ClientProbe
from coopt.measuring.report import ClientReport
from coopt.measuring.report_noise import ReportNoise
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD
from coopt.problem.validation import instance

PLAIN = ClientSGD()

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbeOptions:
    """What clients measure beside training, see :class:`coopt.ClientProbe`.

    Parameters
    ----------
    pair : {"next", "same"}, default "next"
        Which models a same-batch pair compares; "same" needs no memory from round to round.
    vectors : {"full", "sketch", "none"}, default "full"
        Whether reports carry gradients.
    sketch_size : int, default 1024
        Length of a sketched gradient.
    noise : ReportNoise, optional
        Noise on what reports say of the data. It comes from the operating system and cannot be repeated, so
        two runs differ; clients are trained one by one then.
    """

    pair: Literal["next", "same"] = "next"
    vectors: Literal["full", "sketch", "none"] = "full"
    sketch_size: int = 1024
    noise: ReportNoise | None = None

    def __post_init__(self) -> None:
        if self.noise is not None:
            instance("noise", self.noise, ReportNoise)
        if self.pair not in ("next", "same"):
            raise InvalidProblemError(f"pair = {self.pair!r} is unknown: choose 'next' or 'same'")
        if self.vectors not in ("full", "sketch", "none"):
            raise InvalidProblemError(
                f"vectors = {self.vectors!r} is unknown: choose 'full', 'sketch' or 'none'"
            )


EVERY_ROUND = ProbeOptions()
ONE_ROUND = ProbeOptions(pair="same")
SPREAD = 1_000_003  # a prime beyond the usual numbers of rounds and clients


@dataclass(frozen=True)
class LocalWork:
    """What a client is told to do in a round.

    Attributes
    ----------
    round : int
        Round, from 0.
    local_steps, batch_size : int
        tau and s_i.
    learning_rate : float
        eta.
    extra_evaluation : bool
        Whether to evaluate one more gradient to measure curvature.
    micro_batch : int, optional
        Most samples in memory at once: a larger batch is taken in parts, and its gradient added up.
    """

    round: int
    local_steps: int
    batch_size: int
    learning_rate: float
    extra_evaluation: bool = False
    micro_batch: int | None = None


class LocalClient:
    """One client, trained step by step with the module as it is.

    Parameters
    ----------
    client : int
        Index of the device in the fleet.
    model : FlatModel
        Workspace; clients that train one after the other may share it.
    inputs, targets : torch.Tensor, shape (m, ...)
        Samples, those of other clients included.
    probe : ProbeOptions, optional
        What to measure; None for reports without measurements.
    optimiser : ClientSGD or ClientAdam
        What it does with gradients.
    clock : callable
        Tells the seconds that it takes, where they are not simulated.
    """

    def __init__(
        self,
        client: int,
        model: FlatModel,
        inputs: Tensor,
        targets: Tensor,
        probe: ProbeOptions | None,
        optimiser: ClientSGD | ClientAdam = PLAIN,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.client = client
        self.optimiser = optimiser
        self.model = model
        self.inputs = inputs
        self.targets = targets
        self._clock = clock
        self._now: float | None = None  # a simulated clock, where there is one
        self._unused = torch.empty(0, dtype=torch.int64)
        self._micro_batch: int | None = None
        self.probe: ClientProbe | None = None
        normalised = any(isinstance(part, _BatchNorm) for part in model.module.modules())
        # One sample has no variance; the probe takes quarters of a mini-batch on their own.
        self._least = (2 if probe is None else 8) if normalised else 1
        # Three samples in parts of two leave one alone; from parts of three on, none is.
        self._least_part = 3 if normalised else 1
        if probe is not None:
            self.probe = ClientProbe(
                client,
                self._gradient,
                self._draw,
                pair=probe.pair,
                vectors=probe.vectors,
                sketch_size=probe.sketch_size,
                noise=probe.noise,
                clock=lambda: self._clock() if self._now is None else self._now,
            )

    def train(
        self,
        start: Tensor,
        work: LocalWork,
        batches: Ints,
        samples: int,
        *,
        seconds: tuple[float, float] | None = None,
    ) -> ClientReport:
        """Train for a round; the result is in ``model.state``.

        Parameters
        ----------
        start : torch.Tensor, shape (n + b,)
            The state received.
        work : LocalWork
            What to do.
        batches : numpy.ndarray of int64, shape (local_steps + 1, batch_size)
            Rows of `inputs`: a mini-batch for every step, and one for the extra evaluation.
        samples : int
            Samples that the client holds.
        seconds : (float, float), optional
            Simulated seconds of computing and communicating; by default the former are measured.

        Returns
        -------
        ClientReport
        """
        model, size = self.model, work.batch_size
        self._micro_batch = work.micro_batch
        if size < self._least:
            raise InvalidProblemError(
                f"client {self.client} is told to train on batches of {size}, and batch normalisation needs "
                f"{self._least} samples{'' if self.probe is None else ', a quarter of them for the probe'}: "
                f"make the Fleet with min_batch={self._least}, and max_batch no smaller on devices that hold "
                "less, or put GroupNorm in its place"
            )
        if work.micro_batch is not None and work.micro_batch < self._least_part:
            raise InvalidProblemError(
                f"client {self.client} is told to take batches in parts of {work.micro_batch}, and batch "
                f"normalisation needs parts of {self._least_part}: make the Fleet with micro_batch="
                f"{self._least_part} or more, or put GroupNorm in its place"
            )
        rows = torch.from_numpy(batches).to(model.device).unbind()
        model.state.copy_(start)
        model.module.train()
        began = self._clock()
        self._now = None if seconds is None else 0.0
        self._unused = rows[0]
        steps = LocalSteps(self.optimiser)
        if self.probe is None:
            loss = model.evaluate(*self._samples(rows[0]), work.micro_batch)
            first = model.gradient
        else:
            gradient = self.probe.begin(
                model.parameters.cpu().numpy(), round=work.round, batch_size=work.batch_size
            )
            first = torch.from_numpy(gradient).to(start)
        steps.step(model.parameters, first, work.learning_rate)
        for batch in rows[1 : work.local_steps]:
            model.evaluate(*self._samples(batch), work.micro_batch)
            steps.step(model.parameters, model.gradient, work.learning_rate)
        computing, communicating = seconds or (None, 0.0)
        self._now = computing
        self._unused = rows[work.local_steps]
        if self.probe is None:
            return ClientReport(
                client=self.client,
                round=work.round,
                samples=samples,
                local_steps=work.local_steps,
                batch_size=size,
                samples_processed=size * work.local_steps,
                loss=float(loss),
                seconds_computing=self._clock() - began if computing is None else computing,
                seconds_communicating=communicating,
            )
        state = model.state.clone() if work.extra_evaluation else model.state
        report = self.probe.end(
            model.parameters.cpu().numpy(),
            samples=samples,
            local_steps=work.local_steps,
            extra_evaluation=work.extra_evaluation,
            seconds_communicating=communicating,
        )
        model.state.copy_(state)  # the extra evaluation may have moved running means
        return report

    def _samples(self, batch: Tensor | Ints) -> tuple[Tensor, Tensor]:
        batch = torch.as_tensor(batch)  # an array, where it comes from a checkpoint
        return self.inputs.index_select(0, batch), self.targets.index_select(0, batch)

    def _draw(self, size: int) -> Tensor:
        batch, self._unused = self._unused[:size], self._unused[size:]
        return batch

    def _gradient(self, parameters: Floats, batch: Tensor | Ints) -> tuple[float, Floats]:
        self.model.parameters.copy_(torch.from_numpy(parameters))
        loss = self.model.evaluate(*self._samples(batch), self._micro_batch)
        return float(loss), self.model.gradient.cpu().numpy()


def local_update(
    model: FlatModel,
    start: Tensor,
    inputs: Tensor,
    targets: Tensor,
    work: LocalWork,
    *,
    client: int,
    seed: int,
    probe: ProbeOptions | None = ONE_ROUND,
    replacement: bool = True,
    optimiser: ClientSGD | ClientAdam = PLAIN,
) -> tuple[Tensor, ClientReport]:
    """Train one client for one round, without memory of other rounds.

    Parameters
    ----------
    model : FlatModel
        Workspace.
    start : torch.Tensor, shape (n + b,)
        The state received.
    inputs, targets : torch.Tensor, shape (d, ...)
        The client's samples.
    work : LocalWork
        What to do.
    client : int
        Index of the device in the fleet.
    seed : int
        Seed of the whole training: mini-batches depend on it, the round and the client.
    probe : ProbeOptions, optional
        What to measure; by default a "same" pair and whole gradients, and None for no measurements.
    replacement : bool, default True
        Whether mini-batches are drawn with replacement.
    optimiser : ClientSGD or ClientAdam
        What the client does with gradients; default plain steps.

    Returns
    -------
    state : torch.Tensor, shape (n + b,)
        The state after the last local step.
    report : ClientReport

    Examples
    --------
    >>> import torch
    >>> from coopt.adapters.torch import FlatModel, LocalWork, local_update
    >>> model = FlatModel(torch.nn.Linear(3, 2), torch.nn.functional.cross_entropy)
    >>> x, y = torch.randn(20, 3), torch.randint(2, (20,))
    >>> start = model.state.clone()
    >>> work = LocalWork(round=0, local_steps=5, batch_size=4, learning_rate=0.1)
    >>> state, report = local_update(model, start, x, y, work, client=0, seed=0)
    >>> state.shape, report.samples_processed
    (torch.Size([8]), 20)
    """
    worker = LocalClient(client, model, inputs, targets, probe, optimiser)
    batches = draw_positions(
        seed,
        work.round,
        client,
        len(inputs),
        steps=np.arange(work.local_steps + 1),
        sizes=work.batch_size,
        replacement=replacement,
    )
    with own_randomness(model.device) as reseed:
        reseed(client_seed(seed, work.round, client))
        report = worker.train(start, work, batches[0], len(inputs))
    return model.state.clone(), report


def client_seed(seed: int, round: int, client: int) -> int:
    """Seed of the random numbers that a model itself draws, for dropout and the like."""
    return ((seed * SPREAD + round) * SPREAD + client) % 2**63

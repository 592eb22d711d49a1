"""Federated training: ask for a plan, let the clients train, average, report, until the planner stops."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from coopt.adapters.aggregate import aggregation_shares
from coopt.adapters.late_answers import LateAnswers
from coopt.adapters.round_course import TimedCourse, check_sizes, everybody, simulated
from coopt.adapters.torch.checkpoint import (
    MAY_DIFFER,
    as_array,
    describe_data,
    describe_model,
    without_tensors,
)
from coopt.adapters.torch.data import SharedData, check_order, gather, row_source, tensors_of
from coopt.adapters.torch.engine import RoundWork
from coopt.adapters.torch.evaluation import Metric, accuracy, evaluate
from coopt.adapters.torch.flat import FlatModel, LossFunction
from coopt.adapters.torch.global_model import GlobalModel
from coopt.adapters.torch.history import History, RoundRecord
from coopt.adapters.torch.local import EVERY_ROUND, ProbeOptions
from coopt.adapters.torch.measuring import measure
from coopt.adapters.torch.measuring_in_a_run import measure_where_wanted
from coopt.adapters.torch.modes import choose_engine
from coopt.adapters.torch.rounds_bar import rounds_bar, show_round
from coopt.errors import CheckpointError, CheckpointWarning, InvalidProblemError
from coopt.measuring.measurement import Measurement
from coopt.measuring.report import ClientReport
from coopt.objectives.forecast.optimiser import AVERAGING, Optimiser
from coopt.online.checkpoint_file import CheckpointFile
from coopt.online.fingerprint import Fingerprint, fingerprint
from coopt.online.planner import Planner, check_planner
from coopt.online.round_plan import RoundPlan, Stopped, StopReason
from coopt.problem import validation
from coopt.problem.saved_state import anything, table

if TYPE_CHECKING:
    from coopt.adapters.system import SystemModel

Callback = Callable[[History], bool | None]


class FederatedTrainer:
    """Trains a model on the data of many clients, as a planner says.

    Parameters
    ----------
    model : torch.nn.Module
        Starting point; copied, so it stays as it is.
    loss : callable
        ``loss(outputs, targets)``: mean over the samples of a batch, a scalar tensor.
    client_datasets : SharedData, or sequence of (inputs, targets) pairs or torch data sets
        One entry a client, in the order of the fleet.
    mode : {"auto", "loop", "vectorised"}, default "auto"
        "loop" trains one client after the other, "vectorised" all at once; both draw the same mini-batches
        and agree up to rounding. "auto" takes "vectorised" where it works and pays; `trainer.mode` says what
        was taken.
    device : str or torch.device, default "cpu"
        Where to compute.
    seed : int, default 0
        Source of all mini-batches, and of dropout in loop mode.
    weight_decay : float, default 0
        lambda: lambda / 2 times the squared norm of the parameters is added to the loss of every client.
    weights : array_like, shape (N,), optional
        Aggregation weights; default: the samples that the clients hold in the round.
    replacement : bool, default True
        Whether mini-batches are drawn with replacement; without, each is drawn afresh from all samples of
        the client.
    optimiser : Optimiser
        Momentum, rates and Adam, of clients and server; default plain federated averaging. Clients begin
        every round with an empty memory, that of the server is in the checkpoint, and buffers such as running
        means and variances are averaged, whatever the server does with parameters.
    probe : ProbeOptions, optional
        What the clients measure; None for nothing, where the planner needs no measurements.
    system : SystemModel, optional
        Simulated clock and absences. Clients later than the plan's deadline are not averaged; they are given
        no new work until they are done, and then their report is heard. Without it, seconds are measured.
    clock : callable, default time.perf_counter
        Tells the seconds that clients take, without `system`. ``time.process_time`` leaves out those in which
        other programs had the processor.
    test : (torch.Tensor, torch.Tensor) or torch data set, optional
        Inputs and targets to evaluate the model on.
    metric : callable, optional
        ``metric(outputs, targets)``: mean over samples; default accuracy, None for no metric.
    evaluate_every : int, default 1
        Rounds between evaluations; the last round is always evaluated.
    gradient_error : callable, optional
        ``gradient_error(round)``, handed to the controller: see :func:`coopt.streaming.gradient_error`.
    callbacks : sequence of callable, optional
        Called with the history after every round; a true answer ends the training.
    progress : bool, optional
        Whether to show a progress bar; default: where standard error is a terminal.
    checkpoint : str or Path, optional
        File to save to. Where it exists already, training goes on from it, bit for bit if the clock is
        simulated; data, model and all options have to be what they were, except for `device`,
        `evaluate_every`, and what `Controller.load_state_dict` allows.
    checkpoint_every : int, default 10
        Rounds between checkpoints; the end is always saved.

    Raises
    ------
    InvalidProblemError
        If an argument is out of range, or data, model, device and mode do not fit together.

    Examples
    --------
    >>> import torch
    >>> from coopt import Budget, Controller, Fleet
    >>> from coopt.adapters.system import SystemModel
    >>> from coopt.adapters.torch import FederatedTrainer
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(90, 3, generator=generator)
    >>> y = (x.sum(dim=1) > 0).long()
    >>> model = torch.nn.Linear(3, 2)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> trainer = FederatedTrainer(model, torch.nn.functional.cross_entropy,
    ...                            [(x[:30], y[:30]), (x[30:60], y[30:60])],
    ...                            system=SystemModel([200.0, 100.0]), test=(x[60:], y[60:]))
    >>> fleet = Fleet(samples=[30, 30], gradient_noise=1.0, divergence=1.0)
    >>> history = trainer.run(Controller(fleet, Budget(cost=4000), learning_rate=0.5))
    >>> bool(history.records[-1].cost <= 4000), bool(history.records[-1].metric > 0.8)
    (True, True)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        client_datasets: SharedData | Sequence[Any],
        *,
        mode: Literal["auto", "loop", "vectorised"] = "auto",
        device: str | torch.device = "cpu",
        seed: int = 0,
        weight_decay: float = 0.0,
        weights: npt.ArrayLike | None = None,
        replacement: bool = True,
        optimiser: Optimiser = AVERAGING,
        probe: ProbeOptions | None = EVERY_ROUND,
        system: SystemModel | None = None,
        clock: Callable[[], float] = time.perf_counter,
        test: tuple[Tensor, Tensor] | Dataset[Any] | None = None,
        metric: Metric | None = accuracy,
        evaluate_every: int = 1,
        gradient_error: Callable[[int], float] | None = None,
        callbacks: Iterable[Callback] = (),
        progress: bool | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 10,
    ) -> None:
        data = gather(client_datasets)
        self.seed = validation.count("seed", seed, minimum=0)
        self.weights = weights
        self.system = system
        self.evaluate_every = validation.count("evaluate_every", evaluate_every)
        self.checkpoint_every = validation.count("checkpoint_every", checkpoint_every)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.callbacks = tuple(callbacks)
        self.progress = progress
        self._gradient_error = gradient_error
        self._clock = clock
        self._probe = probe
        self._replacement = replacement
        self._metric = metric
        self._model = FlatModel(model, loss, device, weight_decay=weight_decay)
        validation.instance("optimiser", optimiser, Optimiser)
        self.optimiser = optimiser
        self._global = GlobalModel(self._model, optimiser)
        device = self._model.device
        self._test = None
        if test is not None:
            given, wanted = tensors_of("test", test)
            self._test = given.to(device), wanted.to(device)
        self._describe_data = partial(describe_data, data)
        self._notes: list[str] = []
        self._late = LateAnswers()
        self._rows_of = row_source(data)
        # What clients hold in the present round; data that arrive are not there before the first.
        self._held = None if callable(data.rows) else self._rows_of(0)
        inputs, targets = data.inputs.to(device), data.targets.to(device)
        self._data = inputs, targets
        self._asked = mode
        self._engine_of = partial(
            choose_engine,
            model=self._model,
            inputs=inputs,
            targets=targets,
            seed=self.seed,
            probe=probe,
            replacement=replacement,
            optimiser=optimiser.client,
            clock=clock,
        )
        self._choose_engine(mode)

    def _choose_engine(self, mode: str) -> None:
        self.mode, self._engine = self._engine_of(mode)
        self.history = History(self.mode)

    @property
    def model(self) -> nn.Module:
        """The module with the present global parameters; a copy of it is yours to keep."""
        self._model.state.copy_(self._global.state)
        return self._model.module

    def measure(self, **options: Any) -> Measurement:
        """Measure the federation at the present model, before, after or, from a callback, within a run.

        The samples that it takes, ``samples_used`` of the result, are charged to no planner.

        Parameters
        ----------
        **options
            Those of :func:`coopt.adapters.torch.measure`; seed, weights, weight decay and device are the
            trainer's unless given.

        Returns
        -------
        Measurement

        Raises
        ------
        InvalidProblemError
            As `coopt.adapters.torch.measure` does, or if data arrive and none has yet.
        """
        held = self._held
        if held is None:
            raise InvalidProblemError("no data have arrived before the first round: measure after it")
        pairs = zip(held.first, held.first + held.counts, strict=True)
        rows = [held.flat[start:end] for start, end in pairs]
        given: dict[str, Any] = {
            "weight_decay": self._model.weight_decay,
            "device": self._model.device,
            "seed": self.seed,
            "optimiser": self.optimiser.client,
        }
        if self.weights is not None:
            weights = validation.float_array("weights", self.weights, len(rows), minimum=0.0)
            given["weights"] = weights / weights.sum()
        return measure(self.model, self._model.loss, SharedData(*self._data, rows), **(given | options))

    def run(self, planner: Planner) -> History:
        """Train until the planner stops, or a callback does.

        Parameters
        ----------
        planner : Controller, FixedPlan or the like
            Plans the rounds and hears the reports.

        Returns
        -------
        History
            Also ``trainer.history``; the trained model is ``trainer.model``.

        Raises
        ------
        InvalidProblemError
            If the plan is for another number of clients, or lists them in another order, or the checkpoint is
            that of another run: the message names what differs.
        CheckpointError
            If another run has the checkpoint, or the disk refuses the last one.
        """
        check_planner(planner, self.optimiser)
        if self.history.records:
            raise InvalidProblemError("this trainer has been run already: make a new one")
        if self._held is not None:
            check_order(planner.fleet.samples, self._held.counts)
        if planner.fleet.micro_batch is not None and self.mode != "loop":
            if self._asked == "vectorised":
                raise InvalidProblemError(
                    "mode = 'vectorised' takes whole batches of all clients at once, and the fleet has "
                    "micro_batch: choose 'loop', or 'auto'"
                )
            self._choose_engine("loop")
        if self.checkpoint is None:
            return self._train(planner, None)
        with CheckpointFile(self.checkpoint, self._fingerprint(), may_differ=MAY_DIFFER) as file:
            return self._train(planner, file)

    def _train(self, planner: Planner, file: CheckpointFile | None) -> History:
        ended = self._resume(planner, file)
        with rounds_bar(len(self.history), self.progress) as bar:
            while not ended:
                self._notes += measure_where_wanted(
                    planner, self.measure, self._held, self.system, self.optimiser, self.seed, self._clock
                )
                plan = self._next_plan(planner)
                if isinstance(plan, Stopped):
                    self.history.stopped = plan
                    break
                if not self._round(plan, planner):
                    self.history.stopped = Stopped(
                        StopReason.NOT_FINITE, planner.round, planner.spent_cost, planner.spent_seconds
                    )
                    break
                answers = [callback(self.history) for callback in self.callbacks]
                ended = any(answers)
                show_round(bar, self.history.records[-1], plan.rounds_left)
                if file is not None and len(self.history) % self.checkpoint_every == 0:
                    try:
                        file.write(self._run_state(planner, ended))
                    except CheckpointError as error:
                        warnings.warn(f"{error}. Training goes on", CheckpointWarning, stacklevel=3)
        self._evaluate_last()
        if file is not None:
            file.write(self._run_state(planner, ended))
        return self.history

    def _next_plan(self, planner: Planner) -> RoundPlan | Stopped:
        """Plan the next round; who is known to be away is not drawn. Wait until it begins."""

        def away() -> npt.NDArray[np.bool_]:
            gone: npt.NDArray[np.bool_] = self._rows_of(planner.round).counts == 0
            return gone if self.system is None else gone | self.system.round(planner.round, 0.0).absent

        return self._late.next_plan(planner, away, time.sleep if self.system is None else None)

    def _round(self, plan: RoundPlan, planner: Planner) -> bool:
        """Run a round; tell whether any model that arrived could be used."""
        rows = self._held = self._rows_of(plan.round)
        check_sizes(plan, len(rows.counts), self.system)
        probing, micro = self._probe is not None, planner.fleet.micro_batch
        began = planner.spent_seconds
        ready = (rows.counts > 0) & ~self._late.busy(len(rows.counts), began)
        if self.system is None:
            course = everybody(plan, ready)
        else:
            course = simulated(plan, ready, self.system, probing=probing, micro_batch=micro)
        timed = course if isinstance(course, TimedCourse) else None
        shares = aggregation_shares(self._weights(plan, rows.counts), course.arrived)
        clients = course.working
        shares, steps, in_time = shares[clients], course.steps[clients], course.arrived[clients]
        told: list[ClientReport] = []
        usable = np.zeros(0, dtype=bool)
        if len(clients):
            work = RoundWork(
                round=plan.round,
                clients=clients,
                local_steps=steps,
                batch_sizes=plan.batch_sizes[clients],
                shares=self._global.counts(shares, steps),
                rows=rows,
                learning_rate=plan.learning_rate,
                extra_evaluation=plan.extra_evaluation,
                seconds=None if timed is None else timed.times[clients],
                micro_batches=None if micro is None else micro[clients],
            )
            result = self._engine.run(self._global.state, work)
            told, usable = result.reports, result.usable & in_time
            if not self._global.take(result.state, shares * usable, steps):
                # The models are finite, and their average, or the server's step from it, is not.
                usable = np.zeros_like(usable)
        reports = [report for report, here in zip(told, in_time, strict=True) if here]
        if timed is not None:
            told = self._late.heard(told, began + timed.done, began + timed.seconds)
        ignored = planner.observe(
            told,
            seconds=None if timed is None else timed.seconds,
            answered=None if timed is None else timed.answered,
            absent=course.away,
            gradient_error=None if self._gradient_error is None else self._gradient_error(plan.round),
            witnessed=True,
        )
        left_out = [f"client {client}: model or loss is not finite" for client in clients[in_time & ~usable]]
        self._record(plan, planner, reports, shares[in_time], (*self._notes, *left_out, *map(str, ignored)))
        self._notes.clear()
        return bool(usable.any()) or not in_time.any()

    def _weights(self, plan: RoundPlan, counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Aggregation weights of all clients, or how often each was drawn."""
        if plan.draws is not None:
            return plan.draws
        if self.weights is None:
            return counts
        return validation.float_array("weights", self.weights, len(counts), minimum=0.0)

    def _record(
        self,
        plan: RoundPlan,
        planner: Planner,
        reports: list[ClientReport],
        shares: npt.NDArray[np.float64],
        ignored: tuple[str, ...],
    ) -> None:
        """Add the round to the history, with the test data's view of the new model if its turn has come."""
        told = np.array([report.loss for report in reports])
        known = (shares > 0) & np.isfinite(told)
        test_loss, metric = math.nan, math.nan
        if self._test is not None and (len(self.history) + 1) % self.evaluate_every == 0:
            test_loss, metric = evaluate(self._model, self._global.state, *self._test, self._metric)
        self.history.records.append(
            RoundRecord(
                round=plan.round,
                local_steps=plan.local_steps,
                batch_sizes=tuple(plan.batch_sizes.tolist()),
                learning_rate=plan.learning_rate,
                arrived=len(reports),
                train_loss=float(np.average(told[known], weights=shares[known])) if known.any() else math.nan,
                test_loss=test_loss,
                metric=metric,
                cost=planner.spent_cost,
                seconds=planner.spent_seconds,
                ignored=ignored,
            )
        )

    def _evaluate_last(self) -> None:
        records = self.history.records
        if records and self._test is not None and math.isnan(records[-1].test_loss):
            test_loss, metric = evaluate(self._model, self._global.state, *self._test, self._metric)
            records[-1] = replace(records[-1], test_loss=test_loss, metric=metric)

    def _fingerprint(self) -> Fingerprint:
        """What the training was set up with, but for what the planner says of itself."""
        return {
            **describe_model(self._model.module, self._global.state),
            **self._describe_data(),
            **fingerprint(
                mode=self.mode,
                seed=self.seed,
                loss=self._model.loss,
                weight_decay=self._model.weight_decay,
                weights=None if self.weights is None else np.asarray(self.weights),
                replacement=self._replacement,
                probe=self._probe,
                system=self.system,
                test=None if self._test is None else [as_array(each) for each in self._test],
                metric=self._metric,
                gradient_error=self._gradient_error,
                device=str(self._model.device),
                evaluate_every=self.evaluate_every,
                optimiser=self.optimiser,
            ),
        }

    def _run_state(self, planner: Planner, ended: bool) -> dict[str, Any]:
        state = {
            **self._global.state_dict(),
            "engine": self._engine.state_dict(),
            "late": self._late.state_dict(),
            "history": self.history.state_dict(),
            "planner": planner.state_dict(),
            "ended": ended,
        }
        return {name: without_tensors(part) for name, part in state.items()}

    def _resume(self, planner: Planner, file: CheckpointFile | None) -> bool:
        """Go on from the checkpoint, if there is one; tell whether a callback has ended the training."""
        state = None if file is None else file.read()
        if state is None:
            return False
        parts = dict.fromkeys(("engine", "late", "server", "history", "planner"), anything)
        read = table("run", state, parts | {"model": anything, "ended": validation.flag})
        history = History.from_state("run.history", read["history"])
        self._global.load_state_dict(read)
        self._engine.load_state_dict(read["engine"])
        self._late.load_state_dict("run.late", read["late"])
        planner.load_state_dict(read["planner"])
        self.history = history
        self.history.stopped = None
        for record in self.history:  # what has arrived before arrives again
            self._held = self._rows_of(record.round)
        return bool(read["ended"])

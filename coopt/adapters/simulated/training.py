"""Federated rounds in numpy: any model that gives a loss and a gradient, on a clock that is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.adapters.aggregate import aggregation_shares, step_factors
from coopt.adapters.draws import draw_positions
from coopt.adapters.finite_devices import measure_finite
from coopt.adapters.late_answers import LateAnswers
from coopt.adapters.measuring_clock import MeasuringClock
from coopt.adapters.round_course import simulated
from coopt.adapters.system import SystemModel
from coopt.errors import InvalidProblemError
from coopt.measuring.from_gradients import measure
from coopt.measuring.measurement import Measurement
from coopt.measuring.probe import ClientProbe
from coopt.measuring.progress_bar import progress_bar
from coopt.measuring.report import ClientReport
from coopt.objectives.forecast.optimiser import AVERAGING, ClientAdam, LinearSteps, Optimiser
from coopt.online.planner import Planner, check_planner
from coopt.online.round_plan import RoundPlan, Stopped, StopReason
from coopt.problem.readable import Fact, readable
from coopt.problem.result_table import ResultTable
from coopt.problem.validation import count, instance

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Gradient = Callable[[Floats, Any], tuple[float, Floats]]
# The model of a device after its local steps, and its report.
Result = tuple[Floats, ClientReport]


@readable
@dataclass(frozen=True, eq=False)
class SimulatedRun(ResultTable):
    """What a simulated training came to.

    Attributes
    ----------
    parameters : numpy.ndarray, shape (n,)
        The model after the last round.
    losses : numpy.ndarray, shape (R + 1,)
        Loss of the whole federation before the first round and after each of R.
    costs, seconds : numpy.ndarray, shape (R + 1,)
        What the planner had charged by then, and how long it had taken [s].
    stopped : StopReason
        Why training ended; its text is advice.
    left_out : tuple of tuple of int, length R
        The devices of each round whose model or loss was not finite: they were not averaged.
    """

    parameters: Floats
    losses: Floats
    costs: Floats
    seconds: Floats
    stopped: StopReason
    left_out: tuple[tuple[int, ...], ...]

    def plot(self) -> DescribedFigure:
        """Draw the loss over cost and over time; needs the extra ``plot``."""
        from coopt.plans.plot_run import plot_losses

        return plot_losses({"training": (self.losses, self.costs, self.seconds)})

    def _shown(self) -> list[Fact]:
        first, last = float(self.losses[0]), float(self.losses[-1])
        spent: list[Fact] = [("cost", float(self.costs[-1])), ("seconds", float(self.seconds[-1]))]
        return [f"{len(self.left_out)} rounds", f"loss {first:.4g} to {last:.4g}", *spent, self.stopped.name]

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict before the first round (0) and after each; ``left_out`` counts devices."""
        counts = [0, *map(len, self.left_out)]
        columns = (self.losses.tolist(), self.costs.tolist(), self.seconds.tolist(), counts)
        return [
            {"round": number, "loss": loss, "cost": cost, "seconds": seconds, "left_out": left_out}
            for number, (loss, cost, seconds, left_out) in enumerate(zip(*columns, strict=True))
        ]


def simulate(
    planner: Planner,
    gradient: Gradient,
    parameters: ArrayLike,
    clients: Sequence[Any],
    *,
    system: SystemModel,
    weights: ArrayLike | None = None,
    optimiser: Optimiser = AVERAGING,
    seed: int = 0,
    progress: bool | None = None,
) -> SimulatedRun:
    """Train a model by federated averaging as a planner says.

    Parameters
    ----------
    planner : Planner
        :class:`coopt.Controller`, or a fixed plan: what each round does, and when to stop.
    gradient : callable
        ``gradient(parameters, rows) -> (loss, gradient)``: means over the rows of one device, a flat vector.
    parameters : array_like, shape (n,)
        The model before training.
    clients : sequence of (inputs, labels)
        What each device holds: a tuple of arrays with one row a sample.
    system : SystemModel
        How long devices take, and who is missing. Whoever is late is not averaged, is given no new work until
        it is done, and is heard then.
    weights : array_like, shape (N,), optional
        Aggregation weights; default: the samples held.
    optimiser : Optimiser
        Momentum of devices and server, and the server's rate; default plain averaging. Adam is for
        ``coopt.adapters.torch``.
    seed : int, default 0
        Mini-batches depend on it, the round, the device and the step alone.
    progress : bool, optional
        Whether to show a progress bar; default: where standard error is a terminal.

    Returns
    -------
    SimulatedRun

    Raises
    ------
    InvalidProblemError
        If the optimiser has Adam in it.

    Examples
    --------
    >>> import numpy as np
    >>> from coopt import Fleet
    >>> from coopt.adapters.fixed_plan import FixedPlan
    >>> from coopt.adapters.simulated import Softmax, digits, simulate
    >>> from coopt.adapters.system import SystemModel
    >>> federation, model = digits(devices=4), Softmax(64, 10)
    >>> fleet = Fleet(federation.samples, gradient_noise=1.0, divergence=1.0)
    >>> plan = FixedPlan(fleet, rounds=5, local_steps=4, batch_sizes=8, learning_rate=0.5)
    >>> run = simulate(plan, model.gradient, model.start(), federation.clients,
    ...                system=SystemModel(np.full(4, 100.0)))
    >>> run.losses.shape, bool(run.losses[-1] < run.losses[0])
    ((6,), True)
    """
    how = _linear(optimiser)
    check_planner(planner, optimiser)
    held = np.array([len(client[0]) for client in clients])
    shares = np.asarray(held if weights is None else weights, dtype=np.float64)
    model = np.array(parameters, dtype=np.float64)
    seed = count("seed", seed, minimum=0)
    memory = np.zeros_like(model)
    workers = [_Worker(i, client, gradient, seed, how) for i, client in enumerate(clients)]
    left_out: list[tuple[int, ...]] = []
    measure_for = _Measuring(planner, gradient, clients, system, weights, optimiser, seed)
    trail = [(_loss(gradient, model, clients, shares), 0.0, 0.0)]
    measure_for(model)
    late = LateAnswers()

    def away() -> NDArray[np.bool_]:
        return system.round(planner.round, 0.0).absent

    plan = late.next_plan(planner, away)
    total = plan.rounds_left if isinstance(plan, RoundPlan) else 0
    with progress_bar("training", total, progress) as advance:
        while isinstance(plan, RoundPlan):
            began = planner.spent_seconds
            ready = ~late.busy(len(workers), began)
            course = simulated(plan, ready, system, micro_batch=planner.fleet.micro_batch)
            done, arrived = replace(plan, device_steps=course.steps), course.arrived
            results = {i: workers[i].train(model, done) for i in course.working.tolist()}
            told = [
                replace(report, seconds_computing=computing, seconds_communicating=communicating)
                for (_, report), (computing, communicating) in zip(
                    results.values(), course.times[course.working].tolist(), strict=True
                )
            ]
            finite = np.zeros(len(workers), dtype=bool)
            for i, (local, report) in results.items():
                finite[i] = bool(np.isfinite(local).all()) and math.isfinite(report.loss)
            counts = shares if plan.draws is None else plan.draws
            present = aggregation_shares(counts, arrived & finite)
            model, memory = _averaged(model, memory, results, present, done.steps, how)
            planner.observe(
                late.heard(told, began + course.done, began + course.seconds),
                seconds=course.seconds,
                answered=course.answered,
                absent=course.away,
                witnessed=True,
            )
            trail.append((_loss(gradient, model, clients, shares), planner.spent_cost, planner.spent_seconds))
            left_out.append(tuple(np.flatnonzero(arrived & ~finite).tolist()))
            advance(1)
            if arrived.any() and not (arrived & finite).any():
                plan = Stopped(
                    StopReason.NOT_FINITE, planner.round, planner.spent_cost, planner.spent_seconds
                )
                break
            measure_for(model)
            plan = late.next_plan(planner, away)
    losses, costs, seconds = np.array(trail).T
    return SimulatedRun(model, losses, costs, seconds, plan.reason, tuple(left_out))


def _linear(optimiser: Optimiser) -> LinearSteps:
    instance("optimiser", optimiser, Optimiser)
    if isinstance(optimiser.client, ClientAdam):
        raise InvalidProblemError(
            f"optimiser has the devices step by {optimiser.client}: simulate takes ClientSGD, and "
            "coopt.adapters.torch trains with Adam"
        )
    return optimiser.linear


def _averaged(
    model: Floats,
    memory: Floats,
    results: Mapping[int, Result],
    present: Floats,
    steps: Ints,
    how: LinearSteps,
) -> tuple[Floats, Floats]:
    """The new model, and what the server remembers, from the models of those with a share in the average."""
    used = np.flatnonzero(present)
    if not used.size:
        return model, memory
    changes = np.array([results[i][0] for i in used.tolist()]) - model
    change = (present[used] * step_factors(present[used], steps[used])) @ changes
    server = how.server
    return model + server.now * change + server.kept * memory, server.momentum * memory + change


def _loss(gradient: Gradient, model: Floats, clients: Sequence[Any], shares: Floats) -> float:
    """Loss of the whole federation: every device's mean over all its samples, weighted."""
    losses = [gradient(model, client)[0] for client in clients]
    return float(np.average(losses, weights=shares))


@dataclass(frozen=True, eq=False)
class _Measuring:
    """Measures a model before a round where the planner wants that, by differences of gradients."""

    planner: Planner
    gradient: Gradient
    clients: Sequence[Any]
    system: SystemModel
    weights: ArrayLike | None
    optimiser: Optimiser
    seed: int

    def __call__(self, model: Floats) -> None:
        wanted = self.planner.wants()
        if wanted is None:
            return
        clock = MeasuringClock(self.system, wanted, self.planner.round, gradients_a_product=1)

        def measured(rows: Ints) -> Measurement:
            return measure(
                self.gradient,
                model,
                self.clients,
                rows=rows,
                directions=wanted.directions,
                seed=self.seed + wanted.seed,
                weights=None if self.weights is None else self.weights / np.sum(self.weights),
                progress=False,
            )

        found, _ = measure_finite(measured, clock.answering())
        took = clock.seconds(0 if found is None else found.directions)
        self.planner.measured(found, seconds=took, optimiser=self.optimiser)


class _Worker:
    """One device: its data, and the probe that reports on its rounds."""

    def __init__(self, client: int, data: Any, gradient: Gradient, seed: int, how: LinearSteps) -> None:
        self._client, self._data, self._gradient, self._seed = client, data, gradient, seed
        self._how = how
        self._held = len(data[0])
        self._fresh: Ints = np.empty(0, dtype=np.int64)
        # The clock is the system model's: what numpy takes here is nobody's business.
        self._probe = ClientProbe(client, self._evaluate, self._take, clock=lambda: 0.0)

    def train(self, model: Floats, plan: RoundPlan) -> Result:
        """Local steps from the global model; the local model, and the report."""
        size, rate = int(plan.batch_sizes[self._client]), plan.learning_rate
        tau = int(plan.steps[self._client])
        # One row a step, and one for the probe's extra batch.
        drawn = draw_positions(
            self._seed,
            plan.round,
            self._client,
            self._held,
            steps=np.arange(tau + 1),
            sizes=size,
        )[0]
        self._fresh = drawn[0]
        memory = self._probe.begin(model, round=plan.round, batch_size=size)
        momentum, decay = self._how.momentum, self._how.decay
        memory = memory + decay * model
        local = model - rate * memory
        for batch in drawn[1:-1]:
            memory = momentum * memory + self._evaluate(local, batch)[1] + decay * local
            local = local - rate * memory
        self._fresh = drawn[-1]
        return local, self._probe.end(
            local,
            samples=self._held,
            local_steps=tau,
            extra_evaluation=plan.extra_evaluation,
        )

    def _take(self, size: int) -> Ints:
        batch, self._fresh = self._fresh[:size], self._fresh[size:]
        return batch

    def _evaluate(self, model: Floats, batch: Ints) -> tuple[float, Floats]:
        return self._gradient(model, tuple(column[batch] for column in self._data))

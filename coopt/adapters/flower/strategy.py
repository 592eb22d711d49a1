"""A Flower strategy that decides, before each round, how much every node works."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from logging import getLogger
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy
from numpy.typing import ArrayLike

from coopt.adapters.flower import base_state
from coopt.adapters.flower.checkpoint import Begun, Checkpoint
from coopt.adapters.flower.exchange import Exchange
from coopt.adapters.flower.innermost import innermost
from coopt.adapters.flower.measuring import measure_where_wanted
from coopt.adapters.flower.partial_work import normalised
from coopt.adapters.flower.records import NUM_EXAMPLES, Task, with_task
from coopt.adapters.flower.replies import Contribution, answer_times, read_reply, to_aggregate
from coopt.adapters.flower.result import CoOptResult, FlowerRound, one_line
from coopt.adapters.flower.server_optimiser import ServerOptimiser, keep_running_statistics, steps_of
from coopt.adapters.flower.usable_base import usable_base
from coopt.errors import CooptError, InvalidProblemError
from coopt.measuring.report import ClientReport
from coopt.objectives.forecast.optimiser import AVERAGING, Optimiser, ServerSGD
from coopt.online.fingerprint import Fingerprint, fingerprint
from coopt.online.planner import Planner, check_planner
from coopt.online.round_plan import RoundPlan, Stopped
from coopt.problem import validation

logger = getLogger("flwr")

# Settings of a base strategy that may change while a run rests, as fingerprints name them.
MAY_DIFFER = ("base.min_", "base.fraction_evaluate", "base.strategy.strategy.min_")
MOST_FAILURES = 3  # rounds in a row in which every node fails, before that is taken for a mistake in the app


class CoOptStrategy(Strategy):
    """Plans each round with a :class:`~coopt.Controller`, and aggregates with any other strategy.

    Parameters
    ----------
    controller : Controller, FixedPlan or another planner
        Plans and keeps the accounts. Device i of its fleet is the node that says it is number i.
    base : flwr.serverapp.strategy.Strategy, optional
        Aggregates and evaluates; its minimum numbers of nodes, fractions, record keys and configuration hold.
        Default: FedAvg, or the server's step of `optimiser`, without evaluation on the nodes.
    optimiser : Optimiser
        What clients do with gradients, which their tasks tell them; what the server does, unless there is a
        `base` for that. Default plain federated averaging.
    seed : int, default 0
        Clients draw their mini-batches from it.
    checkpoint : str or Path, optional
        A folder of its own for each run, as an absolute path. The run is saved there before and after each
        round; if the folder holds a run already, `start` goes on from it.
    poll_seconds : float, default 0.2
        Pause between two looks for replies.

    Raises
    ------
    InvalidProblemError
        If an argument is out of range, or the base strategy wants more nodes than the fleet has devices.

    Notes
    -----
    A round ends when all nodes have answered that the plan expects, or its quorum has, or at its deadline;
    while no speed is known, some time after the others have. A node that answers later keeps its
    model to itself, but its report is used; until it has answered it is given no new work. A node that is
    not connected, or busy, costs nothing; one that fails is charged what was planned for it. If the server
    dies in the middle of a round, that round's work is charged, and lost.

    A node that says it did fewer local steps than planned is named, charged the plan, and averaged as
    :func:`coopt.adapters.aggregate.step_factors` says. The base strategy weights the models by the fleet's
    weights, whatever numbers of examples clients report; for a fleet that receives data while training, by
    the numbers that the controller believes.

    Where the controller wants to measure, nodes whose app can do that are measured between two rounds, in
    some exchanges as long as a model each, which are charged; unless the base strategy wraps another one.

    Time is what passes on the server's clock from the beginning of the first round, without evaluation and
    without the time during which the server does not run.
    """

    def __init__(
        self,
        controller: Planner,
        base: Strategy | None = None,
        *,
        optimiser: Optimiser = AVERAGING,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        poll_seconds: float = 0.2,
    ) -> None:
        self.controller = controller
        validation.instance("optimiser", optimiser, Optimiser)
        if base is not None and optimiser.server != ServerSGD():
            raise InvalidProblemError(
                f"optimiser has the server's step {optimiser.server}, and there is a base strategy: give "
                "ServerOptimiser as the base, with its options, or none"
            )
        self.optimiser = optimiser
        self.base = ServerOptimiser(optimiser.server, fraction_evaluate=0.0) if base is None else base
        check_planner(controller, steps_of(optimiser.client, usable_base(self.base)))
        self.seed = validation.count("seed", seed, minimum=0)
        self.poll_seconds = validation.real("poll_seconds", poll_seconds, minimum=0.0, strict=True)
        self._folder = checkpoint
        self._checkpoint: Checkpoint | None = None
        self._initial_base = base_state.dump(self.base, {}, {})
        self._devices: dict[int, int] = {}
        self._overhead = 0.0
        self._failures = 0
        if self._least("train") > len(controller.fleet):
            raise InvalidProblemError(
                f"the base strategy waits for {self._least('train')} nodes, the fleet has "
                f"{len(controller.fleet)} devices: lower min_train_nodes and min_available_nodes"
            )

    def summary(self) -> None:
        """Log the configuration."""
        logger.info("\t├──> coopt: %d devices, %s", len(self.controller.fleet), self.controller.budget)
        self.base.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Let the base strategy choose nodes, and give each its own task.

        Raises
        ------
        InvalidProblemError
            If the controller has stopped, the base strategy chooses no node, or another `start` than this
            one runs the round.
        """
        plan = self.controller.plan()
        if isinstance(plan, Stopped):
            raise InvalidProblemError(f"there is no round {server_round}: {plan.reason.value}")
        chosen = list(self.base.configure_train(server_round, arrays, ConfigRecord(dict(config)), grid))
        messages = []
        for message in chosen:
            node = message.metadata.dst_node_id
            if node not in self._devices:
                raise InvalidProblemError(
                    f"node {node} has not said which device it is: only CoOptStrategy.start asks; give "
                    "strategies that wrap others as `base`, not around this one"
                )
            device = self._devices[node]
            if device not in plan.participants:
                continue
            micro = self.controller.fleet.micro_batch
            task = Task(
                round=plan.round,
                device=device,
                local_steps=int(plan.steps[device]),
                batch_size=int(plan.batch_sizes[device]),
                learning_rate=plan.learning_rate,
                probe=plan.extra_evaluation,
                seed=self.seed,
                micro_batch=0 if micro is None else int(micro[device]),
                optimiser=self.optimiser.client,
            )
            messages.append(Message(with_task(message.content, task), node, message.metadata.message_type))
        if not chosen:
            raise InvalidProblemError("the base strategy chose no node: is its fraction_train 0?")
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as the base strategy does, but average running statistics (batch normalisation)."""
        received = list(replies)
        arrays, metrics = self.base.aggregate_train(server_round, received)
        return keep_running_statistics(self.base, arrays, received, self._weight_key), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure as the base strategy does."""
        return self.base.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate as the base strategy does."""
        return self.base.aggregate_evaluate(server_round, replies)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int | None = None,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> CoOptResult:
        """Train until the controller stops.

        Parameters
        ----------
        grid : flwr.serverapp.Grid
            Flower's connection to the nodes.
        initial_arrays : ArrayRecord
            The first model; not used if a checkpoint is there.
        num_rounds : int, optional
            Most rounds of this call; default: as many as the controller plans.
        timeout : float, default 3600
            Most seconds to wait for the nodes of one round, whatever the plan's deadline, for their
            evaluation, and for nodes to say which device they are.
        train_config, evaluate_config : ConfigRecord, optional
            Sent to all nodes, besides the task.
        evaluate_fn : callable, optional
            ``evaluate_fn(server_round, arrays) -> MetricRecord``: evaluates on the server, before the first
            round and after each.

        Returns
        -------
        CoOptResult
            The last model, the history, and why training ended.

        Raises
        ------
        InvalidProblemError
            If the checkpoint is that of another run: the message names what differs.
        CheckpointError
            If another server has the checkpoint, or the disk refuses to save.
        CooptError
            If no node says which device it is, or in three rounds in a row every one that answers has failed.
        """
        self.summary()
        with self._opened(initial_arrays) as self._checkpoint:
            result = self._restore()
            if result is None:
                result = CoOptResult(arrays=initial_arrays)
                if evaluate_fn is not None:
                    _add(result.evaluate_metrics_serverapp, 0, evaluate_fn(0, initial_arrays))
                self._save(result, model=True)
            exchange = Exchange(
                grid, devices=len(self.controller.fleet), pause=self.poll_seconds, timeout=timeout
            )
            exchange.wait(self._least("train"), everyone=True)
            mark = time.monotonic()
            for _ in count() if num_rounds is None else range(num_rounds):
                # What is not a round, but passes while training goes on, takes from the time as well.
                left = self.controller.time_left - (time.monotonic() - mark)
                exchange.resize(len(self.controller.fleet))  # devices may have joined
                exchange.wait(self._least("train"), seconds=left)
                self.controller.wait(time.monotonic() - mark)
                self._measure(exchange, result)
                plan = self._next_plan(exchange)
                if isinstance(plan, Stopped):
                    result.stopped = plan
                    logger.info("coopt: training ends: %s", plan.reason.value)
                    break
                self._train(plan, exchange, result, train_config or ConfigRecord(), timeout)
                mark = time.monotonic()
                self._save(result, model=True)
                mark += self._evaluate(
                    exchange, result, evaluate_config or ConfigRecord(), evaluate_fn, timeout
                )
            self._save(result)
            return result

    def _opened(self, arrays: ArrayRecord) -> AbstractContextManager[Checkpoint | None]:
        """The checkpoint, which is this server's alone within the context; None where none is kept."""
        if self._folder is None:
            return nullcontext()
        described = self._fingerprint(arrays)
        may_differ = [name for name in described if name.startswith(MAY_DIFFER)]
        return Checkpoint(self._folder, described, may_differ=may_differ)

    def _measure(self, exchange: Exchange, result: CoOptResult) -> None:
        """Measure the nodes if the planner wants that."""

        def begins(cost: float, longest: float) -> None:
            self._save(result, begun=Begun(time.time(), [], (cost, longest)))

        how = steps_of(self.optimiser.client, self.base)
        measure_where_wanted(self.controller, exchange, result.arrays, how, self.seed, begins)

    def _next_plan(self, exchange: Exchange) -> RoundPlan | Stopped:
        """Plan the next round; who is not connected is not drawn. Wait until it begins."""
        ready = exchange.ready()
        away = [device for device in range(len(self.controller.fleet)) if device not in ready]
        drawn = self.controller.budget.participants is not None
        plan = self.controller.plan(absent=away) if drawn else self.controller.plan()
        if isinstance(plan, RoundPlan) and plan.starts_in > 0:
            logger.info("coopt: the next devices come in %.3g s", plan.starts_in)
            time.sleep(plan.starts_in)
            self.controller.wait(plan.starts_in)
        return plan

    def _train(
        self, plan: RoundPlan, exchange: Exchange, result: CoOptResult, config: ConfigRecord, timeout: float
    ) -> None:
        """Run one round."""
        began = time.monotonic()
        self._devices = exchange.devices()
        logger.info("coopt: %s", one_line(plan, self.controller))
        messages = self.configure_train(plan.round + 1, result.arrays, config, exchange.grid())
        everyone = set(range(len(self.controller.fleet)))
        absent = everyone - {self._devices[message.metadata.dst_node_id] for message in messages}
        self._save(result, begun=Begun(time.time(), sorted(absent)))
        # Aggregation follows after the deadline, and the time must last for that too.
        wait = max(min(plan.deadline, timeout, self.controller.time_left - self._overhead), 0.0)

        def closes(answered: dict[int, float]) -> float:
            times = np.full(len(everyone), np.inf)
            times[list(answered)] = list(answered.values())
            return plan.closes(times, absent)

        sent, replies = exchange.ask(messages, round=plan.round, seconds=wait, closes=closes)
        answered = time.monotonic()
        contributions = [read_reply(reply, result.arrays) for reply in replies]
        result.arrays, metrics = self._aggregated(plan, contributions, result.arrays)
        _add(result.train_metrics_clientapp, plan.round + 1, metrics)
        late = [read_reply(reply, result.arrays).report for reply in exchange.late()]
        self._observe(
            plan,
            result,
            reports=[item.report for item in contributions if item.report is not None],
            late=[report for report in late if report is not None],
            answered=answer_times(contributions, len(everyone)),
            absent=sorted(everyone - {item.device for item in sent}),
            arrived=sum(item.arrays is not None for item in contributions),
            seconds=time.monotonic() - began,
        )
        self._overhead = max(self._overhead, time.monotonic() - answered)
        failed = bool(replies) and all(reply.message.has_error() for reply in replies)
        self._failures = self._failures + 1 if failed else 0
        if self._failures >= MOST_FAILURES:
            self._save(result, model=True)
            raise CooptError(
                f"every node that answered failed in {MOST_FAILURES} rounds in a row, the last time with: "
                f"{replies[-1].message.error.reason}"
            )

    def _aggregated(
        self, plan: RoundPlan, contributions: list[Contribution], model: ArrayRecord
    ) -> tuple[ArrayRecord, MetricRecord | None]:
        """The new model and the metrics of a round; the model as it was where nobody's could be used."""
        weights = self._weights(plan)
        momentum = float(getattr(self.optimiser.client, "momentum", 0.0))
        scaled = normalised(contributions, model, plan, weights, momentum)
        messages = to_aggregate(scaled, weights, self._weight_key)
        arrays, metrics = self.aggregate_train(plan.round + 1, messages)
        if arrays is not None and not all(np.isfinite(array.numpy()).all() for array in arrays.values()):
            # What is averaged is finite; the base strategy's own arithmetic can still overflow.
            raise CooptError(
                f"the base strategy {type(self.base).__name__} made a model that is not finite in round "
                f"{plan.round}: lower its learning rate; the model before that is kept"
            )
        return model if arrays is None else arrays, metrics

    def _observe(
        self,
        plan: RoundPlan,
        result: CoOptResult,
        *,
        reports: list[ClientReport],
        late: list[ClientReport],
        answered: ArrayLike | None,
        absent: list[int],
        arrived: int,
        seconds: float,
        interrupted: bool = False,
    ) -> None:
        """Hand the reports to the controller, and note what it makes of them."""
        weights = self._weights(plan)
        told = [*reports, *late]
        for ignored in self.controller.observe(told, seconds=seconds, answered=answered, absent=absent):
            logger.info("coopt: %s", ignored)
        losses = [(weights[report.client], report.loss) for report in reports if math.isfinite(report.loss)]
        total = sum(weight for weight, _ in losses)
        result.rounds.append(
            FlowerRound(
                round=plan.round,
                local_steps=plan.local_steps,
                batch_sizes=tuple(plan.batch_sizes.tolist()),
                learning_rate=plan.learning_rate,
                sent=len(self.controller.fleet) - len(absent),
                arrived=arrived,
                reports=len(reports),
                late=len(late),
                train_loss=sum(weight * loss for weight, loss in losses) / total if total > 0 else math.nan,
                cost=self.controller.spent_cost,
                seconds=self.controller.spent_seconds,
                interrupted=interrupted,
                policy=plan.policy,
            )
        )

    def _evaluate(
        self,
        exchange: Exchange,
        result: CoOptResult,
        config: ConfigRecord,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
        timeout: float,
    ) -> float:
        """Evaluate as the base strategy and the user want, and give the seconds that it took."""
        began = time.monotonic()
        number = self.controller.round
        if len(exchange.ready()) >= self._least("evaluate"):
            messages = self.configure_evaluate(
                number, result.arrays, ConfigRecord(dict(config)), exchange.grid()
            )
            _, replies = exchange.ask(messages, round=number - 1, seconds=timeout)
            try:
                metrics = self.aggregate_evaluate(number, [reply.message for reply in replies])
            except InconsistentMessageReplies as error:
                logger.warning("evaluation after round %d: %s", number, error)
            else:
                _add(result.evaluate_metrics_clientapp, number, metrics)
        if evaluate_fn is not None:
            _add(result.evaluate_metrics_serverapp, number, evaluate_fn(number, result.arrays))
        return time.monotonic() - began

    def _restore(self) -> CoOptResult | None:
        """Go on from the checkpoint; a round that was under way is charged, and lost."""
        saved = None if self._checkpoint is None else self._checkpoint.load()
        if saved is None:
            return None
        self.controller.load_state_dict(saved.controller)
        base_state.load(self.base, saved.base, saved.arrays)
        logger.info("coopt: goes on after %d rounds", len(saved.result.rounds))
        begun = saved.begun
        if begun is None:
            return saved.result
        passed = max(time.time() - begun.at, 0.0)
        if begun.measuring is not None:
            cost, longest = begun.measuring
            self.controller.measured(None, seconds=min(passed, longest), cost=cost)
        elif isinstance(plan := self.controller.plan(), RoundPlan):
            self._observe(
                plan,
                saved.result,
                reports=[],
                late=[],
                answered=None,
                absent=begun.absent,
                arrived=0,
                seconds=min(passed, plan.deadline),
                interrupted=True,
            )
        else:
            return saved.result
        self._save(saved.result)
        return saved.result

    def _save(self, result: CoOptResult, *, model: bool = False, begun: Begun | None = None) -> None:
        if self._checkpoint is None:
            return
        if model:
            arrays: base_state.Arrays = {}
            self._checkpoint.save_model(
                result, base_state.dump(self.base, self._initial_base, arrays), arrays
            )
        self._checkpoint.save(result, self.controller.state_dict(), begun)

    def _fingerprint(self, arrays: ArrayRecord) -> Fingerprint:
        """What the run was set up with, but for what the planner says of itself."""
        shapes = {name: f"{array.dtype} {tuple(array.shape)}" for name, array in arrays.items()}
        return fingerprint(
            kind="run in Flower",
            seed=self.seed,
            strategy=self.base,
            base=self._initial_base,
            optimiser=self.optimiser,
            model=shapes,
        )

    def _weights(self, plan: RoundPlan) -> dict[int, float]:
        """Weight of each device, in samples as Flower's own strategies have it, or how often it was drawn."""
        weights = self.controller.samples if plan.draws is None else plan.draws
        return dict(enumerate(weights.tolist()))

    @property
    def _weight_key(self) -> str:
        """The metric by which the base strategy weights models."""
        return str(getattr(innermost(self.base), "weighted_by_key", NUM_EXAMPLES))

    def _least(self, kind: str) -> int:
        """Nodes without which the base strategy waits."""
        names, base = ("min_available_nodes", f"min_{kind}_nodes"), innermost(self.base)
        return max(1, *(getattr(base, name, 1) for name in names))


def _add(metrics: dict[int, MetricRecord], number: int, new: MetricRecord | None) -> None:
    if new is not None:
        metrics[number] = new

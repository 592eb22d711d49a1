"""The server's step along the averaged change, as a base strategy; and what no server optimiser may step.

Running means and variances of batch normalisation are averages already. Momentum carries a variance below
zero within some rounds, and the model's outputs are no numbers then; Flower's own FedAvgM and FedAdam step
whatever arrays they are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from coopt.adapters.flower.innermost import innermost
from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD, Optimiser, ServerAdam, ServerSGD
from coopt.problem.validation import shown

# How arrays of running statistics are named at the end, by torch and by Keras.
RUNNING = ("running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance")
# Strategies of Flower that step every array.
STEPPING = (FedAdagrad, FedAdam, FedYogi, FedAvgM)

Arrays = dict[str, npt.NDArray[Any]]


class ServerOptimiser(FedAvg):
    """FedAvg with a step of the server's own: a rate, momentum, Nesterov's step, Adam.

    Parameters
    ----------
    server : ServerSGD or ServerAdam
    **options
        Those of Flower's ``FedAvg``.

    Raises
    ------
    InvalidProblemError
        If `server` is something else.

    Notes
    -----
    Running statistics, by the ends of their names, are averaged. What the server remembers is in the
    checkpoint of :class:`CoOptStrategy`.

    Examples
    --------
    >>> from coopt import ServerSGD
    >>> from coopt.adapters.flower import ServerOptimiser
    >>> diloco = ServerOptimiser(ServerSGD(0.7, 0.9, nesterov=True), fraction_evaluate=0.0)
    """

    def __init__(self, server: ServerSGD | ServerAdam, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(server, ServerSGD | ServerAdam):
            raise InvalidProblemError(
                f"server = {shown(server)}: must be a coopt.ServerSGD or coopt.ServerAdam, not "
                f"{type(server).__name__}"
            )
        self.server = server
        self.first: Arrays = {}
        self.second: Arrays = {}
        self._sent: Arrays = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: Any, grid: Grid
    ) -> Iterable[Message]:
        """Configure as FedAvg does, and remember what is sent."""
        if self.server != ServerSGD():
            self._sent = {name: array.numpy() for name, array in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and step along the change."""
        averaged, metrics = super().aggregate_train(server_round, replies)
        if averaged is None or self.server == ServerSGD():
            return averaged, metrics
        stepped = {
            name: array if name.endswith(RUNNING) else Array(self._step(name, array.numpy()))
            for name, array in averaged.items()
        }
        self._sent = {}  # no part of what is remembered
        return ArrayRecord(stepped), metrics

    def _step(self, name: str, average: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One array after the round."""
        server, start = self.server, self._sent[name]
        change = average.astype(np.float64) - start
        first = self.first.get(name, np.zeros_like(change))
        if isinstance(server, ServerAdam):
            first = server.beta1 * first + (1.0 - server.beta1) * change
            second = self.second.get(name, np.zeros_like(change))
            second = server.beta2 * second + (1.0 - server.beta2) * change**2
            self.second[name] = second
            moved = server.learning_rate * first / (np.sqrt(second) + server.epsilon)
        else:
            moved = server.now * change + server.kept * first
            first = server.momentum * first + change
        self.first[name] = first
        return np.asarray(start + moved).astype(start.dtype)


def steps_of(client: ClientSGD | ClientAdam, base: Strategy) -> Optimiser | None:
    """How clients step, and the server by a base strategy; None where that cannot be told.

    It cannot behind a wrapper, which may be there to hide what devices know, nor of Flower's adaptive
    strategies.

    Parameters
    ----------
    client : ClientSGD or ClientAdam
    base : Strategy
        Others than those that step are taken for averaging.
    """
    if innermost(base) is not base or isinstance(base, FedAdagrad | FedAdam | FedYogi):
        return None
    if isinstance(base, FedAvgM):
        return Optimiser(client, ServerSGD(base.server_learning_rate, base.server_momentum))
    return Optimiser(client, base.server if isinstance(base, ServerOptimiser) else ServerSGD())


def keep_running_statistics(
    base: Strategy, arrays: ArrayRecord | None, replies: list[Message], weight_key: str
) -> ArrayRecord | None:
    """What a strategy of Flower's made of a round, with running statistics averaged where it stepped them.

    Parameters
    ----------
    base : Strategy
        Others than those that step every array are left alone: they may have reasons of their own.
    arrays : ArrayRecord or None
        The model that it made.
    replies : list of Message
        What it made it from.
    weight_key : str
        The metric that weights them.
    """
    if arrays is None or not isinstance(base, STEPPING):
        return arrays
    running = [name for name in arrays if name.endswith(RUNNING)]
    usable = [reply.content for reply in replies if reply.has_content()]
    if not running or not usable:
        return arrays
    averaged = aggregate_arrayrecords(usable, weight_key)
    return ArrayRecord({name: averaged[name] if name in running else arrays[name] for name in arrays})

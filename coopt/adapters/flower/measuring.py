"""Measure the nodes between two rounds, where the planner wants that and the nodes can do it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from logging import getLogger

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, RecordDict
from flwr.app import Message as FlowerMessage

from coopt.adapters.flower.client_measuring import Layout
from coopt.adapters.flower.exchange import Exchange
from coopt.adapters.flower.records import MEASURE, pack_message, read_arrays, unpack_message
from coopt.errors import InvalidProblemError, MeasurementWarning
from coopt.measuring.exchange import measure_clients
from coopt.measuring.measurement import Measurement
from coopt.measuring.message import Message
from coopt.objectives.forecast.optimiser import ClientAdam, Optimiser
from coopt.online.measure_request import LEFT_OUT, MeasureRequest
from coopt.online.planner import Planner

logger = getLogger("flwr")


def measure_where_wanted(
    planner: Planner,
    exchange: Exchange,
    arrays: ArrayRecord,
    optimiser: Optimiser | None,
    seed: int,
    begins: Callable[[float, float], object],
) -> None:
    """Measure the present model if the planner wants that, and tell it.

    Nodes that have not said that they can be measured are not asked. Where devices that are there and can do
    it have too little of the data, nothing is asked of anybody, and the planner goes on by the reports.

    Parameters
    ----------
    planner : Planner
    exchange : Exchange
    arrays : ArrayRecord
        The present model.
    optimiser : Optimiser or None
        What nodes and server train with. Where that is unknown, or no forecast knows it, nothing is asked of
        anybody; nor with Adam on the nodes, which measure no parameter in units of its own.
    seed : int
        Of the run.
    begins : callable
        Told the cost of what is about to be measured, and the most seconds that it takes.
    """
    if optimiser is None or not optimiser.forecastable or isinstance(optimiser.client, ClientAdam):
        return
    nodes = exchange.measuring()
    here = np.isin(np.arange(len(planner.fleet)), list(nodes))
    if planner.fleet.weights[~here].sum() > LEFT_OUT + 1e-9:
        return  # too much of the data is not there
    wanted = planner.wants()
    if wanted is None:
        return
    rows = np.where(here, wanted.rows, 0)
    if not rows.any():
        return
    begins(wanted.cost, wanted.exchanges * wanted.deadline)
    began = time.monotonic()
    logger.info("coopt: measures %d devices in %d exchanges", int((rows > 0).sum()), wanted.exchanges)
    found = _measured(planner, exchange, arrays, rows, wanted, seed)
    planner.measured(found, seconds=time.monotonic() - began, optimiser=optimiser)


def _measured(
    planner: Planner,
    exchange: Exchange,
    arrays: ArrayRecord,
    rows: npt.NDArray[np.int64],
    wanted: MeasureRequest,
    seed: int,
) -> Measurement | None:
    """What the devices have found; None where none of them answered."""
    model = read_arrays(arrays)
    ends = time.monotonic() + planner.time_left

    def ask(message: Message, devices: Sequence[int]) -> Iterable[tuple[int, Message]]:
        nodes = exchange.measuring()
        outgoing = [
            FlowerMessage(_content(message, arrays, int(rows[i])), nodes[i], MEASURE)
            for i in devices
            if i in nodes
        ]
        wait = max(min(wanted.deadline, ends - time.monotonic()), 0.0)
        _, replies = exchange.ask(outgoing, round=planner.round, seconds=wait)
        answers = []
        for reply in replies:
            try:
                if reply.message.has_error():
                    raise InvalidProblemError(reply.message.error.reason or "it failed")
                answers.append((reply.sent.device, unpack_message(reply.message.content)))
            except InvalidProblemError as error:
                logger.warning("coopt: device %d is not measured: %s", reply.sent.device, error)
        return answers

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MeasurementWarning)
            found = measure_clients(
                ask,
                Layout.of(model).flat(model),
                planner.fleet.samples,
                rows=rows,
                directions=wanted.directions,
                seed=seed + wanted.seed,
                weights=planner.samples / planner.samples.sum(),
                left_out=np.flatnonzero(rows == 0),
                progress=False,
            )
    except InvalidProblemError as error:
        logger.warning("coopt: nothing was measured: %s", error)
        return None
    for each in caught:
        logger.info("coopt: measuring: %s", each.message)
    return found


def _content(message: Message, arrays: ArrayRecord, rows: int) -> RecordDict:
    """The records of a message: the model goes as Flower has it, and each device hears of its own rows."""
    values = dict(message.values)
    if values.pop("parameters", None) is None:
        return pack_message(message)
    return pack_message(Message(message.kind, values | {"rows": np.array(rows)}), arrays)

"""Which replies to use: a node may fail, send another model's arrays, or a report that nobody can read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from logging import getLogger
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from coopt.adapters.flower.records import ARRAYS, METRICS, REPORT, VECTORS, read_array, unpack_report
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flwr.app import Message

    from coopt.adapters.flower.mailbox import Reply
    from coopt.measuring.report import ClientReport

logger = getLogger("flwr")


@dataclass(frozen=True)
class Contribution:
    """What one device sent back.

    Attributes
    ----------
    device : int
        Index of the device in the fleet.
    message : Message
        The reply.
    arrays : ArrayRecord or None
        Its model, if it has the shape of the one sent and is finite.
    report : ClientReport or None
        Its report, if it can be read.
    seconds : float
        How long it took by the server's clock [s].
    """

    device: int
    message: Message
    arrays: ArrayRecord | None
    report: ClientReport | None
    seconds: float


def read_reply(reply: Reply, model: ArrayRecord) -> Contribution:
    """Read a reply to a training message; what cannot be used is logged and left out.

    Parameters
    ----------
    reply : Reply
        What arrived.
    model : ArrayRecord
        The model that was sent, to compare with.

    Returns
    -------
    Contribution
        The usable parts. Device and round are those of the message answered, whatever the client says, and
        everything that is not computing counts as communication: starting a process, waiting in a queue.
    """
    sent = reply.sent
    arrays, report = None, None
    try:
        if reply.message.has_error():
            raise InvalidProblemError(reply.message.error.reason or "an error without a reason")
        arrays = _model_in(reply.message.content, model)
        report = unpack_report(reply.message.content)
        report = replace(report, client=sent.device, round=sent.round)
        computing = report.seconds_computing if report.seconds_computing <= reply.seconds else math.nan
        report = replace(report, seconds_computing=computing, seconds_communicating=reply.seconds - computing)
    except InvalidProblemError as error:
        logger.warning("device %d, round %d: %s", sent.device, sent.round, error)
    return Contribution(sent.device, reply.message, arrays, report, reply.seconds)


def answer_times(contributions: Iterable[Contribution], devices: int) -> npt.NDArray[np.float64]:
    """When each device's reply came, infinite where none did, shape (devices,) [s]."""
    found = np.full(devices, np.inf)
    for item in contributions:
        found[item.device] = item.seconds
    return found


def _model_in(content: RecordDict, model: ArrayRecord) -> ArrayRecord:
    candidates = [record for key, record in content.array_records.items() if key != VECTORS]
    if len(candidates) != 1:
        raise InvalidProblemError(f"the reply has {len(candidates)} ArrayRecords with a model, not one")
    (found,) = candidates
    if found.keys() != model.keys():
        raise InvalidProblemError("the reply's model has other arrays than the one that was sent")
    for name, array in found.items():
        values, expected = read_array(name, array), tuple(model[name].shape)
        if values.shape != expected:
            raise InvalidProblemError(f"array {name!r} of the reply has shape {values.shape}, not {expected}")
        if not np.all(np.isfinite(values)):
            raise InvalidProblemError(f"array {name!r} of the reply is not finite")
    return found


def to_aggregate(
    contributions: Iterable[Contribution], weights: Mapping[int, float], weight_key: str
) -> list[Message]:
    """Make of the usable replies what Flower's strategies accept.

    Flower's aggregation wants one ArrayRecord and one MetricRecord with the same keys everywhere, and a
    scalar weight: metrics that not all replies have are left out, and the weights are the server's own, so
    that no client chooses its influence.
    """
    usable = [
        (result, result.arrays, _metrics_in(result.message.content))
        for result in sorted(contributions, key=lambda result: result.device)
        if result.arrays is not None and weights[result.device] > 0
    ]
    if not usable:
        return []
    first = usable[0][2]
    common = [key for key in first if all(_same_form(first[key], other.get(key)) for _, _, other in usable)]
    messages = []
    for result, arrays, metrics in usable:
        kept = {key: metrics[key] for key in common} | {weight_key: weights[result.device]}
        result.message.content = RecordDict({ARRAYS: arrays, METRICS: MetricRecord(kept)})
        messages.append(result.message)
    return messages


def _metrics_in(content: RecordDict) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, record in content.metric_records.items():
        if key != REPORT:
            found |= dict(record)
    return found


def _same_form(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other)
    return isinstance(other, (int, float))

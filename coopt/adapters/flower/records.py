"""What server and clients write into Flower's records, and how each reads it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from coopt.errors import InvalidProblemError
from coopt.measuring.message import Message
from coopt.measuring.report import ClientReport
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD, Optimiser

QUERY = "query.coopt"
MEASURE = "query.coopt_measure"
REPORT = "coopt"
VECTORS = "coopt-vectors"
ARRAYS = "arrays"
METRICS = "metrics"
MEASURING = "coopt-measure"
MEASURED = "coopt-measured"
DEVICE = "device"
NUM_EXAMPLES = "num-examples"
MEASURES = "measures"
OPTIMISER = "optimiser"
PLAIN = ClientSGD()
_VECTOR_NAMES = ("gradient", "change")


@dataclass(frozen=True)
class Task:
    """What one device is asked to do in one round.

    Attributes
    ----------
    round : int
        Number of the round, from 0.
    device : int
        Index of the device in the fleet.
    local_steps : int
        tau.
    batch_size : int
        s_i of this device.
    learning_rate : float
        eta.
    probe : bool
        Whether to evaluate one more gradient, see `ClientProbe.end`.
    seed : int
        Seed of the training; mini-batches are drawn from it, the device and the round.
    micro_batch : int, default 0
        Most samples of a batch that this device takes at once, adding up the gradients; 0: all of them.
    optimiser : ClientSGD or ClientAdam
        What it does with gradients. It begins with an empty memory.

    Examples
    --------
    >>> task = Task(round=0, device=2, local_steps=5, batch_size=8, learning_rate=0.1, probe=True, seed=0)
    >>> task.to_config()["batch-size"], Task.from_config(task.to_config()) == task
    (8, True)
    """

    round: int
    device: int
    local_steps: int
    batch_size: int
    learning_rate: float
    probe: bool
    seed: int
    micro_batch: int = 0
    optimiser: ClientSGD | ClientAdam = PLAIN

    def to_config(self) -> dict[str, int | float | bool]:
        """Name the values as Flower's configurations do: ``local-steps``, ``batch-size``."""
        values = {name.replace("_", "-"): value for name, value in vars(self).items() if name != OPTIMISER}
        if self.optimiser != PLAIN:
            told = Optimiser(client=self.optimiser).to_dict()["client"]
            values |= {f"{OPTIMISER}-{name}": value for name, value in told.items()}
        return values

    @classmethod
    def from_config(cls, config: dict[str, Any] | ConfigRecord) -> Self:
        """Rebuild what `to_config` wrote; other entries are left alone.

        Raises
        ------
        InvalidProblemError
            If an entry is missing, or the optimiser is none that is known.
        """
        names = {name: name.replace("_", "-") for name in cls.__dataclass_fields__}
        optional = ("micro_batch", OPTIMISER)
        if missing := [key for name, key in names.items() if name not in optional and key not in config]:
            raise InvalidProblemError(
                f"the server's configuration lacks {missing[0]!r}: does it use CoOptStrategy?"
            )
        values: dict[str, Any] = {name: config[key] for name, key in names.items() if key in config}
        told = {
            key.removeprefix(f"{OPTIMISER}-"): config[key]
            for key in config
            if key.startswith(f"{OPTIMISER}-")
        }
        if told:
            values[OPTIMISER] = Optimiser.from_dict({"client": told, "server": {"kind": "sgd"}}).client
        return cls(**values)


def task_of(content: RecordDict) -> Task:
    """Find the task in what a client received.

    Raises
    ------
    InvalidProblemError
        If there is none.
    """
    merged: dict[str, Any] = {}
    for record in content.config_records.values():
        merged |= dict(record)
    return Task.from_config(merged)


def with_task(content: RecordDict, task: Task) -> RecordDict:
    """Copy a message's records with the task in its configuration: Flower's strategies share one for all."""
    records = dict(content)
    key = next(iter(content.config_records), "config")
    records[key] = ConfigRecord(dict(content.config_records.get(key, {})) | task.to_config())
    return RecordDict(records)


def pack_report(report: ClientReport) -> dict[str, MetricRecord | ArrayRecord]:
    """Turn a report into the records that carry it: scalars, and the vectors if there are any."""
    records: dict[str, MetricRecord | ArrayRecord] = {REPORT: MetricRecord(dict(report.to_scalars()))}
    vectors = {name: getattr(report, name) for name in _VECTOR_NAMES}
    if present := {name: Array(vector) for name, vector in vectors.items() if vector is not None}:
        records[VECTORS] = ArrayRecord(present)
    return records


def unpack_report(content: RecordDict) -> ClientReport:
    """Read the report in a reply.

    Raises
    ------
    InvalidProblemError
        If there is none, or it is malformed.
    """
    scalars = content.metric_records.get(REPORT)
    if scalars is None:
        raise InvalidProblemError(f"the reply has no MetricRecord {REPORT!r}")
    record = content.array_records.get(VECTORS, ArrayRecord())
    vectors = {name: read_array(name, record[name]) for name in _VECTOR_NAMES if name in record}
    return ClientReport.from_scalars(dict(scalars), **vectors)


def read_array(name: str, array: Array) -> npt.NDArray[Any]:
    """Unpack an array that came from a client.

    Raises
    ------
    InvalidProblemError
        If it is malformed or holds no numbers.
    """
    try:
        values = array.numpy()
    except (TypeError, ValueError, OSError, EOFError) as error:
        raise InvalidProblemError(f"array {name!r} cannot be read: {error}") from error
    if values.dtype.kind not in "biuf":
        raise InvalidProblemError(f"array {name!r} holds {values.dtype}, not numbers")
    return values


def read_arrays(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """Unpack all arrays of a record, as :func:`read_array` does."""
    return {name: read_array(name, array) for name, array in record.items()}


def pack_message(message: Message, arrays: ArrayRecord | None = None) -> RecordDict:
    """Turn a message of a measurement into the records that carry it, with a model if one is given."""
    values = {name: Array(np.asarray(value)) for name, value in message.values.items()}
    content = RecordDict({MEASURING: ConfigRecord({"kind": message.kind}), MEASURED: ArrayRecord(values)})
    if arrays is not None:
        content[ARRAYS] = arrays
    return content


def unpack_message(content: RecordDict) -> Message:
    """Read the message of a measurement.

    Raises
    ------
    InvalidProblemError
        If there is none, or it is malformed.
    """
    kind = content.config_records.get(MEASURING, ConfigRecord()).get("kind")
    if not isinstance(kind, str):
        raise InvalidProblemError(f"the message has no ConfigRecord {MEASURING!r} with its kind")
    record = content.array_records.get(MEASURED, ArrayRecord())
    return Message(kind, {name: read_array(name, array) for name, array in record.items()})

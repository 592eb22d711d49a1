"""What a Flower client needs: read the task, do it, reply with the model and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from coopt.adapters.flower.client_measuring import Model, ModelGradient, answer_measurements
from coopt.adapters.flower.records import (
    ARRAYS,
    DEVICE,
    MEASURES,
    METRICS,
    NUM_EXAMPLES,
    QUERY,
    REPORT,
    Task,
    pack_report,
    read_arrays,
    task_of,
)
from coopt.errors import InvalidProblemError
from coopt.measuring.report import ClientReport

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from coopt.adapters.torch import FlatModel, ProbeOptions

__all__ = ["Task", "answer_queries", "client_app", "partition_id", "reply", "task_of", "torch_client_app"]


def partition_id(context: Context) -> int:
    """Give the index of this device in the fleet: Flower's ``partition-id``.

    The simulation engine sets it; a SuperNode is started with ``--node-config "partition-id=0"``.

    Raises
    ------
    InvalidProblemError
        If it is missing.
    """
    if "partition-id" not in context.node_config:
        raise InvalidProblemError(
            'this node has no partition-id: start it with --node-config "partition-id=0" and so on, or give '
            "a function of your own as `device`"
        )
    return int(context.node_config["partition-id"])


def answer_queries(
    app: ClientApp,
    samples: Callable[[Context], int],
    device: Callable[[Context], int] = partition_id,
    *,
    gradient: ModelGradient | None = None,
    data: Callable[[Context], Any] | None = None,
) -> None:
    """Let an app answer the server's question which device it is, and how much it holds.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
        The app.
    samples : callable
        ``samples(context) -> int``: samples that this device holds.
    device : callable, optional
        ``device(context) -> int``: index of this device in the fleet; by default the partition id.
    gradient, data : callable, optional
        For devices that can be measured between rounds, so that the controller plans by a forecast; without
        them it plans by the reports alone. ``data(context)`` gives this device's rows, with ``len()`` and
        indexing by an array of integers, or a tuple of arrays; ``gradient(model, rows) -> (loss, gradient)``
        the mean loss over some of them at a dictionary of numpy arrays, and its derivative as such a
        dictionary. It is the same for the same arguments: without dropout, and with batch normalisation in
        evaluation mode.

    Raises
    ------
    InvalidProblemError
        If only one of `gradient` and `data` is given.
    """
    if (gradient is None) != (data is None):
        raise InvalidProblemError("gradient and data belong together: give both, or none")

    def answer(message: Message, context: Context) -> Message:
        told = MetricRecord({DEVICE: device(context), NUM_EXAMPLES: samples(context)})
        if gradient is not None:
            told[MEASURES] = 1
        return Message(RecordDict({REPORT: told}), reply_to=message)

    app.query(QUERY.partition(".")[2])(answer)
    if gradient is not None and data is not None:
        answer_measurements(app, gradient, data, device)


def reply(
    message: Message,
    arrays: ArrayRecord,
    report: ClientReport,
    metrics: Mapping[str, int | float] | None = None,
) -> Message:
    """Make the answer to a training message.

    Parameters
    ----------
    message : Message
        What the server sent.
    arrays : ArrayRecord
        The model after the last local step.
    report : ClientReport
        What :meth:`coopt.ClientProbe.end` returned.
    metrics : mapping, optional
        Metrics of your own, for the base strategy to aggregate; all clients give the same names.

    Returns
    -------
    Message
        With the number of examples that Flower's strategies ask for.
    """
    key = next(iter(message.content.array_records), ARRAYS)
    shown = MetricRecord()
    shown.update(metrics or {})
    shown[NUM_EXAMPLES] = report.samples
    return Message(RecordDict({key: arrays, METRICS: shown, **pack_report(report)}), reply_to=message)


def client_app(
    train: Callable[[Model, Task, Context], tuple[Model, ClientReport]],
    samples: Callable[[Context], int],
    *,
    device: Callable[[Context], int] = partition_id,
    gradient: ModelGradient | None = None,
    data: Callable[[Context], Any] | None = None,
) -> ClientApp:
    """Make a ClientApp of a training function in any framework.

    Parameters
    ----------
    train : callable
        ``train(model, task, context) -> (model, report)``: a model is a dictionary of numpy arrays.
    samples : callable
        ``samples(context) -> int``: samples that this device holds.
    device : callable, optional
        ``device(context) -> int``: index of this device in the fleet; by default the partition id.
    gradient, data : callable, optional
        As :func:`answer_queries` takes them, for devices that can be measured.

    Returns
    -------
    flwr.clientapp.ClientApp
        Trains and answers the server's questions; an ``@app.evaluate()`` of your own may be added.
    """
    app = ClientApp()
    answer_queries(app, samples, device, gradient=gradient, data=data)

    @app.train()
    def run(message: Message, context: Context) -> Message:
        record = next(iter(message.content.array_records.values()))
        model, report = train(read_arrays(record), task_of(message.content), context)
        arrays = {name: Array(np.asarray(values)) for name, values in model.items()}
        return reply(message, ArrayRecord(arrays), report)

    return app


def torch_client_app(
    model: Callable[[], FlatModel],
    data: Callable[[Context], tuple[Tensor, Tensor] | Dataset[Any]],
    *,
    device: Callable[[Context], int] = partition_id,
    probe: ProbeOptions | None = None,
    replacement: bool = True,
) -> ClientApp:
    """Make a ClientApp that trains a torch module as the task says, and as :mod:`coopt.adapters.torch` does.

    Parameters
    ----------
    model : callable
        ``model() -> FlatModel``: module, loss and weight decay.
    data : callable
        ``data(context) -> (inputs, targets)``: this device's samples, tensors of shape ``(d, ...)``; or a
        torch data set of such pairs.
    device : callable, optional
        ``device(context) -> int``: index of this device in the fleet; by default the partition id.
    probe : ProbeOptions, optional
        What to measure; by default a pair of models of the same round, since a client's process ends with
        the round, and sketched gradients.
    replacement : bool, default True
        Whether mini-batches are drawn with replacement.

    Returns
    -------
    flwr.clientapp.ClientApp
        Trains, and answers the server's questions, those of a measurement included; an ``@app.evaluate()`` of
        your own may be added.

    Raises
    ------
    InvalidProblemError
        If `model` is a module instead of a function that makes one, or `data` is no function.

    Notes
    -----
    Given the same seed, plans and data, clients compute what those of `FederatedTrainer` do: a mini-batch
    depends on seed, round and device alone. The proximal term that FedProx asks of clients is not among it:
    a message that asks for one is answered with an error.
    """
    from torch import from_numpy

    from coopt.adapters.torch import LocalWork, ProbeOptions, local_update
    from coopt.adapters.torch.data import tensors_of

    _require_functions(model, data)
    options = ProbeOptions(pair="same", vectors="sketch") if probe is None else probe
    app = ClientApp()

    def held(context: Context) -> tuple[Tensor, Tensor]:
        return tensors_of("data(context)", data(context))

    # One does for all gradients of a process. Simulated nodes get this app pickled, so it is a plain list.
    made: list[FlatModel] = []

    def gradient(arrays: Model, rows: tuple[Tensor, Tensor]) -> tuple[float, Model]:
        if not made:
            made.append(model())
        workspace = made[0]
        workspace.module.load_state_dict({name: from_numpy(array) for name, array in arrays.items()})
        workspace.module.eval()
        inputs, targets = (part.to(workspace.device) for part in rows)
        loss = workspace.evaluate(inputs, targets)
        trained = {
            name: parameter.grad.cpu().numpy()
            for name, parameter in workspace.module.named_parameters()
            if parameter.grad is not None
        }
        return float(loss), trained

    answer_queries(app, lambda context: len(held(context)[1]), device, gradient=gradient, data=held)

    @app.train()
    def run(message: Message, context: Context) -> Message:
        task = task_of(message.content)
        if any(record.get("proximal-mu") for record in message.content.config_records.values()):
            raise InvalidProblemError(
                "FedProx adds a proximal term to the clients' loss, and this client has none: use another "
                "base strategy, or a training loop of your own with `task_of` and `reply`"
            )
        workspace = model()
        record = next(iter(message.content.array_records.values()))
        workspace.module.load_state_dict(record.to_torch_state_dict())
        inputs, targets = held(context)
        state, report = local_update(
            workspace,
            workspace.state.clone(),
            inputs.to(workspace.device),
            targets.to(workspace.device),
            LocalWork(
                task.round,
                task.local_steps,
                task.batch_size,
                task.learning_rate,
                task.probe,
                task.micro_batch or None,
            ),
            client=task.device,
            seed=task.seed,
            probe=options,
            replacement=replacement,
            optimiser=task.optimiser,
        )
        workspace.state.copy_(state)
        return reply(message, ArrayRecord(workspace.module.state_dict()), report)

    return app


def _require_functions(model: object, data: object) -> None:
    """Raise InvalidProblemError where a module or samples are given instead of functions that make them."""
    from torch import nn

    kind = model if isinstance(model, type) else type(model)
    if issubclass(kind, nn.Module):
        raise InvalidProblemError(
            f"model is the module {kind.__name__} itself: must be a function that gives it with its loss: "
            f"lambda: FlatModel({kind.__name__}(), loss)"
        )
    if not callable(data):
        raise InvalidProblemError(
            f"data is a {type(data).__name__}: must be a function of the context, giving the node's samples"
        )

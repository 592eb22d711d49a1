"""A Flower grid in this process: nodes run real ClientApps, on a clock that only sleeping moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from coopt import ClientProbe, ClientReport
from coopt.adapters.draws import draw_positions
from coopt.adapters.flower.client import Task, client_app, task_of

DIMENSION = 3


class FakeTime:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


def install_clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """Let the strategy live on a simulated clock, in a process that looks like Flower's server."""
    fake = FakeTime()
    for module in ("mailbox", "exchange", "measuring", "samples", "strategy"):
        monkeypatch.setattr(f"coopt.adapters.flower.{module}.time", fake)
    for name in ("_run_id", "_node_id", "_task_id"):  # Flower sets them where it starts a server
        monkeypatch.setattr(TaskIdentity, name, 1)
    return fake


@dataclasses.dataclass
class Node:
    """A node: the device that it says it is, its app, how long it takes, and what goes wrong."""

    device: int
    app: ClientApp
    seconds: Callable[[Message], float] = lambda message: 1.0
    fails: Callable[[Message], bool] = lambda message: False
    spoil: Callable[[Message], Message] = lambda reply: reply
    received: list[Message] = dataclasses.field(default_factory=list)
    state: RecordDict = dataclasses.field(default_factory=RecordDict)


class FakeGrid(Grid):
    """Nodes by id; those not in `online` are not connected."""

    def __init__(self, clock: FakeTime, nodes: dict[int, Node]) -> None:
        self.clock = clock
        self.nodes = nodes
        self.online: Callable[[], Iterable[int]] = lambda: self.nodes
        self.on_push: Callable[[Message], None] = lambda message: None
        self._replies: dict[str, tuple[float, Message]] = {}
        self._sent = 0

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        raise AssertionError("waits without regard to the deadline")

    def get_node_ids(self) -> list[int]:
        return [node for node in self.online() if node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            self.on_push(message)
            self._sent += 1
            message.metadata.__dict__["_message_id"] = f"message {self._sent}"
            node = self.nodes[message.metadata.dst_node_id]
            node.received.append(message)
            ids.append(message.metadata.message_id)
            seconds = node.seconds(message)
            if seconds <= message.metadata.ttl:
                self._replies[ids[-1]] = (self.clock.now + seconds, self._answer(node, message))
        return ids

    def _answer(self, node: Node, message: Message) -> Message:
        if node.fails(message):
            return Message(Error(8, "the app crashed"), reply_to=message)
        context = Context(1, message.metadata.dst_node_id, {"partition-id": node.device}, node.state, {})
        try:
            return node.spoil(node.app(message, context))
        except ValueError as error:
            return Message(Error(2, str(error)), reply_to=message)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        due = [key for key in message_ids if key in self._replies and self._replies[key][0] <= self.clock.now]
        return [self._replies.pop(key)[1] for key in due]


class Quadratic:
    """Devices with F(w) = mean of |w - x|^2 / 2 over their samples, which compute at a given speed."""

    def __init__(self, samples: list[int], *, throughput: float = 100.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.data = [rng.normal(size=(n, DIMENSION)) + rng.normal(size=DIMENSION) for n in samples]
        self.throughput = throughput
        self.tasks: list[Task] = []

    def node(self, device: int, *, measured: bool = False, **behaviour: Any) -> Node:
        """A node, and whether it can be measured."""
        asked: dict[str, Any] = {"gradient": self.gradient, "data": lambda context: self.data[device]}
        app = client_app(self.train, lambda context: len(self.data[device]), **(asked if measured else {}))
        return Node(device, app, **behaviour)

    @staticmethod
    def gradient(model: dict[str, np.ndarray], rows: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """Mean loss over some rows, and its derivative by each array."""
        error = model["w"] - rows
        return 0.5 * float(np.mean(np.sum(error**2, axis=1))), {"w": error.mean(axis=0)}

    def train(
        self, model: dict[str, np.ndarray], task: Task, context: Context
    ) -> tuple[dict[str, np.ndarray], ClientReport]:
        self.tasks.append(task)
        data = self.data[task.device]
        steps = np.arange(task.local_steps + 1)
        batches = draw_positions(
            task.seed, task.round, task.device, len(data), steps=steps, sizes=task.batch_size
        )[0]
        seconds = 0.0

        def gradient(w: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal seconds
            seconds += len(batch) / self.throughput
            error = w - data[batch]
            return 0.5 * float(np.mean(np.sum(error**2, axis=1))), error.mean(axis=0)

        first = list(batches[0])
        probe = ClientProbe(
            task.device,
            gradient,
            lambda size: np.array([first.pop(0) for _ in range(size)]),
            pair="same",
            clock=lambda: seconds,
        )
        start = model["w"].astype(np.float64)
        rate = task.learning_rate
        local = start - rate * probe.begin(start, round=task.round, batch_size=task.batch_size)
        for batch in batches[1 : task.local_steps]:
            local = local - rate * gradient(local, batch)[1]
        report = probe.end(
            local, samples=len(data), local_steps=task.local_steps, extra_evaluation=task.probe
        )
        return {"w": local}, report


def is_training(message: Message) -> bool:
    return bool(message.metadata.message_type == MessageType.TRAIN)


def tasks_of(node: Node) -> list[Task]:
    """What the server asked a node to do."""
    return [task_of(message.content) for message in node.received if is_training(message)]

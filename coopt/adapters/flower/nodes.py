"""Which node is which device: nodes come and go under ids that Flower chooses, devices stay."""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING, Any

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from coopt.adapters.flower.records import DEVICE, MEASURES, NUM_EXAMPLES, QUERY, REPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coopt.adapters.flower.mailbox import Reply

logger = getLogger("flwr")

ATTEMPTS = 3  # times that a node is asked before it is taken for one that has no answer


class Nodes:
    """The nodes that are connected, and the device that each says it is.

    A node that nobody knows is asked once it appears, with a message of type ``query.coopt``. A device that
    comes back under a new id takes the place of the old one: the latest claim holds.

    Parameters
    ----------
    devices : int
        Devices in the fleet, N.

    Attributes
    ----------
    samples : dict
        Samples that each device said it holds.
    empty : set of int
        Devices that said they hold none: there is nothing that they could train on.
    measuring : set of int
        Devices that said they can be measured.
    refused : dict
        What each node said last that does not say which device it is.
    """

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self.samples: dict[int, int] = {}
        self.empty: set[int] = set()
        self.measuring: set[int] = set()
        self.refused: dict[int, str] = {}
        self._device_of: dict[int, int] = {}
        self._attempts: dict[int, int] = {}
        self._connected: set[int] = set()

    def look(self, grid: Grid) -> None:
        """See who is connected."""
        self._connected = set(grid.get_node_ids())
        # A node that went away and came back may have been mended.
        self._attempts = {node: k for node, k in self._attempts.items() if node in self._connected}

    def resize(self, devices: int) -> None:
        """Know that the fleet has so many devices now; nodes that were none of them are asked again."""
        if devices != self._devices:
            self._devices = devices
            self._attempts = {}

    def to_ask(self, busy: set[int]) -> list[Message]:
        """Make the questions to those who are new."""
        new = [
            node
            for node in sorted(self._connected - self._device_of.keys() - busy)
            if self._attempts.get(node, 0) < ATTEMPTS
        ]
        for node in new:
            self._attempts[node] = self._attempts.get(node, 0) + 1
        return [Message(RecordDict(), node, QUERY) for node in new]

    def take(self, reply: Reply) -> None:
        """Take in the answer to a query."""
        node = reply.sent.node
        try:
            device, samples = self._read(reply)
        except ValueError as error:
            logger.warning("node %d does not say which device it is: %s", node, error)
            self.refused[node] = str(error)
            return
        self.refused.pop(node, None)
        former = self.connected().get(device)
        if former is not None and former != node:
            logger.warning("device %d is now node %d, before it was node %d", device, node, former)
        self._device_of = {old: index for old, index in self._device_of.items() if index != device}
        self._device_of[node] = device
        self.samples[device] = samples
        able = reply.message.content.metric_records[REPORT].get(MEASURES, 0) == 1
        self.measuring = self.measuring | {device} if able else self.measuring - {device}

    def connected(self) -> dict[int, int]:
        """Node of each device that is known and connected."""
        return {device: node for node, device in sorted(self._device_of.items()) if node in self._connected}

    def devices(self) -> dict[int, int]:
        """Device of each node that is known, connected or not."""
        return dict(self._device_of)

    def undecided(self, busy: set[int]) -> bool:
        """Whether a connected node has been asked and may still answer."""
        return bool((self._connected - self._device_of.keys()) & busy)

    def hopeless(self) -> str:
        """What a node said, if every one that is connected has been asked in vain; else empty."""
        given_up = {node for node in self.refused if self._attempts.get(node, 0) >= ATTEMPTS}
        return self.refused[min(given_up)] if given_up and given_up >= self._connected else ""

    def _read(self, reply: Reply) -> tuple[int, int]:
        if reply.message.has_error():
            raise ValueError(reply.message.error.reason)
        answer = reply.message.content.metric_records.get(REPORT, MetricRecord())
        device, samples = answer.get(DEVICE), answer.get(NUM_EXAMPLES)
        if not isinstance(device, int) or not 0 <= device < self._devices:
            raise ValueError(f"device = {device!r}: valid are 0 to {self._devices - 1}")
        if samples == 0:
            self.empty.add(device)
        if not isinstance(samples, int) or samples < 1:
            raise ValueError(f"num-examples = {samples!r} of device {device}: at least 1 is valid")
        return device, samples


class Subset(Grid):
    """A grid of which only some nodes are shown, for strategies that choose among all that they see."""

    def __init__(self, grid: Grid, nodes: Sequence[int]) -> None:
        self._grid = grid
        self._nodes = list(nodes)

    def get_node_ids(self) -> Iterable[int]:
        """Give the nodes that are shown."""
        return list(self._nodes)

    def set_run(self, run: Any) -> None:
        """Pass on to the grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """Pass on to the grid."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on to the grid."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on to the grid."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass on to the grid."""
        return self._grid.send_and_receive(messages, timeout=timeout)

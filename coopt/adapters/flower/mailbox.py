"""Send messages to nodes and pick up replies, those that come after their round included."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import Message

if TYPE_CHECKING:
    from flwr.serverapp import Grid


@dataclass(frozen=True)
class Sent:
    """One message that was sent.

    Attributes
    ----------
    message : str
        Its id.
    node : int
        Node that it went to.
    kind : str
        Flower's message type.
    round : int
        Round that it belongs to, from 0.
    device : int
        Device that the node is; -1 for the question which one it is.
    at, expires : float
        When it was sent, and when the node may no longer answer, on `time.monotonic`.
    """

    message: str
    node: int
    kind: str
    round: int
    device: int
    at: float
    expires: float


@dataclass(frozen=True)
class Reply:
    """The answer to a message, and how many seconds it took by the server's clock."""

    sent: Sent
    message: Message
    seconds: float


class Mailbox:
    """Remembers which messages have not been answered.

    `Grid.send_and_receive` forgets a message when its time is up: a slow device would never be measured, and
    would be given new work while it is still busy. It also looks every three seconds only.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Flower's connection to the nodes.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._open: dict[str, Sent] = {}

    def send(
        self,
        messages: Iterable[Message],
        *,
        round: int,
        devices: dict[int, int],
        lifetime: float,
    ) -> list[Sent]:
        """Send messages.

        Parameters
        ----------
        messages : iterable of Message
            What to send; messages that Flower does not accept are left out.
        round : int
            Round that they belong to.
        devices : dict
            Device of each node.
        lifetime : float
            Seconds after which nodes may no longer answer.

        Returns
        -------
        list of Sent
            What was accepted.
        """
        outgoing = [
            Message(
                message.content,
                message.metadata.dst_node_id,
                message.metadata.message_type,
                ttl=lifetime,
                group_id=str(round + 1),
            )
            for message in messages
        ]
        now = time.monotonic()
        accepted = set(self._grid.push_messages(outgoing))
        sent = [
            Sent(
                message=message.metadata.message_id,
                node=message.metadata.dst_node_id,
                kind=message.metadata.message_type,
                round=round,
                device=devices.get(message.metadata.dst_node_id, -1),
                at=now,
                expires=now + lifetime,
            )
            for message in outgoing
            if message.metadata.message_id in accepted
        ]
        self._open |= {item.message: item for item in sent}
        return sent

    def collect(self) -> list[Reply]:
        """Pick up what has arrived; forget what can no longer be answered."""
        if not self._open:
            return []
        found = list(self._grid.pull_messages(list(self._open)))
        now = time.monotonic()
        replies = []
        for message in found:
            # An error that Flower itself writes does not name the node: only the message answered is certain.
            sent = self._open.pop(message.metadata.reply_to_message_id, None)
            if sent is not None:
                replies.append(Reply(sent, message, now - sent.at))
        self._open = {key: sent for key, sent in self._open.items() if sent.expires > now}
        return replies

    def waits_for(self, messages: Iterable[str]) -> bool:
        """Whether any of these messages may still be answered."""
        return not self._open.keys().isdisjoint(messages)

    def busy(self) -> set[int]:
        """Nodes that have not answered a message yet."""
        return {sent.node for sent in self._open.values()}

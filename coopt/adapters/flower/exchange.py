"""Wait for nodes, give them work, and stop waiting at the deadline."""

from __future__ import annotations

import math
import time
from logging import getLogger
from typing import TYPE_CHECKING

from flwr.app import MessageType

from coopt.adapters.flower.mailbox import Mailbox, Reply, Sent
from coopt.adapters.flower.nodes import Nodes, Subset
from coopt.adapters.flower.records import QUERY
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flwr.app import Message
    from flwr.serverapp import Grid

logger = getLogger("flwr")

# How long a node may go on after the server has stopped waiting: its answer still shows how fast it is.
LEAST_GRACE = 60.0
SAY_SO_EVERY = 10.0


class Exchange:
    """The server's side of all traffic with the nodes.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Flower's connection to the nodes.
    devices : int
        Devices in the fleet.
    pause : float
        Seconds between two looks for replies.
    timeout : float
        Seconds that a node has to say which device it is.
    """

    def __init__(self, grid: Grid, *, devices: int, pause: float, timeout: float) -> None:
        self._grid = grid
        self._pause = pause
        self._timeout = timeout
        self._mailbox = Mailbox(grid)
        self._nodes = Nodes(devices)
        self._arrived: list[Reply] = []

    def ready(self) -> dict[int, int]:
        """Node of each device that is connected and has no unanswered message."""
        busy = self._mailbox.busy()
        return {device: node for device, node in self._nodes.connected().items() if node not in busy}

    def grid(self) -> Subset:
        """Show a strategy the nodes that are ready."""
        return Subset(self._grid, list(self.ready().values()))

    def resize(self, devices: int) -> None:
        """Know that the fleet has so many devices now."""
        self._nodes.resize(devices)

    def samples(self) -> dict[int, int]:
        """Samples that each device said it holds."""
        return dict(self._nodes.samples)

    def empty(self) -> list[int]:
        """Devices that said they hold no samples."""
        return sorted(self._nodes.empty)

    def require_answers(self) -> None:
        """Raise InvalidProblemError if every node that is connected was asked which device it is, in vain."""
        if said := self._nodes.hopeless():
            raise InvalidProblemError(
                "no node says which device it is: does the app come from torch_client_app or client_app, or "
                f"call answer_queries? One node says: {said.strip()}"
            )

    def measuring(self) -> dict[int, int]:
        """Node of each device that is ready, and has said that it can be measured."""
        return {device: node for device, node in self.ready().items() if device in self._nodes.measuring}

    def devices(self) -> dict[int, int]:
        """Device of each node that has said so."""
        return self._nodes.devices()

    def wait(self, least: int, *, seconds: float = math.inf, everyone: bool = False) -> bool:
        """Wait for nodes.

        Parameters
        ----------
        least : int
            Nodes that must be ready.
        seconds : float, optional
            Longest wait.
        everyone : bool, default False
            Whether to wait as well for the answers of all nodes that are asked which device they are, and to
            give up where none of those that are connected has one.

        Returns
        -------
        bool
            Whether so many are ready.

        Raises
        ------
        InvalidProblemError
            With `everyone`, if no node that is connected says which device it is.
        """
        began = said = time.monotonic()
        while True:
            self._look()
            if everyone:
                self.require_answers()
            enough = len(self.ready()) >= least
            if enough and not (everyone and self._nodes.undecided(self._mailbox.busy())):
                return True
            now = time.monotonic()
            left = began + seconds - now
            if left <= 0:
                return enough
            if now - said >= SAY_SO_EVERY:
                logger.info("waiting for nodes: %d ready, %d wanted", len(self.ready()), least)
                said = now
            time.sleep(min(self._pause, left))

    def ask(
        self,
        messages: Iterable[Message],
        *,
        round: int,
        seconds: float,
        closes: Callable[[dict[int, float]], float] = lambda answered: math.inf,
    ) -> tuple[list[Sent], list[Reply]]:
        """Send messages, and wait for the replies.

        Parameters
        ----------
        messages : iterable of Message
            What to send.
        round : int
            Round that they belong to.
        seconds : float
            Longest wait.
        closes : callable, optional
            ``closes(answered) -> seconds``: given how many seconds each device took that has answered, when
            to stop waiting for the others; default: never.

        Returns
        -------
        sent : list of Sent
            Messages that Flower accepted.
        replies : list of Reply
            What arrived in time.
        """
        began = time.monotonic()
        lifetime = seconds + max(seconds, LEAST_GRACE)
        sent = self._mailbox.send(messages, round=round, devices=self._nodes.devices(), lifetime=lifetime)
        mine = {item.message for item in sent}
        while True:
            self._look()
            answered = {
                reply.sent.device: reply.seconds for reply in self._arrived if reply.sent.message in mine
            }
            left = began + min(seconds, closes(answered)) - time.monotonic()
            if left <= 0 or not self._mailbox.waits_for(mine):
                break
            time.sleep(min(self._pause, left))
        replies = [reply for reply in self._arrived if reply.sent.message in mine]
        self._arrived = [reply for reply in self._arrived if reply.sent.message not in mine]
        return sent, replies

    def late(self) -> list[Reply]:
        """Hand over the replies to training messages that came after their round."""
        arrived, self._arrived = self._arrived, []
        return [reply for reply in arrived if reply.sent.kind == MessageType.TRAIN]

    def _look(self) -> None:
        self._nodes.look(self._grid)
        if new := self._nodes.to_ask(self._mailbox.busy()):
            self._mailbox.send(new, round=0, devices={}, lifetime=self._timeout)
        for reply in self._mailbox.collect():
            if reply.sent.kind == QUERY:
                self._nodes.take(reply)
            else:
                self._arrived.append(reply)

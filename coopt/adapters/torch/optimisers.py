"""The steps of devices and of the server, on flat vectors of parameters.

What devices do is what torch.optim does with the same numbers, from an empty memory every round. The server
takes the change of the averaged model for a gradient that points downhill; its memory lasts, and belongs to
the checkpoint. Buffers, such as running means and variances, are averaged and never stepped: momentum would
carry a variance below zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD, ServerAdam, ServerSGD
from coopt.problem.validation import shown

# What a server may remember, by name.
_REMEMBERED = ("first", "second", "momentum")


class LocalSteps:
    """The steps of one round, of one client or of several that are stacked.

    Parameters
    ----------
    client : ClientSGD or ClientAdam
    """

    def __init__(self, client: ClientSGD | ClientAdam) -> None:
        self._client = client
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._steps = 0

    @property
    def plain(self) -> bool:
        """Whether a step is the gradient times the rate."""
        return self._client == ClientSGD()

    def step(self, parameters: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Move the parameters, shape (n,) or (B, n), in place; of a stack those in front may go on alone."""
        if isinstance(self._client, ClientAdam):
            self._adam(self._client, parameters, gradient, learning_rate)
        elif self.plain:
            parameters.sub_(gradient, alpha=learning_rate)
        else:
            if self._first is None:
                self._first = torch.zeros_like(gradient)
            memory = self._first[: len(gradient)]
            memory.mul_(self._client.momentum).add_(gradient)
            memory.add_(parameters, alpha=self._client.weight_decay)
            parameters.sub_(memory, alpha=learning_rate)

    def _adam(self, client: ClientAdam, parameters: Tensor, gradient: Tensor, learning_rate: float) -> None:
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(gradient), torch.zeros_like(gradient)
        first, second = self._first[: len(gradient)], self._second[: len(gradient)]
        self._steps += 1
        first.mul_(client.beta1).add_(gradient, alpha=1.0 - client.beta1)
        second.mul_(client.beta2).addcmul_(gradient, gradient, value=1.0 - client.beta2)
        scale = (second / (1.0 - client.beta2**self._steps)).sqrt_().add_(client.epsilon)
        parameters.mul_(1.0 - learning_rate * client.weight_decay)
        parameters.addcdiv_(first, scale, value=-learning_rate / (1.0 - client.beta1**self._steps))


class ServerSteps:
    """The server's steps from round to round.

    Parameters
    ----------
    server : ServerSGD or ServerAdam
    size : int
        Trained parameters, n: what comes behind them in a state is averaged as it is.
    """

    def __init__(self, server: ServerSGD | ServerAdam, size: int) -> None:
        self._server = server
        self._size = size
        self._memory: dict[str, Tensor] = {}

    def step(self, start: Tensor, average: Tensor) -> Tensor:
        """The state after a round that began at `start` and whose models average to `average`."""
        server = self._server
        if server == ServerSGD():
            return average
        size, after = self._size, average.clone()
        change = average[:size].double() - start[:size].double()
        if isinstance(server, ServerAdam):
            first, second = self._remembered("first", change), self._remembered("second", change)
            first.mul_(server.beta1).add_(change, alpha=1.0 - server.beta1)
            second.mul_(server.beta2).addcmul_(change, change, value=1.0 - server.beta2)
            moved = server.learning_rate * first / (second.sqrt() + server.epsilon)
        else:
            memory = self._remembered("momentum", change)
            moved = server.now * change + server.kept * memory
            memory.mul_(server.momentum).add_(change)
        after[:size] = (start[:size].double() + moved).to(start)
        return after

    def _remembered(self, name: str, like: Tensor) -> Tensor:
        if name not in self._memory:
            self._memory[name] = torch.zeros_like(like)
        return self._memory[name]

    def state_dict(self) -> dict[str, Any]:
        """The server's memory, as torch saves it."""
        return dict(self._memory)

    def load_state_dict(self, state: dict[str, Any], like: Tensor) -> None:
        """Go on from what `state_dict` returned, as tensors or arrays, on the device of a tensor.

        Raises
        ------
        InvalidProblemError
            If it is not what this kind of server remembers of so many parameters.
        """
        memory = {}
        for name, value in state.items():
            memory[name] = torch.as_tensor(value).to(like.device, torch.float64)
            if name not in _REMEMBERED or memory[name].shape != (self._size,):
                raise InvalidProblemError(
                    f"server.{shown(name)}: must be one of {', '.join(_REMEMBERED)}, of {self._size} numbers"
                )
        self._memory = memory

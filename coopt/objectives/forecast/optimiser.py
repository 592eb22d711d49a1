"""What devices and server do with gradients and averages: momentum, rates, Nesterov's step, Adam.

Devices start every round with an empty memory; that of the server lasts. Momentum is the heavy ball as torch
has it: u <- beta u + g, z <- z - eta u. The server takes the averaged change D of a round for a step of
gradient descent: u <- beta u + D, z <- z + gamma u, and Nesterov's z <- z + gamma (D + beta u).

References
----------
Reddi et al., "Adaptive Federated Optimization", ICLR 2021, arXiv:2003.00295; Hsu, Qi and Brown, "Measuring
the Effects of Non-Identical Data Distribution for Federated Visual Classification", arXiv:1909.06335, for
FedAvgM; Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models",
arXiv:2311.08105.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from coopt.errors import InvalidProblemError
from coopt.problem.validation import flag, instance, real, shown


@dataclass(frozen=True)
class ClientSGD:
    """Local steps by stochastic gradient descent, with momentum that every round starts anew.

    Parameters
    ----------
    momentum : float, default 0
        beta of the heavy ball, 0 <= beta < 1. With many local steps a step goes as far as one of
        eta / (1 - beta) without momentum.

    Raises
    ------
    InvalidProblemError
        If the momentum is out of range.
    """

    __module__ = "coopt"

    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", _share("momentum", self.momentum))


@dataclass(frozen=True)
class ServerSGD:
    """The server's step along the averaged change, with momentum that lasts.

    Parameters
    ----------
    learning_rate : float, default 1
        gamma > 0; one without momentum is plain averaging.
    momentum : float, default 0
        beta, 0 <= beta < 1 (FedAvgM).
    nesterov : bool, default False
        Nesterov's step in place of the heavy ball's (the outer step of DiLoCo).

    Raises
    ------
    InvalidProblemError
        If a value is out of range.
    """

    __module__ = "coopt"

    learning_rate: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        rate = real("learning_rate of the server", self.learning_rate, minimum=0.0, strict=True)
        object.__setattr__(self, "learning_rate", rate)
        object.__setattr__(self, "momentum", _share("momentum of the server", self.momentum))
        object.__setattr__(self, "nesterov", flag("nesterov", self.nesterov))

    @property
    def now(self) -> float:
        """What a step takes of the present change."""
        return self.learning_rate * (1.0 + self.momentum if self.nesterov else 1.0)

    @property
    def kept(self) -> float:
        """What a step takes of the momentum before it."""
        return self.learning_rate * self.momentum * (self.momentum if self.nesterov else 1.0)


@dataclass(frozen=True)
class Optimiser:
    """How devices and server step; by default plain federated averaging.

    Parameters
    ----------
    client : ClientSGD
        What devices do with gradients, at the learning rate of the plan.
    server : ServerSGD
        What the server does with the averaged change of a round.

    Raises
    ------
    InvalidProblemError
        If one of them is something else.

    Examples
    --------
    >>> from coopt import ClientSGD, Optimiser, ServerSGD
    >>> Optimiser(server=ServerSGD(learning_rate=0.7, momentum=0.9, nesterov=True)).plain
    False
    """

    __module__ = "coopt"

    client: ClientSGD = field(default_factory=ClientSGD)
    server: ServerSGD = field(default_factory=ServerSGD)

    def __post_init__(self) -> None:
        instance("client", self.client, ClientSGD)
        instance("server", self.server, ServerSGD)

    @property
    def plain(self) -> bool:
        """Whether it is federated averaging with plain local steps."""
        return self == AVERAGING

    def reach(self, local_steps: int) -> float:
        """How many times as far a rate goes as in plain averaging, over many rounds of so many steps."""
        beta, server = self.client.momentum, self.server
        local = (1.0 - beta**local_steps) / (1.0 - beta)
        return local * server.learning_rate / (1.0 - server.momentum)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; :meth:`from_dict` gives back an equal one."""
        return {"client": asdict(self.client), "server": asdict(self.server)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild from :meth:`to_dict`; wrong or missing keys are InvalidProblemError."""
        try:
            return cls(ClientSGD(**data["client"]), ServerSGD(**data["server"]))
        except (KeyError, TypeError) as error:
            raise InvalidProblemError(f"not an optimiser: {shown(data)} ({error})") from error


def _share(name: str, value: object) -> float:
    number = real(name, value, minimum=0.0)
    if number >= 1.0:
        raise InvalidProblemError(f"{name} = {number!r}: must be below 1")
    return number


AVERAGING = Optimiser()

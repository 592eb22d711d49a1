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

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.readable import readable
from coopt.problem.validation import flag, real, shown

# A running mean this old has no bias left that float64 tells, and a step so late in a round has none.
ROUNDED, FAR = 1e-17, 2**31


@readable
@dataclass(frozen=True)
class ClientSGD:
    """Local steps by stochastic gradient descent, with momentum that every round starts anew.

    Parameters
    ----------
    momentum : float, default 0
        beta of the heavy ball, 0 <= beta < 1. With many local steps a step goes as far as one of
        eta / (1 - beta) without momentum.
    weight_decay : float, default 0
        l >= 0: l times the parameters is added to the gradient of every step, as torch.optim.SGD does, and
        not to the loss that is judged. A penalty in the loss is the loss's own.

    Raises
    ------
    InvalidProblemError
        If a value is out of range.
    """

    __module__ = "coopt"

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", _share("momentum", self.momentum))
        object.__setattr__(self, "weight_decay", real("weight_decay", self.weight_decay, minimum=0.0))


@readable
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


@readable
@dataclass(frozen=True)
class ClientAdam:
    """Local steps by Adam, or AdamW where weights decay, with moments that every round starts anew.

    Parameters
    ----------
    beta1, beta2 : float, default 0.9 and 0.999
        Of the running means of gradients and of their squares, 0 <= beta < 1, both without bias.
    epsilon : float, default 1e-8
        Added to the root of the latter [gradient].
    weight_decay : float, default 0
        Decoupled: each step takes the learning rate times so much off the parameters (AdamW). A penalty in
        the loss is the loss's own.

    Raises
    ------
    InvalidProblemError
        If a value is out of range.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980; Loshchilov and
    Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
    """

    __module__ = "coopt"

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_moments(self, self.beta1, self.beta2, self.epsilon)
        object.__setattr__(self, "weight_decay", real("weight_decay", self.weight_decay, minimum=0.0))


@readable
@dataclass(frozen=True)
class ServerAdam:
    """The server's step by Adam along the averaged change, with moments that last (FedAdam).

    Parameters
    ----------
    learning_rate : float, default 0.01
        eta > 0 of the server [parameter]: about how far a step moves a parameter.
    beta1, beta2 : float, default 0.9 and 0.99
        Of the running means of changes and of their squares, 0 <= beta < 1; they start at zero.
    epsilon : float, default 1e-3
        tau, added to the root of the latter [parameter].

    Raises
    ------
    InvalidProblemError
        If a value is out of range.

    References
    ----------
    Reddi et al., "Adaptive Federated Optimization", ICLR 2021, arXiv:2003.00295, algorithm 2.
    """

    __module__ = "coopt"

    learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        rate = real("learning_rate of the server", self.learning_rate, minimum=0.0, strict=True)
        object.__setattr__(self, "learning_rate", rate)
        _check_moments(self, self.beta1, self.beta2, self.epsilon)


def effective_steps(local_steps: ArrayLike, momentum: float = 0.0) -> NDArray[np.float64]:
    """How many gradients the change of a client's model adds up to, shape (m,).

    Changes of unequal steps are divided by it.

    Parameters
    ----------
    local_steps : array_like of int, shape (m,)
        tau_i.
    momentum : float, default 0
        beta: gradient k of tau counts (1 - beta^(tau - k)) / (1 - beta) times.
    """
    tau = np.asarray(local_steps, dtype=np.float64)
    rest = 1.0 - momentum
    found: NDArray[np.float64] = (tau - momentum * (1.0 - momentum**tau) / rest) / rest
    return found


@dataclass(frozen=True)
class LinearSteps:
    """What a forecast needs of an optimiser.

    Attributes
    ----------
    momentum : float
        beta of the devices' heavy ball.
    server : ServerSGD
    unbiased : bool
        Whether momentum is a running mean without bias, as Adam's: step t, from 1, of a round goes
        (1 - beta) / (1 - beta^t) as far as the heavy ball.
    decay : float
        l of the devices' weight decay: with a heavy ball in the gradient, with a running mean beside it.
    """

    momentum: float
    server: ServerSGD
    unbiased: bool = False
    decay: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether they are those of federated averaging, but for weight decay."""
        return self.momentum == 0.0 and self.server == ServerSGD()

    @property
    def decays_beside(self) -> bool:
        """Whether weights decay beside the momentum and not through it (AdamW)."""
        return self.decay > 0.0 and self.momentum > 0.0 and self.unbiased

    @property
    def stretch(self) -> float:
        """How many times as large a rate may be, over many local steps, until they are unstable.

        A running mean is stable up to 2 (1 + beta) / (1 - beta) over the curvature.
        """
        return (1.0 + self.momentum) / (1.0 - self.momentum) if self.unbiased else 1.0

    def factor(self, step: int) -> float:
        """How far step t = 1, 2, ... of a round goes along the momentum."""
        beta = self.momentum
        return (1.0 - beta) / (1.0 - beta**step) if self.unbiased else 1.0

    def settles(self, local_steps: int) -> int:
        """After how many of the steps of a round all go equally far, but for rounding."""
        if not self.unbiased:
            return 0
        return min(math.ceil(math.log(ROUNDED) / math.log(self.momentum)), local_steps)

    def lengths(self, local_steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The :func:`effective_steps`; where momentum is a running mean, every gradient counts once."""
        return effective_steps(local_steps, 0.0 if self.unbiased else self.momentum)

    def reach(self, local_steps: int) -> float:
        """How many times as far a rate goes as in plain averaging, over many rounds of so many steps."""
        beta, server = self.momentum, self.server
        local = 1.0 if self.unbiased else (1.0 - beta**local_steps) / (1.0 - beta)
        return local * server.learning_rate / (1.0 - server.momentum)


# What a file calls them.
CLIENTS: dict[str, type[ClientSGD | ClientAdam]] = {"sgd": ClientSGD, "adam": ClientAdam}
SERVERS: dict[str, type[ServerSGD | ServerAdam]] = {"sgd": ServerSGD, "adam": ServerAdam}


@readable
@dataclass(frozen=True)
class Optimiser:
    """How devices and server step; by default plain federated averaging.

    Parameters
    ----------
    client : ClientSGD or ClientAdam
        What devices do with gradients, at the learning rate of the plan.
    server : ServerSGD or ServerAdam
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

    client: ClientSGD | ClientAdam = field(default_factory=ClientSGD)
    server: ServerSGD | ServerAdam = field(default_factory=ServerSGD)

    def __post_init__(self) -> None:
        for name, kinds in (("client", CLIENTS), ("server", SERVERS)):
            value = getattr(self, name)
            if not isinstance(value, tuple(kinds.values())):
                valid = " or ".join(f"coopt.{kind.__name__}" for kind in kinds.values())
                raise InvalidProblemError(
                    f"{name} = {shown(value)}: must be a {valid}, not {type(value).__name__}"
                )

    @property
    def plain(self) -> bool:
        """Whether it is federated averaging with plain local steps."""
        return self == AVERAGING

    @property
    def forecastable(self) -> bool:
        """Whether a forecast knows it: it does not where the server steps by Adam."""
        return not isinstance(self.server, ServerAdam)

    @property
    def linear(self) -> LinearSteps:
        """The steps as a forecast knows them.

        Raises
        ------
        InvalidProblemError
            If the server steps by Adam, which is no linear map of the changes. Adam on the devices is taken
            for one: by what it divides is frozen where a measurement was taken for it.
        """
        client, server = self.client, self.server
        if isinstance(server, ServerAdam):
            raise InvalidProblemError(
                f"optimiser has the server's step {server}: a forecast knows ServerSGD only; train with it"
            )
        if isinstance(client, ClientAdam):
            return LinearSteps(client.beta1, server, unbiased=True, decay=client.weight_decay)
        return LinearSteps(client.momentum, server, decay=client.weight_decay)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; :meth:`from_dict` gives back an equal one."""
        return {
            "client": _named(CLIENTS, self.client),
            "server": _named(SERVERS, self.server),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild from :meth:`to_dict`; wrong or missing keys are InvalidProblemError."""
        try:
            client, server = dict(data["client"]), dict(data["server"])
            return cls(CLIENTS[client.pop("kind")](**client), SERVERS[server.pop("kind")](**server))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidProblemError(f"not an optimiser: {shown(data)} ({error})") from error


def _share(name: str, value: object) -> float:
    number = real(name, value, minimum=0.0)
    if number >= 1.0:
        raise InvalidProblemError(f"{name} = {number!r}: must be below 1")
    return number


def _check_moments(value: ClientAdam | ServerAdam, beta1: object, beta2: object, epsilon: object) -> None:
    object.__setattr__(value, "beta1", _share("beta1", beta1))
    object.__setattr__(value, "beta2", _share("beta2", beta2))
    object.__setattr__(value, "epsilon", real("epsilon", epsilon, minimum=0.0, strict=True))


def _named(kinds: dict[str, Any], value: Any) -> dict[str, Any]:
    """What a file says of one of these kinds."""
    (name,) = (name for name, kind in kinds.items() if isinstance(value, kind))
    return {"kind": name, **asdict(value)}


AVERAGING = Optimiser()

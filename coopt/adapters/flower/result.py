"""What a run returns: Flower's result, and the history of rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.serverapp.strategy import Result

from coopt.round_plan import Stopped


@dataclass(frozen=True)
class RoundRecord:
    """One round of the history.

    Attributes
    ----------
    round : int
        Number of the round, from 0.
    local_steps : int
        tau.
    batch_sizes : list of int
        s_i of every device of the fleet.
    sent : int
        Devices that were given work.
    reports : int
        Devices whose reports arrived in time and could be read.
    late : int
        Reports about earlier rounds that arrived during this one.
    cost, seconds : float
        What the round cost, and how long it took by the server's clock.
    loss : float
        Mean of the reported losses at the model sent, by the devices' weights; NaN without reports.
    interrupted : bool
        Whether the server died in the middle of it: its work is charged, and lost.
    """

    round: int
    local_steps: int
    batch_sizes: list[int]
    sent: int
    reports: int
    late: int
    cost: float
    seconds: float
    loss: float
    interrupted: bool = False


@dataclass(repr=False)
class CoOptResult(Result):
    """Flower's result, with every round's plan and accounts.

    Attributes
    ----------
    rounds : list of RoundRecord
        The history, from the first round on, through restarts of the server.
    stopped : Stopped or None
        Why training ended; None if `num_rounds` ended it.
    """

    rounds: list[RoundRecord] = field(default_factory=list)
    stopped: Stopped | None = None

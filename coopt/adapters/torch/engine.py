"""What a round of training takes and gives, whichever engine runs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from coopt.adapters.draws import draw_positions
from coopt.adapters.torch.data import ClientRows
from coopt.measuring.report import ClientReport

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


MOST_DRAWN = 2**20  # rows drawn at once, for the sake of memory


@dataclass(frozen=True, eq=False)
class RoundWork:
    """A round, as the clients that take part are told it.

    Attributes
    ----------
    round : int
        Round, from 0.
    clients : numpy.ndarray of int64, shape (m,)
        Who trains, increasing.
    local_steps, batch_sizes : numpy.ndarray of int64, shape (m,)
        tau_i and s_i.
    shares : numpy.ndarray, shape (m,)
        How much each model counts in the average; they sum to one.
    rows : ClientRows
        What all clients hold.
    learning_rate : float
        eta.
    extra_evaluation : bool
        Whether to measure curvature.
    seconds : numpy.ndarray, shape (m, 2), optional
        Simulated seconds of computing and of communicating.
    micro_batches : numpy.ndarray of int64, shape (m,), optional
        Most samples that each takes at once.
    """

    round: int
    clients: Ints
    local_steps: Ints
    batch_sizes: Ints
    shares: Floats
    rows: ClientRows
    learning_rate: float
    extra_evaluation: bool
    seconds: Floats | None
    micro_batches: Ints | None = None

    def part(self, chosen: Ints) -> RoundWork:
        """Give the work of some of the clients, by their positions."""
        return replace(
            self,
            clients=self.clients[chosen],
            local_steps=self.local_steps[chosen],
            batch_sizes=self.batch_sizes[chosen],
            shares=self.shares[chosen],
            seconds=None if self.seconds is None else self.seconds[chosen],
            micro_batches=None if self.micro_batches is None else self.micro_batches[chosen],
        )


@dataclass(frozen=True, eq=False)
class RoundResult:
    """What the clients of a round came to.

    Attributes
    ----------
    state : torch.Tensor, shape (n + b,)
        The average of the usable models; the state that they started from where none is usable.
    reports : list of ClientReport
        One a client, in the order of the work.
    usable : numpy.ndarray of bool, shape (m,)
        Whose model and loss are finite: one number that is not would make all of the average so.
    """

    state: Tensor
    reports: list[ClientReport]
    usable: npt.NDArray[np.bool_]


class Engine(Protocol):
    """Runs the clients of a round; averages are accumulated in double precision."""

    def run(self, start: Tensor, work: RoundWork) -> RoundResult:
        """Train from `start`, and average what is finite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What clients keep from round to round, as torch saves it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


def drawn_rows(work: RoundWork, active: int, steps: Ints, seed: int, replacement: bool) -> Ints:
    """Samples of the mini-batches of the first clients of a round at some steps, shape (active, T, s).

    Parameters
    ----------
    work : RoundWork
    active : int
        How many clients.
    steps : numpy.ndarray of int, shape (T,) or (active, T)
    seed : int
        Seed of the whole training.
    replacement : bool
        Whether mini-batches are drawn with replacement.
    """
    clients = work.clients[:active]
    positions = draw_positions(
        seed,
        work.round,
        clients,
        work.rows.counts[clients],
        steps=steps,
        sizes=work.batch_sizes[:active],
        replacement=replacement,
    )
    rows: Ints = work.rows.flat[work.rows.first[clients, None, None] + positions]
    return rows


def averaged(start: Tensor, total: Tensor, shares: Floats, usable: npt.NDArray[np.bool_]) -> Tensor:
    """The average, from the sum of the usable models times their shares, which then count for all."""
    if usable.all():
        return total.to(start)
    counted = float(shares[usable].sum())
    return (total / counted).to(start) if counted > 0 else start

"""The server's model, and what becomes of it in a round."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coopt.adapters.aggregate import aggregation_shares, step_factors
from coopt.adapters.torch.checkpoint import restored_model
from coopt.adapters.torch.flat import FlatModel
from coopt.adapters.torch.optimisers import ServerSteps
from coopt.objectives.forecast.optimiser import Optimiser, effective_steps

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class GlobalModel:
    """The model that all clients start a round from, and the server's optimiser.

    Parameters
    ----------
    model : FlatModel
        Its present state is the first model.
    optimiser : Optimiser
        How clients step, for how much their changes count; and how the server does.
    """

    def __init__(self, model: FlatModel, optimiser: Optimiser) -> None:
        self.state = model.state.clone()
        self._size = model.size
        self._momentum = float(getattr(optimiser.client, "momentum", 0.0))
        self._server = ServerSteps(optimiser.server, model.size)

    def counts(self, shares: Floats, steps: Ints) -> Floats:
        """How much each model counts in the average that `take` is given, shape (m,).

        Parameters
        ----------
        shares : numpy.ndarray, shape (m,)
            Aggregation shares of the clients.
        steps : numpy.ndarray of int, shape (m,)
            Local steps that each does.
        """
        counts = shares * step_factors(shares, effective_steps(steps, self._momentum))
        return aggregation_shares(counts, counts > 0)

    def take(self, average: Tensor, shares: Floats, steps: Ints) -> bool:
        """Make the next model of the average of a round; tell whether that is finite, else stay.

        Parameters
        ----------
        average : torch.Tensor, shape (n + b,)
            By the `counts` of the clients whose models could be used.
        shares : numpy.ndarray, shape (m,)
            Aggregation shares, 0 for those whose models could not; all 0 leaves the model as it is.
        steps : numpy.ndarray of int, shape (m,)
        """
        if not shares.any():
            return True
        before = {name: memory.clone() for name, memory in self._server.state_dict().items()}
        after = self._server.step(self.state, self._stretched(average, shares, steps))
        if not torch.isfinite(after).all():
            # The server remembers nothing of it.
            self._server.load_state_dict(before, self.state)
            return False
        self.state = after
        return True

    def _stretched(self, average: Tensor, shares: Floats, steps: Ints) -> Tensor:
        """The average whose changes count by `step_factors`, from the one whose weights are in proportion."""
        present = aggregation_shares(shares, shares > 0)
        stretch = float(present @ step_factors(present, effective_steps(steps, self._momentum)))
        if stretch == 1.0:
            return average
        after, size = average.clone(), self._size
        after[:size] = self.state[:size] + stretch * (average[:size] - self.state[:size])
        return after

    def state_dict(self) -> dict[str, Any]:
        """The model, and what the server remembers."""
        return {"model": self.state, "server": self._server.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, with arrays in the place of tensors."""
        model = restored_model(state["model"], self.state)
        self._server.load_state_dict(state["server"], self.state)
        self.state = model

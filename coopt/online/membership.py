"""Devices that join and leave a training that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.online.availability import Availability
from coopt.online.controller_state import ControllerState
from coopt.online.roster import Roster
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from coopt.problem.joined import joined, parted


class Membership:
    """What a controller does when its fleet changes."""

    budget: Budget
    availability: Availability | None
    patience: int
    seed: int
    _state: ControllerState

    @property
    def fleet(self) -> Fleet:
        """All devices that have joined; those that have left have no weight."""
        return self._state.knowledge.fleet

    @property
    def _whole_fleet(self) -> Fleet:
        """The fleet with the weights that those have who have left, too."""
        return replace(self.fleet, weights=self._state.roster.given)

    def join(self, newcomers: Fleet | int, share: float | None = None) -> None:
        """Let devices join between rounds; what is known of the others stays.

        Parameters
        ----------
        newcomers : Fleet or int
            Devices, which get the next numbers; or the number of a device that had left.
        share : float, optional
            Weight of all new devices together, between 0 and 1; default: their share of all samples.

        Raises
        ------
        InvalidProblemError
            If a round is under way, or the fleets do not fit together.

        Examples
        --------
        >>> from coopt import Budget, Controller, Fleet
        >>> controller = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=1000), learning_rate=0.1)
        >>> controller.join(Fleet([100], 1.0, 1.0))
        >>> controller.leave(0)
        >>> controller.fleet.weights.round(3)
        array([0.   , 0.286, 0.714])
        """
        self._between_rounds("join")
        state = self._state
        if isinstance(newcomers, Fleet):
            whole = joined(self._whole_fleet, newcomers, share)
            times = None if self.availability is None else self.availability.joined_by(len(newcomers))
            state.roster = state.roster.grown(self._new_roster(whole, times))
            self.availability = times
            state.account.devices = len(whole)
            state.knowledge.grow(whole)
            if state.previous is not None:
                sizes = np.append(state.previous.batch_sizes, newcomers.batch_range()[0])
                # A plan by a measurement of fewer devices is over.
                state.previous = replace(state.previous, batch_sizes=sizes, progress=None)
            state.measured.forget()
        else:
            state.roster.come_back(self._device(newcomers))
        self._weigh()

    def leave(self, device: int) -> None:
        """Let a device leave between rounds: it gets no work, and the others count for it.

        Raises
        ------
        InvalidProblemError
            If a round is under way, there is no such device, or no other has a weight.
        """
        self._between_rounds("leave")
        self._state.roster.leave(self._device(device))
        self._weigh()

    def _parted(self, state: object) -> tuple[Fleet, Fleet] | None:
        """The first devices, where a state is of these alone, and the others."""
        try:
            if not isinstance(state, Mapping):
                return None
            missed, held = state["roster"]["attendance"]["missed"], state["knowledge"]["estimates"]["samples"]
            known = len(missed)
            fewer = 0 < known < len(self.fleet) and known == len(held)
        except (KeyError, TypeError):
            return None
        return parted(self._whole_fleet, known) if fewer else None

    def _weigh(self) -> None:
        """Let those that are there count for those that have left."""
        self._state.knowledge.fleet = replace(self.fleet, weights=self._state.roster.weights)
        # What the controller is made of has changed.
        self.__dict__.pop("_fingerprint", None)

    def _new_roster(self, fleet: Fleet, availability: Availability | None) -> Roster:
        return Roster(
            fleet.weights,
            self.budget,
            patience=self.patience,
            availability=availability,
            seed=self.seed,
        )

    def _between_rounds(self, what: str) -> None:
        if self._state.plan is not None:
            raise InvalidProblemError(f"{what} was called while a round is under way: observe it first")

    def _device(self, device: int) -> int:
        return int(np.flatnonzero(self._state.account.marked([device]))[0])

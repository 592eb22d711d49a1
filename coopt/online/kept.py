"""What is kept of a controller, so that another process goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from coopt.errors import InvalidProblemError
from coopt.online.checkpoint_file import CheckpointFile
from coopt.online.fingerprint import Fingerprint, fingerprint
from coopt.online.outlook import Outlook
from coopt.problem.fleet import Fleet


class Kept(Outlook):
    """The part of :class:`coopt.Controller` that is saved and goes on; the controller sets all of it."""

    _given_rate: float
    _saved_to: CheckpointFile | None = None

    def _made_like(self, fleet: Fleet, given: dict[str, Any]) -> Self:
        """Another controller with these arguments, and the first learning rate."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Give everything that `load_state_dict` needs to go on bit for bit.

        Returns
        -------
        dict
            Numbers, strings, lists and dictionaries, as JSON has them (NaN and infinity included).
        """
        return self._state.to_dict(self._fingerprint)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, in a controller made with the same arguments.

        The budget's cost, time and rounds, and `min_gain`, may be others: a `CheckpointWarning` says so. A
        state of fewer devices, with no round under way, goes on where the others come last in the fleet.

        Raises
        ------
        InvalidProblemError
            If the state is that of another version or run, or no state that a controller can be in: the
            message names the entry. The controller stays as it was.
        """
        if (fleets := self._parted(state)) is not None:
            first, rest = fleets
            given = self._given()
            given["availability"] = self.availability and self.availability.first(len(first))
            other = self._made_like(first, given)
            other.load_state_dict(state)
            other.join(rest, share=float(self._whole_fleet.weights[len(first) :].sum()))
            self._state = other._state
        else:
            self._state = self._state.restored(state, self._fingerprint, fleet=self.fleet, budget=self.budget)
        self._weigh()

    def save(self, path: str | Path) -> None:
        """Write the state to a file, atomically: a crash leaves the old file or the new one.

        What was there before is kept as ``NAME.previous``. From the first `save` or `load` on, and for as
        long as this controller lives, no other process can save to the file or go on from it.

        Raises
        ------
        InvalidProblemError
            If nothing can be written in the folder.
        CheckpointError
            If another process has the file, or the disk refuses it.
        """
        self._file(path).write(self.state_dict())

    def load(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote; where it is damaged, with a warning from the one before.

        Raises
        ------
        InvalidProblemError
            If the file is no state of a controller like this one.
        CheckpointError
            If another process has the file.
        """
        file = self._file(path)
        state = file.read()
        if state is None:
            raise InvalidProblemError(f"{file.path} cannot be read: there is no such file")
        self.load_state_dict(state)

    @cached_property
    def _fingerprint(self) -> Fingerprint:
        """What the controller was made with: every public attribute, and the first learning rate."""
        return fingerprint(
            kind="controller", learning_rate=self._given_rate, fleet=self._whole_fleet, **self._given()
        )

    def _given(self) -> dict[str, Any]:
        """The other arguments, which are the public attributes."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def _file(self, path: str | Path) -> CheckpointFile:
        file = CheckpointFile(path, fingerprint(kind="controller"))
        if self._saved_to is None or self._saved_to.path != file.path:
            self._saved_to = file.kept()
        return self._saved_to

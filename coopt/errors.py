"""The one exception tree of coopt.

Catch :class:`CooptError` to catch everything the library raises on purpose. Exceptions of back ends
(scipy, cvxpy, torch) never leak: they are re-raised as :class:`SolverError` with the cause attached.
"""

from __future__ import annotations

# Messages name wrong values, which may be of any size; beyond this many characters the middle is left out.
LONGEST_MESSAGE = 2000


class CooptError(Exception):
    """Base class of every exception that coopt raises on purpose; its message is 2,000 characters at most."""

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST_MESSAGE:
            half = LONGEST_MESSAGE // 2 - 3
            message = f"{message[:half]} ... {message[-half:]}"
        super().__init__(message)

    __module__ = "coopt"


class InvalidProblemError(CooptError, ValueError):
    """The input is wrong: the message names the field, the device, the value and what is valid."""

    __module__ = "coopt"


class InfeasibleError(CooptError):
    """No plan meets the limits.

    Parameters
    ----------
    message : str
        Advice to the user: which limit binds and what would be feasible.
    binding : str
        The limit that rules out every plan: ``"cost"``, ``"time"`` or ``"target_error"``.
    smallest_cost : float, optional
        The smallest cost of any plan that keeps the remaining limits.
    smallest_time : float, optional
        The smallest completion time, in seconds, of any plan that keeps the remaining limits.
    smallest_error : float, optional
        The smallest error bound that can be reached, for inverse objectives.
    """

    __module__ = "coopt"

    def __init__(
        self,
        message: str,
        *,
        binding: str,
        smallest_cost: float | None = None,
        smallest_time: float | None = None,
        smallest_error: float | None = None,
    ) -> None:
        super().__init__(message)
        self.binding = binding
        self.smallest_cost = smallest_cost
        self.smallest_time = smallest_time
        self.smallest_error = smallest_error


class SolverError(CooptError, RuntimeError):
    """A solver could not do what was asked: the message says which one, why, and what to use instead."""

    __module__ = "coopt"


class CertificateError(CooptError):
    """A recomputation from scratch contradicts what an :class:`~coopt.Allocation` claims."""

    __module__ = "coopt"


class CheckpointError(CooptError):
    """A run cannot be saved: another run holds the file, or the disk refuses it; the message says which."""

    __module__ = "coopt"


class MissingDependencyError(CooptError, ImportError):
    """An optional package is not installed: the message says which extra brings it."""

    __module__ = "coopt"


class BoundWarning(UserWarning):
    """The bound is valid but says little here, or rests on a constant that cannot hold."""

    __module__ = "coopt"


class MeasurementWarning(UserWarning):
    """What was measured is an estimate, and here a poor one: the message says why and what would help."""

    __module__ = "coopt"


class CheckpointWarning(UserWarning):
    """A run goes on from an older file, or otherwise than it began: the message says what differs."""

    __module__ = "coopt"

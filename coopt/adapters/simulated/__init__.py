"""Federated training in numpy on a simulated clock: for examples and tests, without any framework."""

from coopt.adapters.simulated.embedded_digits import Digits, digits
from coopt.adapters.simulated.softmax import Softmax
from coopt.adapters.simulated.training import SimulatedRun, simulate

__all__ = ["Digits", "SimulatedRun", "Softmax", "digits", "simulate"]

"""coopt on Flower: a strategy for the server; what clients need is in `coopt.adapters.flower.client`."""

from __future__ import annotations

from coopt.adapters.flower import available  # first: it says what is missing
from coopt.adapters.flower.result import CoOptResult, FlowerRound
from coopt.adapters.flower.samples import ask_samples
from coopt.adapters.flower.server_optimiser import ServerOptimiser
from coopt.adapters.flower.strategy import CoOptStrategy

__all__ = ["CoOptResult", "CoOptStrategy", "FlowerRound", "ServerOptimiser", "ask_samples", "available"]

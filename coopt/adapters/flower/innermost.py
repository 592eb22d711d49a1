"""The strategy that does the work, where a wrapper of Flower (for differential privacy, say) holds it."""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy


def innermost(strategy: Strategy) -> Strategy:
    """The strategy itself, or the one that it wraps, however often it is wrapped."""
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
    return strategy

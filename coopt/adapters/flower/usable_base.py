"""Refuse what cannot aggregate beside coopt before any node works, with the way to what can."""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from coopt.errors import InvalidProblemError

OLDER = "flwr.server."


def usable_base(base: object) -> Strategy:
    """Give back a strategy of Flower's present interface; InvalidProblemError says how to get one."""
    if isinstance(base, Strategy):
        return base
    kind = base if isinstance(base, type) else type(base)
    named = f"base is {'the class ' if isinstance(base, type) else 'a '}{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.startswith(OLDER):
        raise InvalidProblemError(
            f"{named}, of Flower's older interface: import {kind.__name__} from flwr.serverapp.strategy, and "
            "call strategy.start(...) in a function under @app.main(), in place of server_fn"
        )
    raise InvalidProblemError(f"{named}: must be a strategy of flwr.serverapp.strategy, such as FedAvg()")

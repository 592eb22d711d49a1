"""Ask the nodes how much they hold, where the server does not know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coopt.adapters.flower.exchange import Exchange
from coopt.errors import InvalidProblemError
from coopt.problem import validation

if TYPE_CHECKING:
    from flwr.serverapp import Grid

PAUSE = 0.2  # seconds between two looks for answers
LOOK = 1.0  # seconds after which the answers that cannot be used are looked at


def ask_samples(grid: Grid, devices: int, *, timeout: float = 600.0, missing: int | None = None) -> list[int]:
    """Ask all devices how many samples they hold, to make a Fleet of the answers.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Flower's connection to the nodes.
    devices : int
        Devices in the fleet, N; their nodes say that they are numbers 0 to N - 1.
    timeout : float, default 600
        Most seconds to wait for the last answer.
    missing : int, optional
        What to take for a device that does not answer; by default that is an error.

    Returns
    -------
    list of int
        Samples of every device.

    Raises
    ------
    InvalidProblemError
        If a device holds no samples, or no node that is connected knows the question, at once; or devices do
        not answer in time: the message names them.
    """
    exchange = Exchange(grid, devices=validation.count("devices", devices), pause=PAUSE, timeout=timeout)
    ends = time.monotonic() + timeout
    while not exchange.wait(devices, seconds=min(LOOK, max(ends - time.monotonic(), 0.0))):
        if empty := exchange.empty():
            raise InvalidProblemError(
                f"devices {empty} say that they hold 0 samples: a device needs at least 1 to take part; "
                "leave them out of the federation, or give them data"
            )
        if missing is None:
            exchange.require_answers()
        if time.monotonic() >= ends:
            break
    known = exchange.samples()
    silent = [device for device in range(devices) if device not in known]
    if silent and missing is None:
        raise InvalidProblemError(
            f"devices {silent} have not said within {timeout:g} s how many samples they hold: is there a "
            "node with each partition-id? Give `missing` to go on without them"
        )
    return [known.get(device, missing or 0) for device in range(devices)]

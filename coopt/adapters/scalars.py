"""A callback that writes a training, round by round, as scalars that TensorBoard and its kin read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from coopt.problem.readable import readable

if TYPE_CHECKING:
    from coopt.adapters.torch.history import History
    from coopt.online.estimate_trail import EstimateTrail

# The name under which each column of a round is written: what stands before the slash is one section.
TAGS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "metric": "metric/test",
    "local_steps": "plan/local_steps",
    "mean_batch": "plan/mean_batch",
    "learning_rate": "plan/learning_rate",
    "arrived": "round/arrived",
    "cost": "spent/cost",
    "seconds": "spent/seconds",
}


class ScalarWriter(Protocol):
    """The part of TensorBoard's ``SummaryWriter`` that is needed; many loggers have it."""

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None) -> Any:
        """Write one number of one step."""
        ...


@readable
@dataclass(frozen=True)
class LogScalars:
    """Writes the last round of a training history, as one of the ``callbacks`` of the trainer.

    Parameters
    ----------
    writer : object with ``add_scalar(tag, value, step)``
        ``torch.utils.tensorboard.SummaryWriter`` (the extra ``tensorboard``), tensorboardX's, or another.
    trail : EstimateTrail, optional
        Whose last estimates are written as well, with their standard errors; it takes note of them first.

    Notes
    -----
    What is not known in a round is not written. Steps count from 1: after how many rounds.

    Examples
    --------
    >>> class Printer:
    ...     def add_scalar(self, tag, value, step):
    ...         print(step, tag, value)
    >>> from coopt.adapters.scalars import LogScalars
    >>> callback = LogScalars(Printer())
    """

    writer: ScalarWriter
    trail: EstimateTrail | None = None

    def __call__(self, history: History) -> bool:
        """Write the last round; never ends a training."""
        row, step = history.to_rows()[-1], history.records[-1].round + 1
        values = {tag: row[name] for name, tag in TAGS.items()}
        if self.trail is not None:
            self.trail(history)
            estimates = self.trail.to_rows()[-1]
            values |= {f"estimate/{name}": each for name, each in estimates.items() if name != "round"}
        for tag, value in values.items():
            if value is not None and math.isfinite(value):
                self.writer.add_scalar(tag, float(value), step)
        return False

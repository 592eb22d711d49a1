"""What a controller believed after each round: estimates and standard errors, as rows and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from coopt.measuring.estimates import readings
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.trend import Estimate
from coopt.problem.readable import readable
from coopt.problem.result_table import ResultTable

if TYPE_CHECKING:
    from coopt.online.controller import Controller
    from coopt.plans.described_figure import DescribedFigure

# What is followed, in which unit, and how it follows from the reports.
FOLLOWED: dict[str, tuple[str, Callable[[Estimates], Estimate]]] = {
    "loss": ("loss", lambda state: state.loss.now),
    "squared_gradient": ("gradient^2", readings.squared_gradient),
    "gradient_noise": ("gradient^2 * samples", lambda state: readings.mean_of(state.fleet_noise)),
    "divergence": ("gradient", readings.divergence),
    "smoothness": ("curvature", readings.smoothness),
    "coupling": ("curvature", readings.coupling),
}


@readable
class EstimateTrail(ResultTable):
    """Follows the estimates of a controller from round to round.

    Call it once after each round that the controller has observed: in a server's own loop, or as one of the
    ``callbacks`` of ``coopt.adapters.torch.FederatedTrainer``, which calls it with its history.

    Parameters
    ----------
    controller : Controller

    Examples
    --------
    >>> from coopt import Budget, ClientReport, Controller, Fleet
    >>> from coopt.online.estimate_trail import EstimateTrail
    >>> controller = Controller(Fleet([60, 40], gradient_noise=1.0, divergence=1.0), Budget(cost=1000),
    ...                         learning_rate=0.1)
    >>> trail = EstimateTrail(controller)
    >>> for loss in (2.0, 1.0):
    ...     plan = controller.plan()
    ...     ignored = controller.observe(
    ...         ClientReport(client=i, round=plan.round, samples=60, local_steps=plan.local_steps,
    ...                      batch_size=int(s), samples_processed=plan.local_steps * int(s), loss=loss,
    ...                      seconds_computing=0.1)
    ...         for i, s in enumerate(plan.batch_sizes))
    ...     _ = trail()
    >>> [(row["round"], round(row["loss"], 2)) for row in trail.to_rows()]
    [(1, 2.0), (2, 1.49)]
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._rows: list[dict[str, Any]] = []

    def __call__(self, history: object = None) -> bool:
        """Take note of the estimates now; never ends a training."""
        state: Estimates = self._controller.estimates
        row: dict[str, Any] = {"round": self._controller.round}
        for name, (_, follow) in FOLLOWED.items():
            found: Estimate = follow(state)
            row[name] = found.value if math.isfinite(found.value) else None
            row[f"{name}_error"] = found.standard_error if math.isfinite(found.standard_error) else None
        self._rows.append(row)
        return False

    def __len__(self) -> int:
        return len(self._rows)

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a round: each estimate and its standard error, None where nothing is known."""
        return list(self._rows)

    def _shown(self) -> list[str]:
        return [f"{len(self)} rounds", ", ".join(FOLLOWED)]

    def plot(self) -> DescribedFigure:
        """Draw each estimate with a band of two standard errors on either side; needs the extra ``plot``."""
        from coopt.plans.plot import CHOSEN, HELD, new_figure, plain

        last = self._rows[-1] if self._rows else {}
        known = [name for name in FOLLOWED if last.get(name) is not None]
        ends = "; ".join(f"{name} {_with_error(last, name)}" for name in known)
        words = f"Estimates after each of {len(self)} rounds, with two standard errors; at the end {ends}."
        figure = new_figure(11.0, 5.6, words)
        panels = figure.subplots(2, 3, sharex=True).ravel()
        for axes, (name, (unit, _)) in zip(panels, FOLLOWED.items(), strict=True):
            rounds, values, errors = (
                np.array([math.nan if row[key] is None else row[key] for row in self._rows], dtype=float)
                for key in ("round", name, f"{name}_error")
            )
            axes.fill_between(
                rounds, values - 2.0 * errors, values + 2.0 * errors, color=HELD, alpha=0.4, linewidth=0.0
            )
            axes.plot(rounds, values, color=CHOSEN, linewidth=1.6)
            axes.set_ylabel(unit)
            plain(axes, title=name.replace("_", " "))
        for axes in panels[3:]:
            axes.set_xlabel("round")
        return figure


def _with_error(row: dict[str, Any], name: str) -> str:
    error = row[f"{name}_error"]
    return f"{row[name]:.4g}" + ("" if error is None else f" +- {error:.2g}")

"""What a plan is judged by. Read this page before you write an objective of your own.

An objective says how good a plan is: K rounds, tau local steps a round, and a batch size s_i on each device.
Everything in coopt rests on one property. For fixed K and tau an objective is an offset plus a weighted sum
of 1/s_i, with weights that are never negative::

    value(K, tau, s) = offset(K, tau) + sum_i weight_i(K, tau) / s_i

More samples in a batch never hurt, and each sample helps less than the one before. So the best batches for a
given (K, tau) are found by a small convex problem, whatever the objective is.

**The least that you can give** is an object with a ``name`` and a method ``coefficients``, which returns the
offset and the weights: that is :class:`Bound`. The exact solver then tries every (K, tau) within the limits.

**What more an objective can say** is in :class:`Objective`, one method or attribute for each fact, and each
with a default. Nobody outside this room asks of which class an objective is: who needs a fact asks the
objective for it. Three of the facts are things that only some objectives can do, so they are ``None`` by
default and the objective itself (or a view of it) where it can:

=================================  ===========================================================================
fact                               who asks, and what for
=================================  ===========================================================================
:meth:`~Objective.coefficients`    every solver: the best batches at one (K, tau)
:meth:`~Objective.value`           judging a plan
:meth:`~Objective.members`         solvers that take one member of a family at a time
:attr:`~Objective.prunable`        the exact solver: the monotone form, with which it discards whole ranges of
                                   (K, tau) instead of trying each
:attr:`~Objective.forecast`        the solver for forecasts: a measured model, at any number of rounds
:attr:`~Objective.young`           the choice of a cohort, of participants, and the picture of a family
:meth:`~Objective.rates`           the choice of the learning rate: its largest value, and lower bounds over
                                   ranges of rates
:meth:`~Objective.parts`           tables: how much of the value is transient, noise and drift
:meth:`~Objective.cautions`        warnings: what a user should know before trusting the value of a plan
:meth:`~Objective.statement`       the certificate: the theorem behind the value, to be evaluated at 50 digits
:attr:`~Objective.quantity`        tables and pictures: what to call the value
:attr:`~Objective.unit`            what the value is measured in
:attr:`~Objective.proved`          whether the value is a proved bound, or a forecast
:attr:`~Objective.needs_numbers`   the command line: whether the name alone is enough to solve with
=================================  ===========================================================================

An objective that is derived from :class:`Objective` has to define ``name`` and ``coefficients``. One with the
monotone form is derived from :class:`~coopt.objectives.monotone.MonotoneBase` and defines ``name`` and
``monotone_form``: all the rest is read off the form. Objectives are small frozen dataclasses; they hold no
problem, and every method takes it as an argument.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.problem.validation import float_array

if TYPE_CHECKING:
    from coopt.objectives.forecast.forecast import Forecast
    from coopt.objectives.monotone import MonotoneBase
    from coopt.objectives.rates import Rates
    from coopt.objectives.statement import Statement
    from coopt.objectives.young import YoungFamily
    from coopt.problem.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LOSS, SQUARED_GRADIENT = "loss", "gradient^2"


@runtime_checkable
class Bound(Protocol):
    """The least that a solver needs: for given (K, tau) an offset and weights that are never negative.

    Any object with these two works with ``solver="exact"``, which then tries every (K, tau) within the
    limits. With a monotone form (derive from :class:`coopt.objectives.monotone.MonotoneBase`) it prunes, and
    the other solvers work too, where training progresses like q^T or like 1/T.

    Examples
    --------
    >>> import numpy as np
    >>> from coopt import Budget, Constants, Fleet, Problem, solve_allocation
    >>> class OneOverRounds:
    ...     name = "one over rounds"
    ...     def coefficients(self, problem, rounds, local_steps):
    ...         return 1.0 / rounds, problem.fleet.weights
    >>> problem = Problem(
    ...     Fleet([60, 20], gradient_noise=4.0, divergence=0.1),
    ...     Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0),
    ...     Budget(cost=100, max_local_steps=3),
    ... )
    >>> plan = solve_allocation(problem, bound=OneOverRounds())
    >>> plan.rounds, plan.local_steps, plan.batch_sizes, plan.gap
    (7, 1, array([9, 5]), 0.0)
    """

    __module__: str = "coopt"

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        ...

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        """(offset, weights) such that the bound is offset + sum(weights / batch_sizes)."""
        ...


@dataclass(frozen=True)
class Parts:
    """A bound split by cause; the parts add up to it.

    Attributes
    ----------
    transient : float
        What is left of the initial gap.
    noise : float
        Mini-batch noise of the averaged gradient.
    drift : float
        Devices moving apart during local steps, by divergence and by their own noise.
    """

    transient: float
    noise: float
    drift: float


class Objective(ABC):
    """A bound or a forecast with all that coopt asks of it; the module's page says who asks what.

    Attributes
    ----------
    quantity : str
        What to call the value, as the heading of a table.
    unit : str or None
        What the value is measured in: ``"loss"``, ``"gradient^2"``, or None where coopt does not know.
    proved : bool
        Whether the value is a proved bound. That of a forecast is not: it ranks plans and certifies none.
    needs_numbers : bool
        Whether solvers refuse it until its parameters are numbers.
    """

    quantity: ClassVar[str] = "Error bound"
    unit: ClassVar[str | None] = None
    proved: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and files."""

    @abstractmethod
    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        """(offset, weights), weights of shape (N,), of offset + sum(weights / batch_sizes)."""

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """The value of one plan, in :attr:`unit`; of a family, that of the smallest member.

        Parameters
        ----------
        problem : Problem
        rounds, local_steps : int
        batch_sizes : array_like, shape (N,)
        """
        offset, weights = self.coefficients(problem, rounds, local_steps)
        batches = float_array("batch_sizes", batch_sizes, len(problem.fleet), minimum=0.0, strict=True)
        return offset + float(np.sum(weights / batches))

    def members(self) -> tuple[Bound, ...]:
        """The bounds of a family, of which the smallest counts; a single bound is its own only member."""
        return (self,)

    def best_member(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike
    ) -> tuple[float, Bound]:
        """The value of one plan, and the first member that has it."""
        return self.value(problem, rounds, local_steps, batch_sizes), self

    @property
    def prunable(self) -> MonotoneBase | None:
        """The objective itself where it has a monotone form, with which a search can prune; else None."""
        return None

    @property
    def forecast(self) -> Forecast | None:
        """The objective itself where it is a forecast from what was measured; else None."""
        return None

    @property
    def young(self) -> YoungFamily | None:
        """The objective itself where Young's parameters gamma and z make it a family; else None.

        Those also hold where only some devices take part in a round, and for biased gradients.
        """
        return None

    def rates(self, problem: Problem) -> Rates | None:
        """How the value depends on the learning rate; None where that is not known."""
        return None

    def parts(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> Parts | None:
        """The value split into transient, noise and drift; None where it is not known how."""
        return None

    def cautions(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats, value: float
    ) -> tuple[str, ...]:
        """Sentences that a user should read before trusting the `value` of a plan; empty for none."""
        return ()

    def statement(self, problem: Problem, local_steps: int) -> Statement | None:
        """The theorem that says this bound, with numbers for its symbols; None where there is no theorem."""
        return None

    @property
    def original(self) -> Bound:
        """What the user handed over, where this completes it; else the objective itself."""
        return self

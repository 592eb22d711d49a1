"""A plan made beforehand, the same every round or in phases, in the controller's place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.ignored import Ignored
from coopt.measuring.report import ClientReport
from coopt.online.accounting import Account, gradients_planned
from coopt.online.fingerprint import Fingerprint, fingerprint, same_run
from coopt.online.roster import Roster
from coopt.online.round_plan import RoundPlan, Stopped, StopReason
from coopt.plans.phase import Phase
from coopt.problem.budget import Budget
from coopt.problem.device_steps import steps_of
from coopt.problem.fleet import Fleet
from coopt.problem.readable import Fact, readable
from coopt.problem.saved_state import Reader, anything, consistent, same, table
from coopt.problem.validation import count, instance, integer_array, real

if TYPE_CHECKING:
    from coopt.measuring.measurement import Measurement
    from coopt.objectives.forecast.optimiser import Optimiser
    from coopt.plans.allocation import Allocation
    from coopt.plans.device_rows import Rounds
    from coopt.plans.schedule import Schedule
    from coopt.problem.problem import Problem

# A device that was absent for many rounds is waited for when it comes back: nothing depends on it before.
PATIENCE = 2**62
STATE_VERSION = 2


@readable
class FixedPlan:
    """Runs a plan made beforehand, and keeps the accounts as :class:`coopt.Controller` does.

    Every round is the same; :meth:`from_schedule` gives a plan that changes on the way.

    Parameters
    ----------
    fleet : Fleet
        Cost per sample and per round, and the speeds from which a round's time is predicted.
    rounds : int
        K.
    local_steps : int
        tau.
    batch_sizes : array_like of int, shape (N,) or scalar
        s_i >= 1.
    learning_rate : float or array_like, shape (rounds,)
        eta, the same in every round or one for each: a warm-up, a cosine decay.
    round_cost : float, default 0
        Cost of a round beyond that of the devices.
    deadline : float, default inf
        Seconds after which a round goes on without those that are missing. Nobody waits a third time for a
        device that has let two deadlines pass; it is given its work all the same.
    second_cost : float, default 0
        Cost of every second that the rounds take, and that is waited for, as in :class:`coopt.Budget`.
    participants, distinct_participants
        How many devices are drawn for a round, and how: see :class:`coopt.Budget`. Default: all.
    seed : int, default 0
        Source of the draws.
    device_steps : array_like of int, shape (N,), optional
        tau_i, of devices that take fewer steps than `local_steps`, such as slow ones whose smallest batch is
        large; adapters average them as :func:`coopt.adapters.aggregate.step_factors` says.

    Raises
    ------
    InvalidProblemError
        If a value is out of range or of the wrong shape.

    Examples
    --------
    >>> from coopt import Fleet
    >>> plan = FixedPlan(Fleet([60, 40], gradient_noise=1.0, divergence=1.0), rounds=20, local_steps=5,
    ...                  batch_sizes=8, learning_rate=0.1)
    >>> plan.plan().batch_sizes
    array([8, 8])

    A rate that falls from round to round:

    >>> falling = FixedPlan(plan.fleet, rounds=20, local_steps=5, batch_sizes=8,
    ...                     learning_rate=np.linspace(0.2, 0.01, 20))
    >>> falling.learning_rate, falling.rounds
    (0.2, 20)
    """

    def __init__(
        self,
        fleet: Fleet,
        rounds: int,
        local_steps: int,
        batch_sizes: ArrayLike,
        learning_rate: ArrayLike,
        *,
        round_cost: float = 0.0,
        deadline: float = math.inf,
        second_cost: float = 0.0,
        participants: int | None = None,
        distinct_participants: bool = False,
        seed: int = 0,
        device_steps: ArrayLike | None = None,
    ) -> None:
        instance("fleet", fleet, Fleet)
        self.fleet = fleet
        batches = integer_array("batch_sizes", batch_sizes, len(fleet), minimum=1)
        self.phases = _phases(rounds, local_steps, batches, learning_rate)
        self.round_cost = real("round_cost", round_cost, minimum=0.0)
        self.deadline = real("deadline", deadline, minimum=0.0, strict=True, infinite=True)
        self.second_cost = real("second_cost", second_cost, minimum=0.0)
        # All rounds are run, whatever they take.
        self.budget = Budget(participants=participants, distinct_participants=distinct_participants)
        self.seed = count("seed", seed, minimum=0)
        self.device_steps = None
        if device_steps is not None:
            steps = integer_array("device_steps", device_steps, len(fleet), minimum=1)
            if np.any(steps > local_steps):
                i = int(np.argmax(steps > local_steps))
                raise InvalidProblemError(
                    f"device_steps[{i}] = {steps[i]}: must be at most local_steps = {local_steps}"
                )
            self.device_steps = steps
        self._account = Account(len(fleet), self.round_cost)
        self._roster = Roster(fleet.weights, self.budget, patience=PATIENCE, seed=self.seed)

    def _shown(self) -> list[Fact]:
        devices, phases = f"{len(self.fleet)} devices", ("phases", len(self.phases))
        names = ("round", "rounds", "spent_cost", "spent_seconds")
        return [devices, phases, *((name, getattr(self, name)) for name in names)]

    @property
    def rounds(self) -> int:
        """Rounds of the whole plan."""
        return sum(phase.rounds for phase in self.phases)

    @property
    def round(self) -> int:
        """Rounds observed so far."""
        return self._account.round

    @property
    def local_steps(self) -> int:
        """Tau of the next round."""
        return self._phase(self.round).local_steps

    @property
    def batch_sizes(self) -> NDArray[np.int64]:
        """s_i of the next round, shape (N,)."""
        return self._phase(self.round).batch_sizes

    @property
    def learning_rate(self) -> float:
        """Eta of the next round."""
        return self._phase(self.round).learning_rate

    @property
    def spent_cost(self) -> float:
        """Cost of the rounds observed, and of the seconds that they took."""
        return self._account.cost + self.second_cost * self._account.seconds

    @property
    def spent_seconds(self) -> float:
        """Seconds that they took, and that were waited for [s]."""
        return self._account.seconds

    @property
    def time_left(self) -> float:
        """Infinite: the plan ends with its rounds."""
        return math.inf

    @property
    def samples(self) -> NDArray[np.float64]:
        """Samples by which each device's model counts in the average, shape (N,)."""
        return self.fleet.weights * float(self.fleet.samples.sum())

    @classmethod
    def from_allocation(cls, allocation: Allocation) -> Self:
        """Run what a solver has planned.

        Examples
        --------
        >>> from coopt import Budget, Constants, Fleet, Problem, solve_allocation
        >>> problem = Problem(Fleet([60, 40], gradient_noise=1.0, divergence=0.1),
        ...                   Constants(learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.1),
        ...                   Budget(cost=5000, max_local_steps=10))
        >>> plan = FixedPlan.from_allocation(solve_allocation(problem))
        >>> bool(plan.rounds * plan.local_steps * plan.batch_sizes.sum() <= 5000)
        True
        """
        rate = allocation.learning_rate
        return cls._like(allocation.problem, allocation, rate, device_steps=allocation.device_steps)

    @classmethod
    def from_schedule(cls, schedule: Schedule) -> Self:
        """Run a plan in phases: each round has the steps, batches and learning rate of its phase.

        Examples
        --------
        >>> from coopt import (
        ...     Budget, Constants, Fleet, Forecast, LocalModel, Phase, Problem, evaluate_schedule
        ... )
        >>> model = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[4.0]]], samples=[100])
        >>> problem = Problem(Fleet([100], 4.0, 0.0), Constants(0.2, 1.0, 0.5), Budget(cost=4000))
        >>> halved = [Phase(20, 5, 8, learning_rate=0.2), Phase(20, 5, 8, learning_rate=0.1)]
        >>> plan = FixedPlan.from_schedule(evaluate_schedule(problem, Forecast(model), halved))
        >>> plan.rounds, plan.plan().learning_rate
        (40, 0.2)
        """
        first = schedule.phases[0]
        made = cls._like(schedule.problem, first, first.learning_rate)
        made.phases = schedule.phases
        return made

    @classmethod
    def _like(
        cls,
        problem: Problem,
        rounds: Rounds,
        learning_rate: float,
        device_steps: NDArray[np.int64] | None = None,
    ) -> Self:
        """Rounds that are all alike, with what a problem says of costs and of who takes part."""
        budget = problem.budget
        return cls(
            problem.fleet,
            rounds.rounds,
            rounds.local_steps,
            rounds.batch_sizes,
            learning_rate,
            round_cost=budget.round_cost,
            second_cost=budget.second_cost,
            participants=budget.participants,
            distinct_participants=budget.distinct_participants,
            device_steps=device_steps,
        )

    def _phase(self, number: int) -> Phase:
        """The phase of a round; the last one for rounds beyond all of them."""
        for phase in self.phases:
            if number < phase.rounds:
                return phase
            number -= phase.rounds
        return self.phases[-1]

    def plan(self, *, absent: Iterable[int] = ()) -> RoundPlan | Stopped:
        """Give the plan, or say that all rounds are done; devices that are `absent` are not drawn."""
        if self.round >= self.rounds:
            return Stopped(StopReason.ROUNDS, self.round, self.spent_cost, self.spent_seconds)
        fleet, phase = self.fleet, self._phase(self.round)
        steps = steps_of(self.device_steps, phase.local_steps, len(fleet))
        samples = steps * phase.batch_sizes
        gradients = gradients_planned(steps, phase.batch_sizes, False, False, fleet.micro_batch)
        everybody = np.ones(len(fleet), dtype=bool)  # none of them leaves
        gone = self._account.marked(absent)
        call = self._roster.call_among(everybody, self.round, self.spent_seconds, gone)
        who = call.participants
        return RoundPlan(
            round=self.round,
            local_steps=phase.local_steps,
            device_steps=self.device_steps,
            batch_sizes=phase.batch_sizes,
            learning_rate=phase.learning_rate,
            extra_evaluation=False,
            deadline=self.deadline,
            predicted_cost=float(
                np.sum((samples * fleet.sample_cost + steps * fleet.step_cost + fleet.round_cost)[who])
            )
            + self.round_cost,
            predicted_seconds=float(
                np.max((gradients * fleet.step_time + samples / fleet.throughput + fleet.round_time)[who])
            ),
            rounds_left=self.rounds - self.round,
            predicted_error=math.nan,
            rest_local_steps=self._phase(self.round + 1).local_steps,
            participants=who,
            expected=call.expected,
            draws=call.draws,
        )

    def wants(self, *, gradients_a_product: int = 1) -> None:
        """Nothing: the plan is made."""
        del gradients_a_product

    def measured(
        self,
        measurement: Measurement | None,
        *,
        seconds: float,
        cost: float | None = None,
        optimiser: Optimiser | None = None,
    ) -> None:
        """Charge a measurement that somebody took all the same."""
        del measurement, optimiser
        self._account.charge(0.0 if cost is None else cost, seconds)

    def observe(
        self,
        reports: Iterable[ClientReport],
        *,
        seconds: float | None = None,
        answered: ArrayLike | None = None,
        absent: Iterable[int] = (),
        gradient_error: float | None = None,
        witnessed: bool = False,
    ) -> list[Ignored]:
        """Charge the round; what the clients measured changes nothing here."""
        plan = self.plan()
        if isinstance(plan, Stopped):
            raise InvalidProblemError(f"observe was called after the last of {self.rounds} rounds")
        closed = self._account.close(
            plan,
            reports,
            sample_cost=self.fleet.sample_cost,
            step_cost=self.fleet.step_cost,
            device_cost=self.fleet.round_cost,
            seconds=seconds,
            absent=absent,
            answered=answered,
            witnessed=witnessed,
        )
        self._roster.note(plan, closed)
        return closed.ignored

    def wait(self, seconds: float) -> None:
        """Charge time that passes between rounds [s]."""
        self._account.wait(seconds)

    def state_dict(self) -> dict[str, Any]:
        """Give everything that `load_state_dict` needs to go on bit for bit."""
        return {
            "version": STATE_VERSION,
            "fingerprint": self._fingerprint,
            "account": self._account.state_dict(),
            "roster": self._roster.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        InvalidProblemError
            If the state is that of another plan, or no state that a plan can be in: the message names the
            entry.
        """
        same_run(state, STATE_VERSION, self._fingerprint)
        readers: dict[str, Reader[Any]] = {
            "version": same(STATE_VERSION),
            "fingerprint": anything,
            "account": self._account.restored,
            "roster": self._roster.restored,
        }
        read = table("state", state, readers)
        account: Account = read["account"]
        roster: Roster = read["roster"]
        consistent("state.account.round", account.round <= self.rounds, f"the plan has {self.rounds} rounds")
        roster.check("state.roster", account.round)
        self._account, self._roster = account, roster

    @property
    def _fingerprint(self) -> Fingerprint:
        return fingerprint(
            kind="fixed plan",
            fleet=self.fleet,
            phases=self.phases,
            round_cost=self.round_cost,
            deadline=self.deadline,
            budget=self.budget,
            seed=self.seed,
            device_steps=self.device_steps,
        )


def _phases(
    rounds: int, local_steps: int, batches: NDArray[np.int64], learning_rate: ArrayLike
) -> tuple[Phase, ...]:
    """One phase, or as many as there are rates in a row."""
    if not isinstance(learning_rate, Sequence | np.ndarray) or isinstance(learning_rate, str):
        return (Phase(rounds, local_steps, batches, real("learning_rate", learning_rate)),)
    phases = Phase.each_round(learning_rate, local_steps, batches)
    given = sum(phase.rounds for phase in phases)
    if given != count("rounds", rounds):
        raise InvalidProblemError(f"learning_rate has {given} rates: must have {rounds}, one for each round")
    return phases

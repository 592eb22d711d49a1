"""The controller: estimate from what clients report, plan again, never overspend.

It holds no model and opens no connection: a server asks it for a plan, runs the round however it does, and
hands over the reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.measuring.ignored import Ignored
from coopt.measuring.report import ClientReport
from coopt.online.accounting import Account, check_budget
from coopt.online.availability import Availability
from coopt.online.controller_state import ControllerState
from coopt.online.cut_to_budget import fit_round
from coopt.online.deadline import deadline_and_slack
from coopt.online.kept import Kept
from coopt.online.knowledge import Knowledge
from coopt.online.roster import Call
from coopt.online.round_plan import RoundPlan, Stopped, StopReason
from coopt.policies.resolve import resolve_policy
from coopt.policies.situation import Choice, Policy
from coopt.policies.warm_up import warm_up
from coopt.problem import validation
from coopt.problem.batch_noise import refuse_tangent
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from coopt.problem.readable import Fact, readable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# So close to the end a policy that expects its plan to do harm is believed.
LAST_ROUNDS = 3
# What the rule of the first rounds is called.
WARM_UP = "warm-up"


@readable
class Controller(Kept):
    """Plans each round from what the clients reported about the rounds before.

    Parameters
    ----------
    fleet : Fleet
        All devices that may ever take part. Samples, batch limits and weights are taken as given; gradient
        noise, divergence, speed, the time of a step and cost per sample are replaced by what is measured.
    budget : Budget
        What the whole training may spend. Each round is charged ``fleet.round_cost`` of all devices.
    learning_rate : float
        eta, the clients' learning rate.
    policy : {"schedule", "horizon", "marginal"} or Policy, default "schedule"
        The rule. "schedule" has the fleet measured after the warm-up, where the server can do that (see
        `wants`), and plans what is left in phases by the forecast; without a measurement it is "horizon",
        which plans all that is left by estimates from the reports alone. "marginal" (DYNAMITE's controller;
        needs `Budget.max_rounds`) plans one round at a time; baselines are in :mod:`coopt.policies`.
        `RoundPlan.policy` names the rule of each round.
    rates : {"given", "free"}, default "given"
        Whether the plans of "schedule" keep to `learning_rate`, or choose a rate for each phase. A rate that
        somebody gives is kept unless they say otherwise; a free one rests on the curvature at one model, and
        pays on convex losses.
    lowest_loss : float, default 0
        A value that the loss cannot fall below; reports far below it are not believed.
    curvature_floor : float, optional
        Known lower bound on the curvature of the devices' losses, 0 for convex ones. At 0 or above, how far
        the loss can still fall is inferred from how loss and gradient fell so far; otherwise it is reckoned
        from `lowest_loss`, which asks for more steps. Where curvatures differ by much (most real data), that
        is the better guess, whether the loss is convex or not.
    caution : float, default 1
        Standard errors by which every estimate is moved to its unfavourable side before planning.
    warm_up_rounds : int, default 3
        Small rounds at the start, to measure; where the fleet is measured after them, at most a fifth of
        `Budget.max_rounds`, and one.
    probe_every : int, default 10
        Every how many rounds the clients evaluate the extra gradient that shows curvature; 0 for never.
    deadline_slack : float, default 2
        Deadline of a round over the time that it should take.
    patience : int, default 3
        Rounds that a device may miss in a row before plans stop reckoning with it; a report brings it back.
        Two deadlines that pass in vain are enough: it is still given the smallest batch, but not waited for.
    quorum : float, default 1
        Share of the devices at work whose answers end a round. Below 1 the same slow devices are left out of
        most averages, which favours the data of the fast ones.
    quorum_count : int, optional
        So many answers end a round, too: with more devices drawn than that, those that are slow this time are
        not waited for. What comes later is heard and not averaged.
    min_gain : float, default 0
        Stop if the policy expects the rest of the budget to reduce the error by a smaller share than this; at
        0, only in the last three rounds, and only if they would do harm.
    streaming : bool, default False
        Whether devices receive data while training: reported numbers of samples then replace those of
        `fleet`.
    availability : Availability, optional
        When devices are there, where that is known; default: always. A limit on the cost, which needs one on
        the time then, is spent so that each device has its part of it.
    seed : int, default 0
        Source of the draws where `Budget.participants` says how many devices take part in a round.

    Raises
    ------
    InvalidProblemError
        If an argument is out of range.

    Examples
    --------
    A server loop; `run_round` stands for the server's own code.

    >>> from coopt import Budget, ClientReport, Controller, Fleet, RoundPlan, Stopped
    >>> controller = Controller(Fleet(samples=[60, 40], gradient_noise=1.0, divergence=1.0),
    ...                         Budget(cost=1000), learning_rate=0.1)
    >>> def run_round(plan):
    ...     work = [(i, int(s)) for i, s in enumerate(plan.batch_sizes)]
    ...     return [ClientReport(client=i, round=plan.round, samples=60, local_steps=plan.local_steps,
    ...                          batch_size=s, samples_processed=plan.local_steps * s, loss=1.0,
    ...                          seconds_computing=0.1)
    ...             for i, s in work]
    >>> while isinstance(plan := controller.plan(), RoundPlan):
    ...     ignored = controller.observe(run_round(plan))
    >>> isinstance(plan, Stopped), bool(controller.spent_cost <= 1000)
    (True, True)
    """

    __module__ = "coopt"

    def __init__(
        self,
        fleet: Fleet,
        budget: Budget,
        learning_rate: float,
        *,
        policy: Literal["schedule", "horizon", "marginal"] | Policy = "schedule",
        rates: Literal["given", "free"] = "given",
        lowest_loss: float = 0.0,
        curvature_floor: float | None = None,
        caution: float = 1.0,
        warm_up_rounds: int = 3,
        probe_every: int = 10,
        deadline_slack: float = 2.0,
        patience: int = 3,
        quorum: float = 1.0,
        quorum_count: int | None = None,
        min_gain: float = 0.0,
        streaming: bool = False,
        availability: Availability | None = None,
        seed: int = 0,
    ) -> None:
        validation.instance("fleet", fleet, Fleet)
        refuse_tangent(
            fleet,
            "a controller needs the fleet that it was made of; a plan that was made by it can be trained by "
            "FixedPlan.from_allocation",
        )
        validation.instance("budget", budget, Budget)
        check_budget(budget, availability)
        self.budget, self.availability = budget, availability
        self.seed = validation.count("seed", seed, minimum=0)
        rate = validation.real("learning_rate", learning_rate, minimum=0.0, strict=True)
        self.policy = resolve_policy(policy, budget, rates)
        self.lowest_loss = validation.real("lowest_loss", lowest_loss)
        self.curvature_floor = validation.optional_real("curvature_floor", curvature_floor)
        self.caution = validation.real("caution", caution, minimum=0.0)
        self.warm_up_rounds = validation.count("warm_up_rounds", warm_up_rounds)
        self.probe_every = validation.count("probe_every", probe_every, minimum=0)
        self.deadline_slack = validation.real("deadline_slack", deadline_slack, minimum=1.0)
        self.patience = validation.count("patience", patience)
        self.quorum = validation.real("quorum", quorum, minimum=0.0, strict=True)
        if self.quorum > 1:
            raise InvalidProblemError(f"quorum = {quorum!r}: must be > 0 and <= 1, a share of the devices")
        self.quorum_count = validation.optional_count("quorum_count", quorum_count)
        self.min_gain = validation.real("min_gain", min_gain, minimum=0.0)
        self.streaming = validation.flag("streaming", streaming)
        self._state = ControllerState(
            account=Account(len(fleet), self.budget.round_cost),
            knowledge=Knowledge(fleet, caution=self.caution, streaming=self.streaming),
            roster=self._new_roster(fleet, availability),
            learning_rate=rate,
        )
        self._given_rate = rate

    def _shown(self) -> list[Fact]:
        names = ("round", "spent_cost", "spent_seconds")
        pairs: list[Fact] = [(name, getattr(self, name)) for name in names]
        return [f"{len(self.fleet)} devices", type(self.policy).__name__, *pairs, repr(self.budget)]

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def plan(self, *, absent: Iterable[int] = ()) -> RoundPlan | Stopped:
        """Plan the next round; the same plan again until its reports are observed, or the time is up.

        Parameters
        ----------
        absent : iterable of int, optional
            Devices known not to be there now: where only some devices take part in a round, these are not
            drawn.

        Returns
        -------
        RoundPlan or Stopped
            A plan whose predicted cost and time fit in what is left, or the reason why training ends.
        """
        if self.time_left <= 0.0:
            return self._stop(StopReason.TIME)
        if self._state.plan is not None:
            return self._state.plan
        if self.budget.max_rounds is not None and self.round >= self.budget.max_rounds:
            return self._stop(StopReason.ROUNDS)
        gone = self._state.account.marked(validation.entries("absent", absent))
        result: RoundPlan | Stopped = self._stop(StopReason.TIME)
        for begin in self._state.roster.beginnings(self.spent_seconds):
            call = self._state.roster.call(self.round, begin, gone)
            if call is not None:
                result = self._plan_for(call)
                if isinstance(result, RoundPlan):
                    break
        return result

    def _plan_for(self, call: Call) -> RoundPlan | Stopped:
        """Plan a round for those that are called."""
        call, situation = self._worthwhile(call)
        active, slow = call.active, self._slow(call)
        if self._warming_up(self._warm_up_rounds):
            choice = warm_up(situation.problem, self.round, brief=self._state.measured.asked)
            choice = replace(choice, policy=WARM_UP)
        else:
            choice = self.policy.choose(situation)
            if choice.progress is not None and not choice.progress.behind:
                # A plan that is kept is made for the devices that will have steps of their own.
                slow = self._slow(call, replace(choice, batch_sizes=self._of_all(choice, active)))
                if slow.any():
                    situation = self._situation(call, slow)
                    choice = self.policy.choose(situation)
            if choice.rounds == 0:
                return self._stop(self._scarcest())
            gap = situation.problem.constants.initial_gap if choice.gap is None else choice.gap
            hopeless = choice.predicted_error > (1 - self.min_gain) * gap
            if (
                hopeless
                # Of devices that have yet to come nothing is known.
                and call.begin <= self.spent_seconds
                and self.estimates.gradient.known
                and (self.min_gain > 0 or (choice.rounds <= LAST_ROUNDS and self._near_the_end()))
            ):
                return self._stop(StopReason.GAIN)
        batches = self._of_all(choice, active)
        progress = None if choice.progress is None else choice.progress.spread(active, batches)
        choice = replace(choice, batch_sizes=batches, progress=progress)
        result = self._fit(choice, call, slow)
        if isinstance(result, RoundPlan):
            self._state.plan, self._state.choice = result, choice
            gap = math.nan
            if self.estimates.gradient.known:
                gap = self.policy.gap_after(situation, result.local_steps, result.batch_sizes[active])
            self._state.forecast = None if math.isnan(gap) else gap
        return result

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def observe(
        self,
        reports: Iterable[ClientReport],
        *,
        seconds: float | None = None,
        answered: npt.ArrayLike | None = None,
        absent: Iterable[int] = (),
        gradient_error: float | None = None,
        witnessed: bool = False,
    ) -> list[Ignored]:
        """Take in what the clients reported about the planned round.

        Parameters
        ----------
        reports : iterable of ClientReport
            What arrived, in any order; late reports about earlier rounds included.
        seconds : float, optional
            How long the round took by the server's clock; default: when it was over by `answered`, or what
            the slowest report says, or the deadline if a device is missing.
        answered : array_like, shape (N,), optional
            When each device's answer came, by the server's clock from the beginning of the round; infinite
            where none did. The time that a device was busy is then the server's, and its report only says
            how much of that was computing: a device can claim to be neither slow nor fast [s].
        absent : iterable of int, optional
            Devices known not to have worked. Others that did not report are charged what was planned for
            them.
        gradient_error : float, optional
            Error that bounded buffers add to the gradient from now on, see `coopt.streaming.gradient_error`.
        witnessed : bool, default False
            Whether the server itself saw how much work was done, as in a simulation. If it did not, a device
            that says it did less than planned is still charged the plan.

        Returns
        -------
        list of Ignored
            What was not believed, and why; and who did fewer local steps than planned.

        Raises
        ------
        InvalidProblemError
            If no round was planned, `seconds`, `gradient_error` or an entry of `answered` is no number of at
            least 0, or a device is absent that the fleet does not have.
        """
        plan = self._state.plan
        if plan is None:
            raise InvalidProblemError("observe was called without a plan: call plan() first")
        if gradient_error is not None:
            gradient_error = validation.real("gradient_error", gradient_error, minimum=0.0)
        arrived = validation.entries("reports", reports)
        for place, report in enumerate(arrived):
            validation.instance(f"reports[{place}]", report, ClientReport)
        if self._state.roster.others_came(self.spent_seconds):
            self._state.knowledge.forget_loss()
        before = self.spent_seconds
        closed = self._state.account.close(
            plan,
            arrived,
            sample_cost=self._state.knowledge.sample_cost(),
            stated_cost=self.fleet.sample_cost,
            lowest_loss=self.lowest_loss,
            step_cost=self.fleet.step_cost,
            device_cost=self.fleet.round_cost,
            seconds=seconds,
            absent=absent,
            answered=answered,
            clock=self.estimates.clock,
            witnessed=witnessed,
            memory=self.estimates.memory,
        )
        if gradient_error is not None:
            self.gradient_error = gradient_error
        if seconds is not None or answered is not None:
            self._state.knowledge.time(plan, closed, closed.seconds)
        self._state.knowledge.absorb(closed.seen, closed.steps, plan.draws)
        self._state.roster.note(plan, closed)
        took = self.spent_seconds - before
        if plan.predicted_seconds > 0 and took > 0 and plan.policy != WARM_UP:
            self._state.delay = self._state.delay.add(took / plan.predicted_seconds)
        chosen = self._state.choice
        if chosen is not None:
            done = None if chosen.progress is None else chosen.progress.after_round()
            self._state.previous = replace(
                chosen, local_steps=plan.local_steps, batch_sizes=plan.batch_sizes, progress=done
            )
        self._state.plan = self._state.choice = None
        return closed.ignored

    def wait(self, seconds: float) -> None:
        """Charge time that passes between rounds, as while too few devices are there [s].

        Raises
        ------
        InvalidProblemError
            If it is no number of at least 0.
        """
        self._state.account.wait(seconds)
        plan = self._state.plan
        if plan is not None and plan.starts_in > 0:
            self._state.plan = replace(plan, starts_in=max(plan.starts_in - seconds, 0.0))

    def _made_like(self, fleet: Fleet, given: dict[str, Any]) -> Self:
        return type(self)(fleet, learning_rate=self._given_rate, **given)

    def _stop(self, reason: StopReason) -> Stopped:
        return Stopped(reason, self.round, self.spent_cost, self.spent_seconds)

    def _scarcest(self) -> StopReason:
        """The limit of which the smaller share is left."""
        time, cost = self.time_left / self.budget.time, 1.0 - self.spent_cost / self.budget.cost
        return StopReason.TIME if self.budget.time < math.inf and time < cost else StopReason.COST

    def _near_the_end(self) -> bool:
        """Whether hardly more than the last rounds are left, were they like those so far."""
        spent = [self.spent_cost / self.budget.cost, self.spent_seconds / self.budget.time]
        spent.append(self.round / (self.budget.max_rounds or math.inf))
        return self.round * (1.0 - max(spent)) <= LAST_ROUNDS * max(spent)

    def _probes(self) -> bool:
        return self._probing and (self.round < self._warm_up_rounds or self.round % self.probe_every == 0)

    def _of_all(self, choice: Choice, active: Ints) -> Ints:
        """Batches of all devices: the smallest for those that are not reckoned with."""
        batches = np.minimum(self.fleet.batch_range()[0], self.fleet.max_batch)
        batches[active] = choice.batch_sizes
        return batches

    def _fit(self, choice: Choice, call: Call, slow: npt.NDArray[np.bool_]) -> RoundPlan | Stopped:
        """Cut a choice to what is left; stop if not even the smallest round fits."""
        measured, expected = self._trusted_fleet, call.expected
        taking_part = np.zeros(len(measured))
        taking_part[call.participants] = 1.0
        found = fit_round(
            choice,
            active=expected,
            participants=call.participants,
            fleet=measured,
            left=self._left(call, taking_part),
            extra_evaluation=self._probes(),
            slow=slow,
            halves=self._state.knowledge.halves,
        )
        if isinstance(found, StopReason):
            return self._stop(found)
        heard, left = self.estimates.round_seconds.known, self.budget.time - call.begin
        deadline, slack = deadline_and_slack(
            measured, expected, found.seconds, self.deadline_slack, left, heard
        )
        return RoundPlan(
            round=self.round,
            local_steps=found.local_steps,
            batch_sizes=found.batch_sizes,
            learning_rate=self.learning_rate if choice.learning_rate is None else choice.learning_rate,
            extra_evaluation=found.extra_evaluation,
            deadline=deadline,
            predicted_cost=found.cost,
            predicted_seconds=found.seconds,
            rounds_left=choice.rounds,
            predicted_error=choice.predicted_error,
            rest_local_steps=choice.rest_local_steps,
            participants=call.participants,
            expected=expected,
            quorum=self.quorum,
            quorum_count=self.quorum_count,
            slack=slack,
            draws=call.draws,
            device_steps=None if np.all(found.steps == found.local_steps) else found.steps,
            starts_in=max(call.begin - self.spent_seconds, 0.0),
            policy=choice.policy or self.policy.name,
        )

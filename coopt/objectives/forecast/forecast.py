"""The forecast: the loss that a plan is expected to reach, from a quadratic model of every device."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.federation import LARGEST_STEP, Federation, kept
from coopt.objectives.forecast.model import Floats, LocalModel
from coopt.objectives.forecast.optimiser import AVERAGING, ClientAdam, Optimiser
from coopt.objectives.forecast.round_map import Ints
from coopt.objectives.forecast.source import Source
from coopt.objectives.forecast.stability import Stability
from coopt.objectives.monotone import inverse_batches
from coopt.objectives.participation import variance_share
from coopt.objectives.protocol import LOSS, Objective
from coopt.problem.batch_noise import refuse_tangent
from coopt.problem.fleet import Fleet
from coopt.problem.fleet_fields import naming_device
from coopt.problem.problem import Problem
from coopt.problem.readable import readable
from coopt.problem.validation import (
    count,
    float_array,
    instance,
    integer_array,
    optional_real,
    real,
    same_value,
)

# From here on steps along the largest curvature of the average loss overshoot by more than they correct.
STABLE = 2.0
# How many times larger the curvature of single samples is taken to become where a loss is not convex. On a
# small network the measured one grew a hundredfold in the first rounds, and twice it let training diverge.
CURVATURE_GROWTH = 4.0
# Federations that are remembered: an online run has one, a search over rates one for each.
KEPT = 2


class Plan(Protocol):
    """What a curve needs of a plan."""

    @property
    def problem(self) -> Problem:
        """The problem that the plan answers."""
        ...

    @property
    def rounds(self) -> int:
        """K."""
        ...

    @property
    def local_steps(self) -> int:
        """Tau."""
        ...

    @property
    def batch_sizes(self) -> NDArray[np.int64]:
        """s_i, shape (N,)."""
        ...


@readable
@dataclass(frozen=True, eq=False)
class Forecast(Objective):
    """The expected F - F* of a plan on a quadratic model of every device: a forecast, not a bound.

    Exact for quadratic losses with noise that does not depend on the model; elsewhere it is as good as the
    model, which was measured at one point in a few directions. Plans are ranked by it far better than by
    bounds, which hold for the worst loss with the same constants; its values are good to a factor of about
    two. Like every objective it is, for given rounds and local steps, an offset plus a sum of nonnegative
    weights over the batch sizes.

    Parameters
    ----------
    model : LocalModel
        What was measured. It knows its devices by position.
    learning_rate : float, optional
        eta [1 / curvature]; default that of the problem.
    trained : tuple of int, optional
        The devices that train, by their positions in the model; default all. The loss that counts stays that
        of all devices.
    optimiser : Optimiser
        Momentum and rates of devices and server; default plain federated averaging. The forecast is as exact
        with them as without.
    rate_growth : float, default inf
        Where learning rates are chosen, none is more than so many times the one that is given: its own, or
        that of the problem. A :class:`Measurement` of a loss that is not convex gives 1. Where it is finite,
        curvature is taken to grow: smallest batches keep rounds stable with four times what was measured.
    device_steps : tuple of int, optional
        Local steps that each device that trains takes at most, those of a plan in which some take fewer;
        their changes are multiplied by sum p_i tau_i / tau_i (FedNova), as the adapters do. Default: all
        devices take tau steps.

    Notes
    -----
    F* is the model's lowest value over the directions whose curvature is above :attr:`floor`. Curvatures
    above 1.9 / eta, which a few rows overestimate, are cut to it in the local steps.

    References
    ----------
    Zhang et al., "Which Algorithmic Choices Matter at Which Batch Sizes? Insights From a Noisy Quadratic
    Model", NeurIPS 2019, arXiv:1907.04164; Charles and Konecny, "Convergence and Accuracy Trade-Offs in
    Federated Learning and Meta-Learning", AISTATS 2021, arXiv:2103.05032.

    Examples
    --------
    Two devices that pull apart along one of two directions: more local steps drift further.

    >>> import numpy as np
    >>> from coopt import Budget, Constants, Fleet, Forecast, LocalModel, Problem
    >>> model = LocalModel(
    ...     weights=[0.5, 0.5],
    ...     gradients=[[1.0, 0.2], [1.0, -0.2]],
    ...     curvatures=[np.diag([1.0, 0.5]), np.diag([1.0, 0.1])],
    ...     covariances=[0.1 * np.eye(2)] * 2,
    ...     samples=[100, 100],
    ... )
    >>> problem = Problem(Fleet([100, 100], 0.2, 0.2), Constants(0.1, 1.0, 0.5), Budget())
    >>> forecast = Forecast(model)
    >>> [round(forecast.value(problem, 100 // tau, tau, 10), 5) for tau in (1, 5, 50)]
    [0.00026, 0.00036, 0.01224]
    """

    __module__ = "coopt"

    model: LocalModel
    learning_rate: float | None = None
    trained: tuple[int, ...] | None = None
    optimiser: Optimiser = AVERAGING
    rate_growth: float = math.inf
    device_steps: tuple[int, ...] | None = None
    # What was computed for one federation serves every plan for it, and every copy of the forecast.
    _known: OrderedDict[object, Federation] = field(default_factory=OrderedDict, repr=False, compare=False)

    quantity = "Predicted error"
    unit = LOSS
    proved = False

    def __post_init__(self) -> None:
        instance("model", self.model, LocalModel)
        instance("optimiser", self.optimiser, Optimiser)
        _ = self.optimiser.linear
        growth = real("rate_growth", self.rate_growth, minimum=0.0, strict=True, infinite=True)
        object.__setattr__(self, "rate_growth", growth)
        rate = optional_real("learning_rate", self.learning_rate, minimum=0.0, strict=True)
        object.__setattr__(self, "learning_rate", rate)
        if self.device_steps is not None:
            steps = integer_array("device_steps", self.device_steps, self.devices, minimum=1)
            object.__setattr__(self, "device_steps", tuple(steps.tolist()))

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        return "forecast"

    @property
    def forecast(self) -> Forecast:
        """The forecast itself."""
        return self

    @property
    def source(self) -> Source:
        """The measurement that it was made from, the devices of it that train, and how they step."""
        return Source(self.model.digest, self.trained, self.optimiser)

    @property
    def floor(self) -> float:
        """Curvature from which on a direction counts for F* [curvature]."""
        return self.model.loss.floor

    @property
    def initial_gap(self) -> float:
        """F - F* where the model was measured [loss]."""
        return self.model.loss.initial_gap

    @property
    def largest_rate(self) -> float:
        """The learning rate from which on training is unstable [1 / curvature]."""
        largest = self.model.loss.largest + self.optimiser.linear.decay
        return STABLE * self.optimiser.linear.stretch / largest if largest > 0.0 else math.inf

    @property
    def devices(self) -> int:
        """How many devices train."""
        return len(self.model) if self.trained is None else len(self.trained)

    def with_learning_rate(self, learning_rate: float | None) -> Forecast:
        """The same at another learning rate; None leaves it to the problem."""
        return replace(self, learning_rate=learning_rate)

    def with_device_steps(self, device_steps: Ints | None) -> Forecast:
        """The same where each device takes at most so many local steps; None: as many as the plan says."""
        return replace(self, device_steps=None if device_steps is None else tuple(device_steps.tolist()))

    def restricted(self, devices: Iterable[int]) -> Forecast:
        """The forecast where only these of its devices train.

        Parameters
        ----------
        devices : iterable of int
            Positions among the devices of this forecast, in the order of the fleet that trains.

        Raises
        ------
        InvalidProblemError
            If a position is out of range.
        """
        own = range(len(self.model)) if self.trained is None else self.trained
        places = [count("devices", device, minimum=0) for device in devices]
        for place in places:
            if place >= len(own):
                raise InvalidProblemError(
                    f"devices = {place}: must be below {len(own)}, the devices of the forecast"
                )
        steps = None if self.device_steps is None else tuple(self.device_steps[place] for place in places)
        return replace(self, trained=tuple(own[place] for place in places), device_steps=steps)

    def rate(self, problem: Problem) -> float:
        """The learning rate: its own, or that of the problem."""
        return problem.constants.learning_rate if self.learning_rate is None else self.learning_rate

    @property
    def curvature_stays(self) -> bool:
        """Whether training is taken to meet the curvature that was measured, as where a loss is convex."""
        return math.isinf(self.rate_growth)

    def largest_choice(self, problem: Problem) -> float:
        """The largest learning rate that is chosen where rates are free [1 / curvature]."""
        return min(LARGEST_STEP / STABLE * self.largest_rate, self.rate_growth * self.rate(problem))

    def federation(self, problem: Problem) -> Federation:
        """The devices that train, tied to a learning rate, to weights, and to who takes part.

        Raises
        ------
        InvalidProblemError
            If the fleet has another number of devices, noise of batches or step noise that the model cannot
            place, the learning rate is not below `largest_rate`, or devices with steps of their own are drawn
            for each round.
        """
        fleet, budget = problem.fleet, problem.budget
        refuse_tangent(
            fleet,
            "a forecast has measured the noise of samples itself; give the fleet that it was made of, with "
            "step_noise = R / s**2 at the batches s of the last plan, and plan again until they stay",
        )
        if len(fleet) != self.devices:
            raise InvalidProblemError(
                f"the fleet has {len(fleet)} devices, and the forecast was measured for {self.devices}: it "
                "knows them by position; use Forecast.restricted where some of them never train"
            )
        rate, decay = self.rate(problem), self.optimiser.linear.decay
        if decay > 0.0 and self.model.point is None:
            raise InvalidProblemError(
                f"weight_decay = {decay!r} of {self.optimiser.client}: the forecast does not know the model "
                "that decays; measure again, or give LocalModel(..., point=...)"
            )
        if rate >= self.largest_rate:
            raise InvalidProblemError(
                f"learning_rate = {rate!r}: training is unstable from {self.largest_rate:.6g} on, by the "
                f"largest curvature that was measured, {self.model.loss.largest:.6g}"
            )
        if self.device_steps is not None and budget.participants is not None:
            raise InvalidProblemError(
                f"device_steps with participants = {budget.participants}: by what a change counts depends on "
                "who else is drawn, which no forecast knows; let all devices take part, or give all the same "
                "steps"
            )
        drawn = variance_share(len(fleet), budget.participants, budget.distinct_participants)
        shares, added = fleet.weights, self._noise_shares(problem)
        noise_shares, lasting = added, added * self.lasting(fleet)
        if fleet.replacement:
            # The variance among the samples held is smaller than that of what they are drawn from.
            noise_shares = added * ((fleet.samples - 1.0) / fleet.samples)
        how = self.optimiser.linear
        arrays = shares, noise_shares, lasting
        key = (self.trained, rate, float(drawn), how, self.device_steps, *(x.tobytes() for x in arrays))
        most = None if self.device_steps is None else np.array(self.device_steps)
        return kept(
            self._known,
            key,
            KEPT,
            lambda: Federation.of(
                self.model, self.trained, rate, shares, noise_shares, float(drawn), how, lasting, most
            ),
        )

    def stability(self, problem: Problem) -> Stability:
        """Which batches keep training stable, at the learning rate that it has for a problem."""
        single = self.model.single * (1.0 if self.curvature_stays else CURVATURE_GROWTH)
        own = single if self.trained is None else single[list(self.trained)]
        return Stability(self.federation(problem), own)

    def cautions(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats, value: float
    ) -> tuple[str, ...]:
        """A warning of plans that are not stable in the mean square, where the forecast sees no noise."""
        batches = np.maximum(np.round(batch_sizes), 1.0).astype(np.int64)
        if self.stability(problem).smallest(local_steps, batches, batches) is not None:
            return ()
        text = (
            f"local_steps = {local_steps} at learning_rate = {self.rate(problem):.6g} with these batches may "
            "diverge: some device is so steep that its steps overshoot, or the noise of its curvature undoes "
            "what training gains; take fewer local steps, a smaller rate, or larger batches"
        )
        return (text,)

    def lasting(self, fleet: Fleet) -> Floats:
        """Variance along every direction of the noise of a step that no batch removes, (N,) [gradient^2].

        It is the same in all directions of the whole model, so that each gets V_i / n.

        Raises
        ------
        InvalidProblemError
            If there is such noise, and the model does not say how many directions there are, or Adam measures
            each parameter in a unit of its own.
        """
        if not fleet.step_noise.any():
            return np.zeros(len(fleet))
        noisiest = int(fleet.step_noise.argmax())
        of = naming_device(f"step_noise[{noisiest}] = {float(fleet.step_noise[noisiest])!r}", fleet.names)
        if isinstance(self.optimiser.client, ClientAdam):
            raise InvalidProblemError(
                f"{of}: Adam measures each parameter in a unit of its own, in which this noise is not the "
                "same in all directions; plan with a bound such as Certified(), or with ClientSGD"
            )
        if self.model.parameters is None:
            raise InvalidProblemError(
                f"{of}: the forecast does not know over how many parameters this noise spreads; measure "
                "again, or give LocalModel(..., parameters=...)"
            )
        found: Floats = fleet.step_noise / self.model.parameters
        return found

    def _noise_shares(self, problem: Problem) -> Floats:
        """With which the noise of devices is added: squared weights, as often as they are drawn."""
        fleet, budget = problem.fleet, problem.budget
        shares, taken = fleet.weights**2, budget.participants
        if taken is not None and budget.distinct_participants:
            shares = shares * (len(fleet) / taken)
        elif taken is not None:
            shares = shares + fleet.weights * (1.0 - fleet.weights) / taken
        return shares

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        """(offset, weights), weights of shape (N,), of the forecast offset + sum(weights / batch_sizes).

        Raises
        ------
        InvalidProblemError
            If the fleet has another number of devices, or the learning rate is not below `largest_rate`.
        """
        mean, weights = self._at(problem, np.array([count("rounds", rounds)]), local_steps)
        offset = float(mean[0])
        if not problem.fleet.replacement:
            offset -= float(np.sum(weights[:, 0] / problem.fleet.samples))
        return offset, weights[:, 0]

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Expected F - F* of one plan [loss]; inf where it is no finite number.

        Parameters
        ----------
        problem : Problem
        rounds, local_steps : int
        batch_sizes : array_like, shape (N,)
        """
        return float(self._values(problem, np.array([count("rounds", rounds)]), local_steps, batch_sizes)[0])

    def curve(self, plan: Plan) -> Floats:
        """Expected F - F* before training and after each round of a plan, shape (K + 1,) [loss]."""
        rounds = np.arange(1, plan.rounds + 1)
        values = self._values(plan.problem, rounds, plan.local_steps, plan.batch_sizes)
        return np.concatenate([[self.initial_gap], values])

    def _values(
        self, problem: Problem, rounds: NDArray[np.int64], local_steps: int, batch_sizes: ArrayLike
    ) -> Floats:
        batches = float_array("batch_sizes", batch_sizes, len(problem.fleet), minimum=0.0, strict=True)
        inverse = inverse_batches(batches, None if problem.fleet.replacement else problem.fleet.samples)
        federation, tau = self.federation(problem), count("local_steps", local_steps)
        packed = inverse @ federation.noise(tau) + federation.lasting_noise(tau)
        values = federation.mean(rounds, tau) + packed @ federation.rounds(tau).sensitivity(rounds)
        return np.where(np.isfinite(values), values, math.inf)

    def _at(self, problem: Problem, rounds: NDArray[np.int64], local_steps: int) -> tuple[Floats, Floats]:
        federation, tau = self.federation(problem), count("local_steps", local_steps)
        return federation.full(rounds, tau), federation.weights(rounds, tau)

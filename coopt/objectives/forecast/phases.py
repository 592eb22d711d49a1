"""Plans that change on the way: the forecast of several phases, each with its own rounds, steps and rate.

The mean of the model goes through the phases one after the other, and the server's momentum with it. The
noise of a phase goes through the rounds that follow it: backwards from the loss, A <- M^K A M^K is what a
phase passes on to the one before, and the sum of M^k A M^k is what the noise of its own rounds meets. So the
expected loss is still an offset plus a sum of nonnegative weights over the batches, now of every device in
every phase.

References
----------
Zhang et al., "Which Algorithmic Choices Matter at Which Batch Sizes? Insights From a Noisy Quadratic Model",
NeurIPS 2019, arXiv:1907.04164, for one machine and learning rates that change.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coopt.objectives.forecast.federation import Federation, kept
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.model import Floats
from coopt.objectives.forecast.round_map import packed_places
from coopt.objectives.forecast.sampled_rounds import Rounds, SampledRounds
from coopt.objectives.monotone import inverse_batches
from coopt.problem.problem import Problem

# Learning rates whose federations are remembered, at most, and what they may take of memory [bytes] if each
# of them is asked for so many numbers of local steps.
MOST_RATES, RATE_BYTES, STEPS_EACH = 64, 2**28, 8


@dataclass(frozen=True, order=True)
class Setting:
    """What a phase is before its batches are known.

    Attributes
    ----------
    rounds, local_steps : int
        K and tau.
    learning_rate : float
        eta [1 / curvature].
    """

    rounds: int
    local_steps: int
    learning_rate: float


class Phases:
    """The forecasts of all plans in phases for one problem.

    Parameters
    ----------
    forecast : Forecast
        Its own learning rate plays no part: each phase has one.
    problem : Problem
    """

    def __init__(self, forecast: Forecast, problem: Problem) -> None:
        self.forecast, self.problem = forecast, problem
        m = forecast.model.gradients.shape[1]
        size = 8 * len(problem.fleet) * m * (m + 1) // 2
        self._most = min(max(RATE_BYTES // (size * STEPS_EACH), 4), MOST_RATES)
        self._known: OrderedDict[float, Federation] = OrderedDict()

    def federation(self, learning_rate: float) -> Federation:
        """The devices at a learning rate; InvalidProblemError if it is not below the largest stable one."""
        return kept(
            self._known,
            learning_rate,
            self._most,
            lambda: self.forecast.with_learning_rate(learning_rate).federation(self.problem),
        )

    def coefficients(self, settings: Sequence[Setting]) -> tuple[float, Floats]:
        """(offset, weights), weights of shape (P, N), of the forecast offset + sum(weights / batch_sizes)."""
        mean, weights = self.parts(settings)
        fleet = self.problem.fleet
        return mean if fleet.replacement else mean - float(np.sum(weights / fleet.samples)), weights

    def parts(self, settings: Sequence[Setting]) -> tuple[float, Floats]:
        """F - F* but for the noise of batches, and what batches of one add, shape (P, N)."""
        own = [self.federation(each.learning_rate) for each in settings]
        passed = [f.rounds(each.local_steps) for f, each in zip(own, settings, strict=True)]
        mean, met = _passed(passed, [each.rounds for each in settings])
        placed = list(zip(own, settings, met, strict=True))
        mean += sum(float(f.lasting_noise(each.local_steps) @ column) for f, each, column in placed)
        weights = [f.noise(each.local_steps) @ column for f, each, column in placed]
        return mean, np.maximum(np.array(weights), 0.0)

    def value(self, settings: Sequence[Setting], batch_sizes: Floats) -> float:
        """Expected F - F* of one plan, batches of shape (P, N) [loss]; inf where it is no finite number."""
        mean, weights = self.parts(settings)
        value = mean + float(np.sum(weights * self._inverse(batch_sizes)))
        return value if math.isfinite(value) else math.inf

    def curve(self, settings: Sequence[Setting], batch_sizes: Floats) -> Floats:
        """Expected F - F* before training and after each round, shape (1 + sum of the rounds,) [loss]."""
        m = self.forecast.model.gradients.shape[1]
        rows, columns, _ = packed_places(m)
        moments: Floats | None = None
        losses = [np.array([self.forecast.initial_gap])]
        for each, inverse in zip(settings, self._inverse(batch_sizes), strict=True):
            own = self.federation(each.learning_rate)
            noise = np.zeros((m, m))
            packed = inverse @ own.noise(each.local_steps) + own.lasting_noise(each.local_steps)
            noise[rows, columns] = noise[columns, rows] = packed
            passed = own.rounds(each.local_steps)
            start = passed.moments if moments is None else moments
            found, moments = passed.follow(start, noise, each.rounds)
            losses.append(found)
        values = np.concatenate(losses)
        return np.where(np.isfinite(values), values, math.inf)

    def _inverse(self, batch_sizes: Floats) -> Floats:
        """By what the noise of a sample is multiplied, shape (P, N)."""
        fleet = self.problem.fleet
        return inverse_batches(batch_sizes, None if fleet.replacement else fleet.samples)


def _passed(rounds: Sequence[Rounds], counts: Sequence[int]) -> tuple[float, list[Floats]]:
    """F - F* without noise after all phases, and what the noise of each phase meets, packed as a column."""
    met: list[Floats] = []
    drawn = [each for each in rounds if isinstance(each, SampledRounds)]
    if drawn:
        form = drawn[-1].form
        for one, k in zip(reversed(drawn), reversed(counts), strict=True):
            column, form = one.backward(form, k)
            met.append(column)
        return float(np.sum(form * drawn[0].moments)), met[::-1]
    full = [each for each in rounds if not isinstance(each, SampledRounds)]
    loss, away, form = full[0].loss, full[0].origin, full[0].form
    for each, k in zip(full, counts, strict=True):
        away = each.onward(away, k)
    for each, k in zip(reversed(full), reversed(counts), strict=True):
        column, form = each.backward(form, k)
        met.append(column)
    return float(loss.at(away[None, : loss.best.size])[0]), met[::-1]

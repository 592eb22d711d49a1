"""Search for a plan in phases: descent in the rounds, local steps and learning rates of all phases.

Plans of one phase come first, from the global solver. A plan of P + 1 phases then starts from one of P with a
phase divided in two, in several ways: more local steps with the early part, fewer or a smaller rate with the
late one. Each start goes downhill by factors on rounds, steps and rates, and on pairs of them that use the
same of the limits, first by large factors, then by small ones; the best starts go on to the smallest.
Batches follow from :mod:`coopt.solvers.schedule.batches`. So a plan of more phases is never worse than what
was found with fewer. Nothing is proved of plans that were not looked at.

A plan for limits that were a little different is stretched, or shortened, to what is allowed now, and goes
downhill from there by small factors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.phases import Setting
from coopt.problem.problem import Problem
from coopt.solvers.schedule.batches import Batches, Filled, Settings
from coopt.solvers.whole_units.batches import Ints

# Factors by which rounds, steps and rates are changed: until none helps, then the next. The first ones are
# for all starts, the others for the best of them.
COARSE, FINE = (2.0, 1.4), (1.15, 1.05, 1.0)
# So many starts are followed, so many of these go on to the fine factors, and so many plans get whole
# batches.
STARTS, KEPT, WHOLE = 6, 2, 4
# Two forecasts that differ by less are the same.
SAME = 1e-9
# How a phase is divided: the part of its rounds that comes early, what its local steps are multiplied with
# early and late at the same number of steps, and its rate late.
SHARES = (0.25, 0.5, 0.8)
EARLY_STEPS, LATE_STEPS, LATE_RATES = (1.0, 4.0), (1.0, 0.25), (1.0, 0.3)
# Rates are told apart down to this ratio.
SMALLEST_RATIO = 1.05
# Up to so many rounds two smallest changes at once are tried: where numbers are small, one is a large step.
FEW_ROUNDS = 40
# Moves of each phase, where its rate is given and where it is free.
GIVEN_MOVES, FREE_MOVES = 6, 10
# Moves of one descent, at most.
MOST_MOVES = 200


@dataclass(frozen=True)
class Course:
    """A plan in phases with its forecast."""

    value: float
    settings: Settings
    batch_sizes: Ints


def search(
    problem: Problem,
    forecast: Forecast,
    first: Course,
    phases: int,
    *,
    free: bool,
    deadline: float = math.inf,
    progress: Callable[[int], object] | None = None,
) -> tuple[Course, int]:
    """A good plan of at most so many phases, and how many settings were looked at.

    Parameters
    ----------
    problem : Problem
    forecast : Forecast
    first : Course
        The best plan of one phase, or a plan of more phases to go on from.
    phases : int
    free : bool
        Whether each phase has a learning rate of its own.
    deadline : float
        By time.perf_counter(); the search stops there with the best so far.
    progress : callable, optional
        Called with the number of settings looked at.
    """
    batches = Batches.trusted(problem, forecast, free=free)
    descent = _Descent(batches, free, deadline, progress)
    best = first
    for _ in range(len(first.settings), phases):
        best = min(best, descent.improved(best), key=lambda course: course.value)
    return best, batches.evaluated


def stretched(
    problem: Problem, forecast: Forecast, settings: Settings, *, free: bool, deadline: float = math.inf
) -> Course | None:
    """The plan that these settings, found for other limits, lead to within these; None if none fits."""
    descent = _Descent(Batches.trusted(problem, forecast, free=free), free, deadline, None)
    return descent.stretched(settings)


class _Descent:
    def __init__(
        self, batches: Batches, free: bool, deadline: float, progress: Callable[[int], object] | None
    ) -> None:
        self.batches, self.free, self.deadline, self.progress = batches, free, deadline, progress
        self._own = FREE_MOVES if free else GIVEN_MOVES
        self.largest_rate = batches.forecast.largest_choice(batches.problem)
        self._values: dict[Settings, float] = {}

    def value(self, settings: Settings) -> float:
        """The forecast of the best plan with these settings, nearly; remembered."""
        if settings not in self._values:
            if time.perf_counter() > self.deadline:
                return math.inf
            self._values[settings] = self.batches.relaxed(settings)
            if self.progress is not None:
                self.progress(self.batches.evaluated)
        return self._values[settings]

    def improved(self, course: Course) -> Course:
        """The best plan found with one phase more; the same where there is none."""
        self._values = {}
        starts = sorted(
            {start: self.value(start) for start in self._divided(course.settings)}.items(), key=_second
        )
        ends = {self._downhill(start, COARSE) for start, value in starts[:STARTS] if value < math.inf}
        for end in sorted(ends, key=self.value)[:KEPT]:
            self._downhill(end, FINE)
        best = course
        order = sorted((value, settings) for settings, value in self._values.items() if value < best.value)
        for _, settings in order[:WHOLE]:
            best = self._whole(settings, best)
        if best is not course:
            best = self._polished(best)
        return best

    def stretched(self, settings: Settings) -> Course | None:
        """The best plan found near these settings; None where not even their shortest form fits."""
        while not self.batches.fits(settings):
            shorter = _all_rounds(settings, FINE[0], up=False)
            if shorter == settings:
                return None
            settings = shorter
        up = True
        while self.value(more := _all_rounds(settings, FINE[0], up=up)) < self.value(settings):
            settings = more
        settings = self._downhill(settings, FINE)
        filled = self.batches.whole(settings)
        return None if filled is None else Course(filled.value, settings, filled.batch_sizes)

    def _divided(self, settings: Settings) -> Iterator[Settings]:
        """Plans of one phase more that start as this one does."""
        for p, whole in enumerate(settings):
            before, after = settings[:p], settings[p + 1 :]
            halved = replace(whole, rounds=2, local_steps=max(whole.local_steps // 2, 1))
            one = halved if whole.rounds == 1 else whole
            for share in SHARES:
                early = min(max(round(share * one.rounds), 1), one.rounds - 1)
                halves = replace(one, rounds=early), replace(one, rounds=one.rounds - early)
                for more in EARLY_STEPS:
                    for fewer in LATE_STEPS:
                        for slower in LATE_RATES if self.free else (1.0,):
                            late = _with_steps(halves[1], fewer)
                            late = replace(late, learning_rate=late.learning_rate * slower)
                            yield (*before, _with_steps(halves[0], more), late, *after)

    def _downhill(self, settings: Settings, factors: Iterable[float]) -> Settings:
        """Where moves by these factors lead."""
        value = self.value(settings)
        moves = 0
        for factor in factors:
            better = True
            while better and moves < MOST_MOVES:
                better = False
                for move in range(self._moves(len(settings))):
                    # A move that helps is made again.
                    while moves < MOST_MOVES:
                        moved = self._moved(settings, move, factor)
                        if moved is None or not self.value(moved) < value * (1.0 - SAME):
                            break
                        settings, value, better = moved, self.value(moved), True
                        moves += 1
        return settings

    def _moves(self, phases: int) -> int:
        return self._own * phases + phases * (phases - 1)

    def _moved(self, settings: Settings, move: int, factor: float) -> Settings | None:
        """The plan after one of the moves; None where it stays."""
        own = self._own * len(settings)
        if move >= own:
            # Rounds go from one phase to another, at about the same number of steps.
            pairs = [(p, q) for p in range(len(settings)) for q in range(len(settings)) if p != q]
            p, q = pairs[move - own]
            more, fewer = self._one(settings[p], 0, factor), self._one(settings[q], 1, factor)
            if more is None or fewer is None:
                return None
            changed = list(settings)
            changed[p], changed[q] = more, fewer
            return tuple(changed)
        p, kind = divmod(move, own // len(settings))
        one = self._one(settings[p], kind, factor)
        return None if one is None else (*settings[:p], one, *settings[p + 1 :])

    def _one(self, setting: Setting, kind: int, factor: float) -> Setting | None:
        """A phase after a move of its own.

        Of rounds, of steps, of both against each other; of the rate, alone and against the rounds, so that
        all steps together go as far.
        """
        k, tau, rate = setting.rounds, setting.local_steps, setting.learning_rate
        up = kind % 2 == 0
        if kind < 2:
            found = replace(setting, rounds=_scaled(k, factor, up))
        elif kind < 4:
            found = replace(setting, local_steps=_scaled(tau, factor, up))
        elif kind < 6:
            steps = _scaled(tau, factor, up)
            found = replace(setting, local_steps=steps, rounds=max(round(k * tau / steps), 1))
        else:
            ratio = max(factor, SMALLEST_RATIO)
            changed = min(rate * ratio, self.largest_rate) if up else rate / ratio
            found = replace(setting, learning_rate=changed)
            if kind >= FREE_MOVES - 2:
                found = replace(found, rounds=max(round(k * rate / changed), 1))
        return None if found == setting else found

    def _whole(self, settings: Settings, best: Course, cutoff: float | None = None) -> Course:
        """The better of a plan and that of these settings with whole batches."""
        found: Filled | None = self.batches.whole(settings, cutoff)
        if found is None or not found.value < best.value:
            return best
        return Course(found.value, settings, found.batch_sizes)

    def _polished(self, course: Course) -> Course:
        """One round or step more or less, or two such changes at once, as long as that helps."""
        better = True
        while better and time.perf_counter() < self.deadline:
            before = course
            course = self._best_near(course, self._near(course.settings))
            if course is before and sum(each.rounds for each in before.settings) <= FEW_ROUNDS:
                twice = {far for near in self._near(before.settings) for far in self._near(near)}
                course = self._best_near(course, twice)
            better = course is not before
        return self._whole(course.settings, course, course.value)

    def _near(self, settings: Settings) -> set[Settings]:
        """Where one smallest move leads."""
        moved = (self._moved(settings, move, 1.0) for move in range(self._moves(len(settings))))
        return {each for each in moved if each is not None}

    def _best_near(self, course: Course, near: set[Settings]) -> Course:
        """The best of some settings and a plan, where whole batches are tried for the most promising."""
        known = sorted((self.value(settings), settings) for settings in near)
        for value, settings in known[:WHOLE]:
            if value < course.value * (1.0 - SAME):
                course = self._whole(settings, course)
        return course


def _scaled(number: int, factor: float, up: bool) -> int:
    """A whole number times or over a factor, but changed by one at least; never below one."""
    if up:
        return max(round(number * factor), number + 1)
    return max(min(round(number / factor), number - 1), 1)


def _all_rounds(settings: Settings, factor: float, *, up: bool) -> Settings:
    """More rounds of every phase, or fewer."""
    found = (replace(each, rounds=_scaled(each.rounds, factor, up)) for each in settings)
    return tuple(found)


def _with_steps(setting: Setting, factor: float) -> Setting:
    """The same number of steps in longer or shorter rounds."""
    steps = max(round(setting.local_steps * factor), 1)
    rounds = max(round(setting.rounds * setting.local_steps / steps), 1)
    return replace(setting, local_steps=steps, rounds=rounds)


def _second(item: tuple[Settings, float]) -> float:
    return item[1]

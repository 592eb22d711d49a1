"""The search over all (K, tau) with compiled loops: ranges of local steps, each with all its rounds at once.

What bounds a range, and why, is as in :mod:`coopt.solvers.cutting`: rows and integer optima in normalised
directions. The order differs. Only local steps are divided here, since only they need new error floors;
everything else, rounds and inner problems, is left to :mod:`coopt.compiled`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from coopt.bound import Exponential, Progress
from coopt.compiled import data, search
from coopt.compiled.passes import CAPPED_UP_TO
from coopt.monotone import MonotoneForm
from coopt.solvers.cutting import Left
from coopt.solvers.ranges import Ranges
from coopt.solvers.search import Incumbent
from coopt.solvers.streamed import Streamed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The range of local steps is cut into so many parts to begin with, and what is left of each into so many.
FIRST_PARTS, PARTS = 12, 4
# Ranges looked at together. Up to so many devices solving is cheap, and not counted in a look.
BATCH, CHEAP, SOLVES = 8, 10_000, 1_000_000
# Rows and integer optima kept.
MOST_ROWS, MOST_WHOLES = 64, 448
# Rounds that the first guess tries at each number of local steps, for about so many devices.
GUESSES, GUESSED_FROM = 6, 64


@dataclass(frozen=True)
class _Spans:
    """Ranges of local steps, shape (n, 2), each with its members, of which the first `counts` are active."""

    steps: Ints
    active: Ints
    counts: Ints
    bounds: Floats

    def take(self, places: NDArray[np.intp] | NDArray[np.bool_] | slice) -> _Spans:
        """Some of the ranges."""
        return _Spans(self.steps[places], self.active[places], self.counts[places], self.bounds[places])

    def parted(self, count: int) -> _Spans:
        """All ranges cut into so many parts."""
        parts = [_parts(low, high, count) for low, high in self.steps.tolist()]
        origin = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        cut = self.take(origin)
        return replace(cut, steps=np.concatenate(parts)) if parts else cut


class Sweep:
    """The compiled search of one problem, or of a sample of its devices.

    Parameters
    ----------
    form : MonotoneForm
    progress : Exponential or Reciprocal
        That of the form.
    ranges : Ranges
        Without plans that match others.
    inner : Streamed
    tolerance, ceiling : float
        The relative gap that does, and the value from which on plans are of no interest.
    sample : Sweep, optional
        That of a sample of the devices, already run: the search begins where that one ended, and each solve
        where one for the sample ends.
    """

    def __init__(
        self,
        form: MonotoneForm,
        progress: Progress,
        ranges: Ranges,
        inner: Streamed,
        tolerance: float,
        ceiling: float,
        sample: Sweep | None = None,
    ) -> None:
        self.form, self.ranges, self.inner = form, ranges, inner
        size, self.members = len(inner.devices), _members(progress)
        self.tolerance, self.ceiling = tolerance, ceiling
        self._cheap = size <= CHEAP
        self._start: list[float] | None = None if sample is None else sample.best[1:4].tolist()
        self.known = data.Known(
            counts=np.zeros(4, dtype=np.int64),
            angles=np.empty(MOST_ROWS + MOST_WHOLES),
            levels=np.empty(MOST_ROWS + MOST_WHOLES),
            rows=np.empty((MOST_ROWS, 5)),
            wholes=np.empty((MOST_WHOLES, 6)),
            best=np.array([math.inf, 0.0, 0.0, -1.0, math.inf, 0.0, 0.0]),
            units=(np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)),
            warm=np.zeros((2, 2)) if sample is None else sample.warm_starts,
            ends=inner.ends,
        )
        self.scratch = data.Scratch(
            places=np.empty(size, dtype=np.int64),
            many=np.empty(size, dtype=np.int64),
            caps=np.empty(min(size, CAPPED_UP_TO)),
            ahead=np.empty((self.members.rate.size, 4)),
        )
        devices, limits, scales = self._described(inner)
        # The slices are of nobody.
        pilot = devices._replace(first=devices.first[:0], second=devices.second[:0]), limits, scales
        if sample is not None:
            pilot = self._described(sample.inner)
        self.system = data.System(
            devices, limits, pilot[0], pilot[1], self.members, np.array([scales, pilot[2]])
        )
        self._columns: dict[int, Floats] = {}

    @property
    def best(self) -> Floats:
        """The best plan and the least bound of what was discarded, see :class:`coopt.compiled.data.Known`."""
        return self.known.best

    @property
    def units(self) -> Ints:
        """Units of the best plan's batches, shape (N,)."""
        return self.known.units[int(self.known.counts[3])]

    @property
    def solves(self) -> int:
        """Inner problems solved."""
        return int(self.known.counts[1:3].sum())

    @property
    def warm_starts(self) -> Floats:
        """Where the solves for all devices begin after this search for a sample, and those for the sample."""
        share = self.inner.share
        level, price = self.known.warm[0].tolist()
        return np.array([[level / math.sqrt(share), price + math.log(share)], [level, price]])

    def run(self, deadline: float, best: Incumbent | None = None) -> Left | None:
        """Rule out what can be, and what is no better than a plan; return what is left, None if nothing."""
        if best is not None:
            self.best[:3] = best.value, best.rounds, best.local_steps
        (k1, k2), (t1, t2) = self.ranges.rounds, self.ranges.local_steps
        rounds = float(k1), float(k2)
        self._begin(*(self._start or self._guess(rounds, _parts(t1, t2, FIRST_PARTS)[:, 0])))
        everyone = np.arange(len(self.form.members))
        whole = _Spans(np.array([[t1, t2]]), everyone[None], np.array([everyone.size]), np.array([-math.inf]))
        spans = self._look(whole.parted(FIRST_PARTS), rounds, 0)
        stuck = False
        while spans.bounds.size:
            if stuck or search.full(self.known) or time.perf_counter() > deadline:
                low, high = int(spans.steps[:, 0].min()), int(spans.steps[:, 1].max())
                return Left((k1, k2), (low, high), float(spans.bounds.min()))
            order = np.argsort(spans.bounds, kind="stable")
            some = spans.take(order[:BATCH])
            single = some.steps[:, 0] == some.steps[:, 1]
            if not self._cheap and single[0]:
                # Nothing else is done before the weakest of all has been solved.
                some, single = some.take(slice(1)), single[:1]
            solves = SOLVES if self._cheap else int(single[0])
            before = self.solves
            solved = self._look(some.take(single), rounds, solves)
            # There was no room to divide the rounds finely enough.
            stuck = solves > 0 and solved.bounds.size > 0 and self.solves == before
            parts = self._look(some.take(~single).parted(PARTS), rounds, 0)
            spans = _joined([spans.take(order[some.bounds.size :]), solved, parts])
        return None

    def _look(self, spans: _Spans, rounds: tuple[float, float], solves: int) -> _Spans:
        """What is left of ranges after a scan with so many inner solves."""
        if spans.bounds.size == 0:
            return spans
        counts = spans.counts.copy()
        left, bounds = search.scan(
            self.system,
            rounds,
            data.Spans(
                np.ascontiguousarray(spans.steps, dtype=np.float64),
                self._floors(spans.steps[:, 0]),
                spans.active,
                counts,
            ),
            data.Stop(self.tolerance, self.ceiling, solves),
            self.known,
            self.scratch,
        )
        found = _Spans(spans.steps, spans.active, counts, np.maximum(spans.bounds, bounds))
        return found.take(left)

    def _begin(self, rounds: float, local_steps: float, member: float) -> None:
        """A row and the integer optimum at a promising (K, tau)."""
        floors = self._floors(np.array([int(local_steps)]))[0]
        for _ in range(2):
            search.tighten(
                self.system,
                rounds,
                local_steps,
                floors,
                int(member),
                self.known,
                self.scratch,
            )

    def _guess(self, rounds: tuple[float, float], local_steps: Ints) -> tuple[float, float, float]:
        """A promising (K, tau) and member; the solves begin where the guess ended."""
        few = self.inner.sampled(-(-len(self.inner.devices) // GUESSED_FROM))
        pilot, pilot_limits, sums = self._described(few)
        scales = np.array([self.system.scales[0], sums])
        *found, level = search.promising(
            self.system._replace(pilot=pilot, pilot_limits=pilot_limits, scales=scales),
            rounds,
            local_steps.astype(np.float64),
            self._floors(local_steps),
            GUESSES,
        )
        level *= math.sqrt(self.inner.share / few.share)
        self.known.warm[0] = level, math.log(self.inner.unit_cost) - 2.0 * math.log(level)
        return found[0], found[1], found[2]

    def _floors(self, local_steps: Ints) -> Floats:
        """Offsets, sizes and angles of all members at several tau, shape (n, 3, m)."""
        taus = local_steps.tolist()
        new = [tau for tau in dict.fromkeys(taus) if tau not in self._columns]
        if new:
            found = self.inner.floors(new, np.arange(len(self.form.members)))
            self._columns |= zip(new, found, strict=True)
        return np.array([self._columns[tau] for tau in taus])

    def _described(self, inner: Streamed) -> tuple[data.Devices, data.Limits, Floats]:
        """The devices, their limits, and the sums of their noise terms."""
        budget = self.ranges.problem.plain.budget
        limits = data.Limits(
            budget.cost,
            budget.time,
            budget.round_cost,
            inner.unit_cost,
            self.ranges.least_work,
            *self.ranges.slowest,
            inner.own,
            inner.share,
        )
        return inner.devices.machine, limits, np.append(inner.scales, 1.0)[:2]


def _joined(spans: list[_Spans]) -> _Spans:
    return _Spans(
        *(np.concatenate([getattr(each, field.name) for each in spans]) for field in fields(_Spans))
    )


def _members(progress: Progress) -> data.Members:
    """Progress as compiled loops take it: members share few rates."""
    rate, kind = np.unique(
        progress.log_q if isinstance(progress, Exponential) else progress.rate, return_inverse=True
    )
    return data.Members(kind, rate, progress.gap if isinstance(progress, Exponential) else -1.0)


def _parts(low: int, high: int, count: int) -> Ints:
    """First and last of the parts of a range, geometrically, shape (n, 2)."""
    if high - low < count:
        firsts = list(range(low, high + 1))
    else:
        ratio = (high + 1) / low
        firsts = [low, *(int(low * ratio ** (part / count)) for part in range(1, count))]
        firsts = sorted({min(max(first, low), high) for first in firsts})
    lasts = [*(first - 1 for first in firsts[1:]), high]
    return np.array(list(zip(firsts, lasts, strict=True)))

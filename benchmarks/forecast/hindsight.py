"""Baselines tuned in hindsight: decays of the learning rate, and the best fixed plan over several rates.

Each run counts by its own end, so that the best of many is the better for chance; a plan that coopt chose is
the mean of several runs. Nothing that tuning takes is charged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.forecast.limits import CostLimit
from benchmarks.forecast.study import Pair, Study
from benchmarks.forecast.training import Run, checkpoints, kept_run, train

# First learning rates of the decays, over the federation's, and in how many parts they fall to zero.
DECAY_RATES, PARTS = (1.0, 2.0, 3.0, 6.0, 12.0), 20
# So many of the best fixed plans start a decay: 80 linear ones in all, and half as many cosines.
LINEAR_PLANS, COSINE_PLANS = 16, 8
# Rates of fixed plans, over the federation's.
FIXED_RATES = (0.25, 0.5, 1.0, 2.0, 3.0)
# Of the draws, apart from all others.
STREAM = 7000


def linear(part: float) -> float:
    """What is left of a rate that falls in a line, after this part of all rounds."""
    return 1.0 - part


def cosine(part: float) -> float:
    """What is left of a rate that falls as a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * part))


SHAPES: dict[str, tuple[Callable[[float], float], int]] = {
    "linear decay": (linear, LINEAR_PLANS),
    "cosine decay": (cosine, COSINE_PLANS),
}


def decayed(study: Study, pair: Pair, rounds: int, shape: str, factor: float) -> float:
    """F - F* at the end of one run of a plan of the grid whose learning rate falls to zero."""
    federation = study.federation
    left = SHAPES[shape][0]

    def make() -> Run:
        batches = np.full(len(federation), pair[1], dtype=np.int64)
        ends = np.unique(np.linspace(0, rounds, PARTS + 1).round().astype(np.int64))
        run: Run | None = None
        for place, (begin, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
            run = train(
                federation,
                pair[0],
                batches,
                np.array([end - begin], dtype=np.int64),
                1,
                None if run is None else run.models,
                learning_rate=federation.learning_rate * factor * left((begin + end) / 2.0 / rounds),
                stream=STREAM + place,
            )
            if not np.isfinite(run.losses[0, -1]):
                break
        assert run is not None
        return Run(np.zeros(1, dtype=np.int64), run.losses[:, -1:], np.zeros((1, 1), dtype=np.float32))

    kept = kept_run(study.case, ["decay", pair, rounds, shape, factor, PARTS], 1, make)
    return float(kept.losses[0, 0]) - study.lowest


def best_decay(
    study: Study, rounds: dict[Pair, int], gaps: dict[Pair, float], shape: str
) -> tuple[float, str]:
    """The smallest gap of all decays of a shape, and the plan in words."""
    plans = sorted(gaps, key=lambda pair: gaps[pair])[: SHAPES[shape][1]]
    found = {
        (pair, factor): decayed(study, pair, rounds[pair], shape, factor)
        for pair in plans
        for factor in DECAY_RATES
    }
    (pair, factor), gap = min(_finite(found), key=lambda item: item[1])
    return gap, f"{rounds[pair]} x {pair[0]}, s {pair[1]}, {factor:g} of {len(found)} runs"


def best_fixed(
    study: Study, limit: CostLimit, rounds: dict[Pair, int], gaps: dict[Pair, float]
) -> tuple[float, str]:
    """The smallest gap of all plans of the grid at any of the rates, and the plan in words."""
    found = {
        (pair, factor): gap if factor == 1.0 else fixed(study, pair, factor, limit.rounds(pair))
        for factor in FIXED_RATES
        for pair, gap in gaps.items()
    }
    (pair, factor), gap = min(_finite(found), key=lambda item: item[1])
    return gap, f"{rounds[pair]} x {pair[0]}, s {pair[1]}, {factor:g} of {len(found)} plans"


def fixed(study: Study, pair: Pair, factor: float, rounds: int) -> float:
    """F - F* after so many rounds of one run of a plan of the grid at another rate."""
    federation = study.federation

    def make() -> Run:
        return train(
            federation,
            pair[0],
            np.full(len(federation), pair[1], dtype=np.int64),
            checkpoints(federation, *pair),
            1,
            learning_rate=factor * federation.learning_rate,
            stream=STREAM,
        )

    return float(kept_run(study.case, ["fixed", pair, factor], 1, make).after(rounds)[0]) - study.lowest


def _finite(gaps: dict[tuple[Pair, float], float]) -> Iterator[tuple[tuple[Pair, float], float]]:
    return ((key, gap) for key, gap in gaps.items() if math.isfinite(gap))

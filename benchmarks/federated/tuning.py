"""A method's best setting: on other seeds, as one would find it by trials, or in hindsight.

Grids are searched in two stages: all settings at the common learning rate, then the best of them at others.
"""

from __future__ import annotations

import numpy as np

from benchmarks.federated.federation import Instance
from benchmarks.federated.methods import METHODS, Setting
from benchmarks.federated.runner import cell

# So many settings are tried at other rates; so many are run on all seeds where the best is told in hindsight.
REFINED, FINALISTS = 2, 2


def ranked(instance: Instance, method: str, seeds: range, device: str, *, rates: bool) -> list[Setting]:
    """Settings of the grid, and with `rates` the best of them at other rates, the most accurate first."""

    def accuracy(setting: Setting) -> float:
        return float(np.mean([cell(instance, method, setting, seed, device).accuracy for seed in seeds]))

    chosen = METHODS[method]
    scores = {setting: accuracy(setting) for setting in chosen.grid}
    if rates:
        for setting in sorted(scores, key=lambda s: -scores[s])[:REFINED]:
            for rate in chosen.rates:
                scores[*setting, rate] = accuracy((*setting, rate))
    return sorted(scores, key=lambda setting: -scores[setting])


def tuned(instance: Instance, method: str, seeds: range, device: str, *, rates: bool) -> Setting:
    """The most accurate setting on seeds that are not compared."""
    return ranked(instance, method, seeds, device, rates=rates)[0]


def in_hindsight(
    instance: Instance, method: str, tuning: range, seeds: range, device: str, *, rates: bool
) -> Setting:
    """The setting that is best on the very seeds that are compared, of those that are best on another one."""
    finalists = ranked(instance, method, tuning[:1], device, rates=False)[:FINALISTS]
    if rates:  # what is best at the common rate may be so at any
        finalists += ranked(instance, method, tuning[:1], device, rates=True)[:FINALISTS]
    return max(
        finalists,
        key=lambda setting: np.mean([cell(instance, method, setting, s, device).accuracy for s in seeds]),
    )

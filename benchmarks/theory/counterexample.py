"""Where the published bound is below the true error: two devices, one dimension, exact recursion.

F_{1,2}'(w) = c w +- (clip(L w, -e, e) + b): the mean is F(w) = c w^2/2, with minimum 0 at 0, where training
starts. Both devices have curvature in [c - L, c + L] and divergence at most b + e. Local steps bend the
average towards one side, because the clipped part acts on one device before it acts on the other.

Run: python -m benchmarks.theory.counterexample
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory.command import command_line
from coopt import Budget, Certified, Constants, Dynamite, Fleet, Problem


@dataclass(frozen=True)
class Counterexample:
    """The two devices, the step size and the local steps; smoothness is `curvature` + `bend` = 1."""

    learning_rate: float
    clip: float
    curvature: float = 0.1
    bend: float = 0.9
    push: float = 1.0
    local_steps: int = 2

    def gradient(self, model: float, sign: int) -> float:
        bent = min(max(self.bend * model, -self.clip), self.clip)
        return self.curvature * model + sign * (bent + self.push)

    def path(self, rounds: int) -> list[float]:
        """The averaged model after every round, from 0 = the minimiser."""
        models = [0.0]
        for _ in range(rounds):
            ends = []
            for sign in (1, -1):
                model = models[-1]
                for _ in range(self.local_steps):
                    model -= self.learning_rate * self.gradient(model, sign)
                ends.append(model)
            models.append(sum(ends) / 2.0)
        return models

    def settled(self) -> tuple[int, float]:
        """(rounds until the model moves no more, its error F(w) - F*)."""
        rounds = math.ceil(30.0 / (self.learning_rate * self.curvature * self.local_steps))
        return rounds, self.curvature * self.path(rounds)[-1] ** 2 / 2.0

    def simulate(self, rounds: int, noise: float, *, replicas: int, seed: int) -> tuple[float, float]:
        """(mean error, standard error) with Gaussian gradient noise of variance `noise` on each device."""
        rng = np.random.default_rng(seed)
        models = np.zeros(replicas)
        signs = np.array([[1.0], [-1.0]])
        for _ in range(rounds):
            local = np.tile(models, (2, 1))
            for _ in range(self.local_steps):
                bent = np.clip(self.bend * local, -self.clip, self.clip)
                slope = self.curvature * local + signs * (bent + self.push)
                local -= self.learning_rate * (slope + math.sqrt(noise) * rng.standard_normal(local.shape))
            models = local.mean(axis=0)
        errors = self.curvature * models**2 / 2.0
        return float(errors.mean()), float(errors.std(ddof=1) / math.sqrt(replicas))

    def problem(self, *, rho: float | None = None, noise: float = 0.0, known: bool = False) -> Problem:
        """The problem with its exact constants; `known` adds what is known beyond smoothness."""
        beta = self.curvature + self.bend
        return Problem(
            Fleet([1, 1], gradient_noise=noise, divergence=self.push + self.clip),
            Constants(
                self.learning_rate,
                beta,
                0.0,
                pl_constant=self.curvature,
                quadratic_continuity=rho,
                curvature_floor=self.curvature - self.bend if known else None,
                mean_smoothness=self.curvature if known else None,
            ),
            Budget(),
        )


CASES = (Counterexample(0.01, 0.194), Counterexample(0.001, 0.0194))


def compare(case: Counterexample, noise: float = 0.0, *, replicas: int = 400) -> Row:
    """True error against the bounds after the rounds that it takes to settle."""
    rounds, error = case.settled()
    error_se = 0.0
    if noise:
        error, error_se = case.simulate(rounds, noise, replicas=replicas, seed=0)

    def value(bound: Dynamite | Certified, problem: Problem) -> float:
        return bound.value(problem, rounds, case.local_steps, [1, 1])

    half = value(Dynamite(), case.problem(rho=(case.curvature + case.bend) / 2.0, noise=noise))
    return {
        "eta": case.learning_rate,
        "clip e": case.clip,
        "M/s": noise,
        "rounds": rounds,
        "true error": error,
        "standard error": error_se,
        "published, rho = beta/2": half,
        "true / published": error / half,
        "published, rho = 1/(eta tau)": value(Dynamite(), case.problem(noise=noise)),
        "certified": value(Certified(), case.problem(noise=noise)),
        "certified, ell and beta_F known": value(Certified(), case.problem(noise=noise, known=True)),
    }


def run(quick: bool, folder: Path) -> list[Row]:
    noisy = compare(CASES[0], 1e-4, replicas=20 if quick else 400)
    rows = [compare(CASES[0]), noisy] + ([] if quick else [compare(CASES[1])])
    save("counterexample", rows, folder)
    case, first = CASES[0], rows[0]
    path = case.path(first["rounds"])

    def draw(axes: Any) -> None:
        rounds = np.unique(np.geomspace(1, first["rounds"], 60).astype(int))
        axes.plot(rounds, [case.curvature * path[k] ** 2 / 2 for k in rounds], label="true error")
        for label, bound, problem in (
            ("published, rho = beta/2", Dynamite(), case.problem(rho=0.5)),
            ("published, rho = 1/(eta tau)", Dynamite(), case.problem()),
            ("certified", Certified(), case.problem()),
        ):
            values = [bound.value(problem, int(k), case.local_steps, [1, 1]) for k in rounds]
            axes.plot(rounds, values, "--", label=label)
        axes.set(xscale="log", yscale="log", xlabel="rounds K", ylabel="error")
        axes.legend(fontsize=8)

    picture("counterexample", draw, folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)

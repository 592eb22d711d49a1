"""What a bound says of any cohort: its coefficients, which do not depend on who trains.

At tau the error floor of every member (gamma, z) of the bound is

    G = kdd D + 2 kde sqrt(D) epsilon + kee epsilon^2 + sum_i M_i (alpha q_i^2 + kappa q_i (1 - q_i)) / s_i,

with D = sum q_i delta_i^2, the bias epsilon and the normalised weights q_i of those that train. All five
numbers are nonnegative, fall or stay where gamma and z range over more, and never fall in tau.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import MonotoneForm
from coopt.objectives.users_own import completed
from coopt.objectives.young import YoungFamily
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem
from coopt.solvers.roundoff import LOST_IN_SUMS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# In place of coefficients that no float holds: what is multiplied with it is still a float.
BEYOND = 1e150


class Effects:
    """Coefficients of a bound at any tau, for ranges of its members.

    Parameters
    ----------
    problem : Problem
        Its constants, and how many devices take part in a round.
    bound : YoungFamily
    """

    def __init__(self, problem: Problem, bound: YoungFamily) -> None:
        budget = problem.budget
        # What drawing distinct devices adds depends on how many train: it is nothing at least.
        drawn = None if budget.distinct_participants else budget.participants
        self._problem = replace(
            problem, budget=replace(budget, participants=drawn, distinct_participants=False)
        )
        self._bound = bound
        self._spread, self._biased = self._form(0.0, 1.0, 0.0), self._form(0.0, 0.0, 1.0)
        # z = 0 shows what divergence and bias do, z = 1 and z = inf what noise does.
        self._noisy, self._noiseless = self._form(1.0, 0.0, 0.0), self._form(math.inf, 0.0, 0.0)
        families = [completed(member).young for member in self._spread.members]
        gammas = np.array([float(family.gamma) for family in families if family is not None])
        self._order = np.argsort(gammas)
        self.zs = np.sort(np.array(bound.zs()))
        self.gammas = gammas[self._order]
        self._at: dict[int, Floats] = {}
        self._known: dict[tuple[int, ...], tuple[float, ...]] = {}

    def _form(self, z: float, divergence: float, bias: float) -> MonotoneForm:
        one = Problem(
            Fleet(samples=[1], gradient_noise=1.0, divergence=divergence),
            replace(self._problem.constants, gradient_bias=bias),
            self._problem.budget,
        )
        return self._bound.with_numbers(self._bound.gamma, z).monotone_form(one)

    def _coefficients(self, local_steps: int) -> Floats:
        """alpha, what of kappa z does not change, what it divides, kdd, kde and kee, of every gamma."""
        if local_steps not in self._at:
            spread = np.minimum(self._spread.floor(local_steps, self._order).offsets, BEYOND)
            biased = np.minimum(self._biased.floor(local_steps, self._order).offsets, BEYOND)
            usable = (spread > 0.0) & (spread < BEYOND) & (biased > 0.0) & (biased < BEYOND)
            mixed = np.zeros_like(spread)
            if usable.any():
                # Where both effects are alike, what is left of their sum has all its digits.
                bias = math.sqrt(float(np.median(spread[usable] / biased[usable])))
                both = self._form(0.0, 1.0, bias).floor(local_steps, self._order).offsets
                known = spread + bias * bias * biased
                with np.errstate(invalid="ignore"):
                    mixed = (both - known - LOST_IN_SUMS * both) / (2.0 * bias)
                mixed = np.where(usable, np.maximum(mixed, 0.0), 0.0)
            with np.errstate(invalid="ignore"):
                most = self._noisy.floor(local_steps, self._order).shares
                least = self._noiseless.floor(local_steps, self._order).shares
                divided = np.nan_to_num(most[:, 1] - least[:, 1], nan=BEYOND, posinf=BEYOND)
            self._at[local_steps] = np.minimum(
                np.array([*least.T, np.maximum(divided, 0.0), spread, mixed, biased]), BEYOND
            )
        return self._at[local_steps]

    def smallest(self, local_steps: Ints, gammas: Ints, zs: Ints) -> Floats:
        """The smallest alpha, kappa, kdd, kde, kee over ranges of the places of gamma and z, shape (R, 5)."""
        keys = np.column_stack([local_steps, gammas, zs]).tolist()
        return np.array([self._smallest(*key) for key in keys]).reshape(-1, 5)

    def _smallest(self, tau: int, gamma1: int, gamma2: int, z1: int, z2: int) -> tuple[float, ...]:
        key = (tau, gamma1, gamma2, z1, z2)
        if key not in self._known:
            alpha, fixed, divided, *known = self._coefficients(tau)[:, gamma1 : gamma2 + 1]
            with np.errstate(divide="ignore", invalid="ignore"):
                # An infinite share of nothing is nothing.
                kappa = fixed + np.where(divided > 0.0, divided / self.zs[z2], 0.0)
                effects = [np.where(term > 0.0, (1.0 + self.zs[z1]) * term, 0.0) for term in known]
            least = [float(term.min()) for term in (alpha, kappa, *effects)]
            self._known[key] = tuple(min(term, BEYOND) for term in least)
        return self._known[key]

    def progress(self, steps: Floats, gammas: Ints) -> list[tuple[Floats, Floats]]:
        """(a, b) at `steps`, shape (R, T), at both ends of ranges of gamma: a + b G is monotone in it."""
        found = []
        for places in self._order[gammas.T]:
            start, slope = np.empty_like(steps), np.empty_like(steps)
            for place in np.unique(places):
                rows = places == place
                both = self._spread.progress(steps[rows].ravel(), np.array([place]))
                start[rows], slope[rows] = (each.reshape(-1, steps.shape[1]) for each in both)
            found.append((start, slope))
        return found

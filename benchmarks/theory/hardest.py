"""How much tighter could a certificate from the same constants be? Search for the hardest instance.

Two devices with quadratic losses whose curvatures lie in [ell, 1]; many rounds, no mini-batch noise. The
true error is then that of the fixed point of an affine map. The bounds get the exact constants of the
instance (d_h is the largest divergence along the cycle: further away the losses may be bent to keep it).
Whatever the ratio found is, no bound that knows only these constants can be lower by more.

Run: python -m benchmarks.theory.hardest
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, picture, save
from benchmarks.theory.command import command_line
from benchmarks.theory.instances import Floats
from coopt import Budget, Certified, Constants, Fleet, Problem, TradeOff

FLOOR = 0.05
ROUNDS = 10**9


@dataclass(frozen=True)
class Pair:
    """Gradients H_1 w + b and H_2 w - b."""

    first: Floats
    second: Floats
    tilt: Floats

    @classmethod
    def decode(cls, code: Floats) -> Pair:
        """Any real vector of length 7 is a pair: two rotations, four eigenvalues, one direction."""

        def hessian(angle: float, eigenvalues: Floats) -> Floats:
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            return np.asarray(turn @ np.diag(eigenvalues) @ turn.T)

        inside = FLOOR + (1.0 - FLOOR) * (0.5 + 0.5 * np.sin(code[2:6]))
        tilt = np.array([np.cos(code[6]), np.sin(code[6])])
        return cls(hessian(code[0], inside[:2]), hessian(code[1], inside[2:]), tilt)

    def cycle(self, eta: float, tau: int) -> tuple[float, Problem]:
        """(true error of the fixed point, the problem with the exact constants of this instance)."""
        identity = np.eye(2)
        steps = (identity - eta * self.first, identity - eta * self.second)
        shifts = (-eta * self.tilt, eta * self.tilt)

        def path(model: Floats) -> list[tuple[Floats, Floats]]:
            pairs = [(model, model)]
            for _ in range(tau):
                a, b = pairs[-1]
                pairs.append((steps[0] @ a + shifts[0], steps[1] @ b + shifts[1]))
            return pairs

        def after(model: Floats) -> Floats:
            a, b = path(model)[-1]
            return np.asarray((a + b) / 2.0)

        shift = after(np.zeros(2))
        matrix = np.column_stack([after(unit) - shift for unit in identity])
        model = np.linalg.solve(identity - matrix, shift)
        means = [(a + b) / 2.0 for a, b in path(model)[:-1]]
        divergence = max(
            float(np.linalg.norm((self.first - self.second) @ mean / 2.0 + self.tilt)) for mean in means
        )
        mean_hessian = (self.first + self.second) / 2.0
        low, high = np.linalg.eigvalsh(mean_hessian)
        # A third coordinate at rest, with curvature FLOOR on one device and 1 on the other, fixes the range.
        spare = (1.0 + FLOOR) / 2.0
        constants = Constants(
            eta,
            1.0,
            0.0,
            pl_constant=min(float(low), spare),
            curvature_floor=FLOOR,
            mean_smoothness=min(max(float(high), spare), 1.0),
        )
        fleet = Fleet([1, 1], gradient_noise=0.0, divergence=divergence)
        return float(model @ mean_hessian @ model / 2.0), Problem(fleet, constants, Budget())


def ratio(code: Floats, eta: float, tau: int) -> float:
    """Trade-off bound over true error."""
    error, problem = Pair.decode(code).cycle(eta, tau)
    return TradeOff().value(problem, ROUNDS, tau, [1, 1]) / max(error, 1e-300)


def search(eta: float, tau: int, *, starts: int, seed: int) -> Floats:
    """The code of the hardest pair found."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    found = [
        minimize(
            lambda code: np.log(ratio(code, eta, tau)),
            rng.uniform(-np.pi, np.pi, 7),
            method="Nelder-Mead",
            options={"maxiter": 250, "xatol": 1e-4, "fatol": 1e-4},
        )
        for _ in range(starts)
    ]
    return np.asarray(min(found, key=lambda result: result.fun).x)


def run(quick: bool, folder: Path) -> list[Row]:
    cases = [(0.1, 2)] if quick else [(eta, tau) for eta in (0.1, 0.5) for tau in (2, 5, 10, 20, 40)]
    rows: list[Row] = []
    for eta, tau in cases:
        code = search(eta, tau, starts=2 if quick else 6, seed=tau)
        error, problem = Pair.decode(code).cycle(eta, tau)
        rows.append(
            {
                "eta beta": eta,
                "tau": tau,
                "true error": error,
                "trade-off / true": TradeOff().value(problem, ROUNDS, tau, [1, 1]) / error,
                "certified / true": Certified().value(problem, ROUNDS, tau, [1, 1]) / error,
            }
        )
    save("hardest", rows, folder)

    def draw(axes: Any) -> None:
        for eta in sorted({row["eta beta"] for row in rows}):
            part = [row for row in rows if row["eta beta"] == eta]
            for name, style in (("certified / true", "o--"), ("trade-off / true", "s-")):
                axes.plot(
                    [row["tau"] for row in part],
                    [row[name] for row in part],
                    style,
                    label=f"{name}, eta beta = {eta}",
                )
        axes.axhline(1.0, color="black", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="local steps tau")
        axes.set_ylabel("bound / true error, hardest instance found")
        axes.legend(fontsize=8)

    picture("hardest", draw, folder)
    return rows


if __name__ == "__main__":
    command_line(run, __doc__)

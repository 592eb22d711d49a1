"""Random federated problems whose every constant is known exactly, in three families.

A device's loss is a sum over coordinates, F_i(w) = sum_k lambda_k w_k^2/2 + a_ik s_k psi((w_k - m_k)/s_k)
+ b_ik w_k. Separable losses lose nothing: SGD with isotropic noise commutes with rotations.

- "log-cosh": psi = log cosh, a_ik = a_k: equal curvature functions, the devices differ by a tilt b_i.
- "sines": psi = sin with sum_i p_i a_ik = 0: devices are non-convex, their mean is quadratic.
- "hessian": psi = log cosh, a_ik differ: convex devices whose curvatures differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt import Budget, Constants, Fleet, Problem

Floats = NDArray[np.float64]
FAMILIES = ("log-cosh", "sines", "hessian")


@dataclass(frozen=True)
class Instance:
    """One problem and one plan for it; curvatures are scaled so that smoothness is 1."""

    family: str
    weights: Floats  # p_i, shape (N,)
    noise: Floats  # M_i, shape (N,)
    quadratic: Floats  # lambda_k, shape (d,)
    amplitude: Floats  # a_ik, shape (N, d)
    tilt: Floats  # b_ik, shape (N, d)
    centre: Floats  # m_k, shape (d,)
    width: Floats  # s_k, shape (d,)
    start: Floats  # w_0, shape (d,)
    learning_rate: float
    rounds: int
    local_steps: int
    batch_sizes: NDArray[np.int64]

    @property
    def periodic(self) -> bool:
        return self.family == "sines"

    def curvature_range(self) -> tuple[float, float]:
        """(ell, beta): infimum and supremum of every device's curvature."""
        swing = self.amplitude / self.width
        low = self.quadratic - (np.abs(swing) if self.periodic else 0.0)
        high = self.quadratic + (np.abs(swing) if self.periodic else swing)
        return float(np.min(low)), float(np.max(high))

    def mean_smoothness(self) -> float:
        swing = 0.0 if self.periodic else self.weights @ self.amplitude / self.width
        return min(float(np.max(self.quadratic + swing)), self.curvature_range()[1])

    def pl_constant(self) -> float:
        return float(np.min(self.quadratic))

    def divergence(self) -> Floats:
        """delta_i = sup_w ||grad F_i - grad F||; |psi'| reaches every value in (-1, 1)."""
        swing = np.abs(self.amplitude - self.weights @ self.amplitude)
        shift = np.abs(self.tilt - self.weights @ self.tilt)
        return np.sqrt(np.sum((swing + shift) ** 2, axis=1))

    def mean_loss(self, model: Floats) -> Floats:
        """F(w) for models of shape (..., d)."""
        u = (model - self.centre) / self.width
        psi = np.sin(u) if self.periodic else np.logaddexp(u, -u) - math.log(2.0)
        a, b = self.weights @ self.amplitude, self.weights @ self.tilt
        return np.sum(self.quadratic * model**2 / 2 + a * self.width * psi + b * model, axis=-1)

    def minimiser(self) -> Floats:
        """The minimiser of F, by bisection of each coordinate's increasing derivative."""
        a, b = self.weights @ self.amplitude, self.weights @ self.tilt
        if self.periodic:
            return np.asarray(-b / self.quadratic)
        reach = (np.abs(a) + np.abs(b)) / self.quadratic + 1.0
        low, high = -reach, reach
        for _ in range(200):
            middle = (low + high) / 2
            rising = self.quadratic * middle + a * np.tanh((middle - self.centre) / self.width) + b > 0
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        return (low + high) / 2

    def initial_gap(self) -> float:
        return float(self.mean_loss(self.start) - self.mean_loss(self.minimiser()))

    def problem(
        self,
        *,
        floor: float | None = None,
        mean_smoothness: float | None = None,
        coupling: float | None = None,
        rho: float | None = None,
    ) -> Problem:
        """The problem as coopt sees it, with as much knowledge of the curvature as is passed."""
        beta = self.curvature_range()[1]
        samples = np.maximum(np.rint(1e6 * self.weights), 1).astype(np.int64)
        return Problem(
            Fleet(samples, self.noise, self.divergence(), weights=self.weights),
            Constants(
                self.learning_rate,
                beta,
                self.initial_gap(),
                pl_constant=self.pl_constant(),
                curvature_floor=None if floor is None else max(floor, -beta),
                mean_smoothness=mean_smoothness,
                coupling=coupling,
                quadratic_continuity=rho,
            ),
            Budget(),
        )

    def steepness(self) -> float:
        """eta beta tau, which decides how much drift can do."""
        return self.learning_rate * self.curvature_range()[1] * self.local_steps


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def draw(family: str, rng: np.random.Generator, *, most_steps: int = 600) -> Instance:
    """One random instance; plans go through at most `most_steps` steps."""
    devices, size = int(rng.choice([2, 3, 6])), int(rng.choice([1, 3]))
    p = rng.dirichlet(np.full(devices, 3.0))
    p = p / p.sum()
    condition = _log_uniform(rng, 1.5, 15.0)
    quadratic = np.array([_log_uniform(rng, 1.0 / condition, 1.0) for _ in range(size)])
    quadratic[0] = 1.0 / condition
    width = np.array([_log_uniform(rng, 0.2, 2.0) for _ in range(size)])
    mean_free = rng.normal(size=(devices, size))
    mean_free -= p @ mean_free
    if family == "log-cosh":
        amplitude = np.tile(rng.uniform(0.0, 0.5, size) * width, (devices, 1))
        tilt = mean_free * _log_uniform(rng, 0.02, 0.5)
    elif family == "sines":
        amplitude = mean_free / np.abs(mean_free).max() * width * _log_uniform(rng, 0.1, 1.0)
        tilt = np.zeros((devices, size))
    elif family == "hessian":
        amplitude = rng.uniform(0.0, 1.0, (devices, size)) ** 2 * width
        tilt = mean_free * _log_uniform(rng, 0.02, 0.5)
    else:
        raise ValueError(f"unknown family {family!r}")
    raw = quadratic + np.abs(amplitude) / width
    beta = float(raw.max())
    quadratic, amplitude, tilt = quadratic / beta, amplitude / beta, tilt / beta
    eta = _log_uniform(rng, 0.01, 1.0)
    tau = max(1, round(_log_uniform(rng, 0.7, 50.0)))
    horizon = _log_uniform(rng, 1.0, 10.0) / (eta * float(quadratic.min()))
    rounds = max(1, math.ceil(min(horizon, most_steps) / tau))
    return Instance(
        family=family,
        weights=p,
        noise=_log_uniform(rng, 1e-3, 1.0) * rng.uniform(0.2, 1.0, devices),
        quadratic=quadratic,
        amplitude=amplitude,
        tilt=tilt,
        centre=rng.normal(size=size) * 0.5,
        width=width,
        start=rng.normal(size=size) * _log_uniform(rng, 0.1, 3.0),
        learning_rate=eta,
        rounds=rounds,
        local_steps=tau,
        batch_sizes=rng.integers(1, 9, size=devices),
    )


def sample(count: int, seed: int, *, most_steps: int = 600) -> Iterator[Instance]:
    """`count` instances, the families in turn."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        yield draw(FAMILIES[index % len(FAMILIES)], rng, most_steps=most_steps)

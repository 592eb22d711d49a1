"""Federations whose gradients, curvatures and noise are known in closed form: least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LeastSquares:
    """F_i(w) = mean of (x'w - y)^2 / 2 over the rows (x, y) of device i."""

    clients: list[tuple[Floats, Floats]]

    @classmethod
    def random(cls, sizes: list[int], dimension: int, seed: int = 0) -> LeastSquares:
        rng = np.random.default_rng(seed)
        clients = []
        for size in sizes:
            scale = np.geomspace(3.0, 0.3, dimension) * rng.uniform(0.5, 1.5, dimension)
            x = rng.normal(size=(size, dimension)) * scale
            clients.append((x, x @ rng.normal(size=dimension) + rng.normal(size=size)))
        return cls(clients)

    @property
    def weights(self) -> Floats:
        sizes = np.array([len(y) for _, y in self.clients], dtype=np.float64)
        return sizes / sizes.sum()

    def gradient(self, w: NDArray[Any], batch: tuple[Floats, Floats]) -> tuple[float, Floats]:
        x, y = batch
        error = x @ w - y
        return 0.5 * float(np.mean(error**2)), x.T @ error / len(y)

    def gradients(self, w: Floats) -> Floats:
        return np.array([self.gradient(w, client)[1] for client in self.clients])

    def curvatures(self) -> Floats:
        return np.array([x.T @ x / len(y) for x, y in self.clients])

    def covariances(self, w: Floats) -> Floats:
        """Covariance of one sample's gradient with divisor d - 1."""
        return np.array([np.cov((x * (x @ w - y)[:, None]).T) for x, y in self.clients])


def krylov_space(curvature: Floats, start: Floats, size: int) -> Floats:
    """Orthonormal rows that span start, H start, ..., by QR of the normalised powers."""
    vectors = [start / np.linalg.norm(start)]
    for _ in range(size - 1):
        vectors.append(curvature @ vectors[-1])
        vectors[-1] /= np.linalg.norm(vectors[-1])
    return np.linalg.qr(np.array(vectors).T)[0].T

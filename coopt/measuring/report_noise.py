"""Gaussian noise on what a report says of a client's data, calibrated to differential privacy.

Noise is added to the gradients and losses of the parts of a batch, before anything is computed from them.
What a report holds is then computed from noisy parts alone, so it reveals no more than they do. And noise of
two parts is independent, as that of two mini-batches is: what the server's estimators subtract for
mini-batches they subtract for it, and the squared gradient, divergence and curvature stay unbiased.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem import validation

Floats = npt.NDArray[np.float64]

# Parts of batches that a report is computed from: two halves and the rest, and two fresh ones for curvature.
PARTS = 5


def gaussian_scale(epsilon: float, delta: float) -> float:
    """Standard deviation over sensitivity at which Gaussian noise is (epsilon, delta)-differentially private.

    The smallest there is, for any epsilon, unlike the textbook's sqrt(2 log(1.25 / delta)) / epsilon.

    Parameters
    ----------
    epsilon : float
        Above 0.
    delta : float
        Between 0 and 1.

    References
    ----------
    Balle and Wang, Improving the Gaussian mechanism for differential privacy, ICML 2018, arXiv 1805.06530,
    theorem 8.

    Examples
    --------
    >>> round(gaussian_scale(1.0, 1e-5), 3)
    3.731
    """
    from scipy.optimize import brentq
    from scipy.special import log_ndtr, ndtr

    def excess(logarithm: float) -> float:
        scale = math.exp(logarithm)
        half, tilt = 0.5 / scale, epsilon * scale
        return float(ndtr(half - tilt) - np.exp(epsilon + log_ndtr(-half - tilt))) - delta

    return math.exp(brentq(excess, -20.0, 20.0, xtol=1e-12))


@dataclass(frozen=True)
class ReportNoise:
    """Noise that a :class:`~coopt.ClientProbe` adds to its reports.

    Each report is (epsilon, delta)-differentially private for all data of the client at once: with other data
    it would look nearly the same. Losses, gradients and what is computed from them are covered; the number of
    samples, seconds and costs are not, nor the model that is sent beside it.

    Parameters
    ----------
    epsilon, delta : float
        Of one report; over many they add up.
    gradient_clip : float
        Longest gradient; longer ones are shortened [gradient].
    loss_clip : float
        Largest loss; losses are held between 0 and this [loss].

    Raises
    ------
    InvalidProblemError
        If a number is out of range.

    Examples
    --------
    >>> noise = ReportNoise(epsilon=8.0, delta=1e-5, gradient_clip=1.0, loss_clip=4.0)
    >>> round(noise.gradient_deviation, 2), round(noise.loss_deviation, 2)
    (3.8, 7.59)
    """

    epsilon: float
    delta: float
    gradient_clip: float
    loss_clip: float

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta", "gradient_clip", "loss_clip"):
            validation.real(name, getattr(self, name), minimum=0.0, strict=True)
        if self.delta >= 1.0:
            raise InvalidProblemError(f"delta = {self.delta!r}: must be below 1")

    @property
    def _scale(self) -> float:
        # Half of what may be revealed for gradients, half for losses, each of all parts.
        return gaussian_scale(self.epsilon, self.delta) * math.sqrt(2.0 * PARTS)

    @property
    def gradient_deviation(self) -> float:
        """Standard deviation of the noise in each coordinate of a gradient [gradient]."""
        return self._scale * 2.0 * self.gradient_clip

    @property
    def loss_deviation(self) -> float:
        """Standard deviation of the noise in a loss [loss]."""
        return self._scale * self.loss_clip

    def add(self, loss: float, gradient: Floats, generator: np.random.Generator) -> tuple[float, Floats]:
        """Clip, and add noise."""
        length = float(np.linalg.norm(gradient))
        shortened = gradient * min(1.0, self.gradient_clip / length) if length > 0.0 else gradient
        held = min(max(loss, 0.0), self.loss_clip)
        return (
            held + self.loss_deviation * float(generator.normal()),
            shortened + self.gradient_deviation * generator.normal(size=gradient.shape),
        )

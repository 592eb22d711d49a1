"""Softmax regression: the convex model of the examples, as a loss and a gradient of a flat vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Softmax:
    """Multinomial logistic regression with a bias and an l2 penalty on all parameters.

    Parameters
    ----------
    features, classes : int
    penalty : float, default 0.01
        l in (l/2) ||w||^2, which makes the loss l-strongly convex [curvature].

    Examples
    --------
    >>> import numpy as np
    >>> model = Softmax(features=2, classes=3)
    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 2])
    >>> loss, slope = model.gradient(model.start(), rows)
    >>> round(loss, 4), slope.shape, model.accuracy(model.start(), rows)
    (1.0986, (9,), 0.5)
    """

    features: int
    classes: int
    penalty: float = 0.01

    def start(self) -> Floats:
        """Parameters of the untrained model, zeros of shape (classes * (features + 1),)."""
        return np.zeros(self.classes * (self.features + 1))

    def gradient(self, parameters: Floats, rows: tuple[Floats, Ints]) -> tuple[float, Floats]:
        """Mean loss over the rows, penalty included, and its gradient.

        Parameters
        ----------
        parameters : numpy.ndarray, shape (classes * (features + 1),)
        rows : (inputs, labels)
            Inputs of shape (s, features), labels of shape (s,).

        Returns
        -------
        loss : float
        gradient : numpy.ndarray, shape (classes * (features + 1),)
        """
        inputs, labels = rows
        scores = self._scores(parameters, inputs)
        scores -= scores.max(axis=1, keepdims=True)
        chances = np.exp(scores)
        total = chances.sum(axis=1, keepdims=True)
        each = np.arange(labels.size)
        loss = float(np.mean(np.log(total[:, 0]) - scores[each, labels]))
        # d loss / d score is the chance of a class, less one for the class that is right.
        chances /= total
        chances[each, labels] -= 1.0
        slope = np.concatenate([chances.T @ inputs, chances.sum(axis=0)[:, None]], axis=1) / labels.size
        loss += 0.5 * self.penalty * float(parameters @ parameters)
        return loss, slope.ravel() + self.penalty * parameters

    def accuracy(self, parameters: Floats, rows: tuple[Floats, Ints]) -> float:
        """Share of the rows that the model classifies rightly."""
        inputs, labels = rows
        return float(np.mean(self._scores(parameters, inputs).argmax(axis=1) == labels))

    def _scores(self, parameters: Floats, inputs: Floats) -> Floats:
        table = parameters.reshape(self.classes, self.features + 1)
        scores: Floats = inputs @ table[:, :-1].T + table[:, -1]
        return scores

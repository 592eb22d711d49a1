"""Go on where too few directions were measured, as spectra usually do.

In m directions of a Krylov space a loss has m curvatures, and training seems to be done when the flattest of
them is: with few directions a forecast soon sees nothing left to gain, and asks for large batches in few
steps. The averaged curvature in such directions is the Jacobi matrix of the Lanczos method, and where a
spectrum fills an interval from 0 to L, the matrix goes on with L/2 on its diagonal and L/4 beside it, in the
limit. So it is continued by a chain of such directions, L the largest curvature that was measured.

How far the chain is coupled to the last direction measured is not known. Coupled not at all (Gauss
quadrature) the loss falls at most as far as it really does, while all curvature is at least zero; coupled as
strongly as that allows, beta^2 = L/4 / (H^-1)_mm for an endless chain, the flattest curvature is 0
(Gauss-Radau quadrature), and it falls at least as far. A coupling between the two is taken. In the first m
steps of exact gradient descent they are the same, and where all is nearly converged by then the chain has
nothing to add.

Devices differ along the chain as they do along H^-1 e_m, to which it is coupled: the curvature H_i of each
becomes E'H_iE plus what is the same for all, E = (I, beta H^-1 e_m, 0, ...), which is never negative, and has
the mean that was said. Gradients and noise have no part in the chain.

References
----------
Golub and Meurant, "Matrices, Moments and Quadrature with Applications", Princeton 2010, chapter 6, on both
rules; the chain is the terminator of Haydock's recursion method, "The recursive solution of the Schroedinger
equation", Solid State Physics 35, 1980.
"""

from __future__ import annotations

import math

import numpy as np

from coopt.objectives.forecast.model import RITZ_FLOOR, LocalModel

# Directions that are enough, measured or not.
ENOUGH = 16
# The coupling over the largest that leaves no curvature below zero.
COUPLING = 0.8


def continued(model: LocalModel) -> LocalModel:
    """The same in at least 16 directions, or in as many as the model has parameters.

    Parameters
    ----------
    model : LocalModel
        In directions of a Krylov space, in their order, which the curvature leads out of.
    """
    measured = model.gradients.shape[1]
    size = min(ENOUGH, model.parameters or ENOUGH)
    curvature = model.loss.curvature
    values, vectors = np.linalg.eigh(curvature)
    largest = float(values[-1])
    if size <= measured or not largest > 0.0:
        return model
    last = vectors @ (vectors[-1] / np.maximum(values, RITZ_FLOOR * largest))  # H^-1 e_m
    coupling = COUPLING * math.sqrt(largest / 4.0 / last[-1])
    onto = np.eye(measured, size)
    onto[:, measured] = coupling * last
    alike = np.zeros((size, size))
    beside = np.arange(measured, size - 1)
    alike[np.diag_indices(size)] = np.where(np.arange(size) < measured, 0.0, largest / 2.0)
    alike[beside, beside + 1] = alike[beside + 1, beside] = largest / 4.0
    alike[measured, measured] -= float(onto[:, measured] @ curvature @ onto[:, measured])
    known = model.devices
    curvatures = (known.vectors * known.curvatures[:, None, :]) @ known.vectors.transpose(0, 2, 1)
    more = (0, size - measured)
    return LocalModel(
        model.weights,
        np.pad(model.gradients, ((0, 0), more)),
        onto.T @ curvatures @ onto + alike,
        np.pad(model.covariances, ((0, 0), more, more)),
        model.samples,
        model.loss.trace if model.sample_curvature is None else model.sample_curvature,
        model.parameters,
        None if model.point is None else np.pad(model.point, more),
        model.single,
    )

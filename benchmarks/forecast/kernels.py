"""Gradients of the models on one mini-batch, and whole rounds of federated SGD, as machine code.

A model is one vector of float32. What varies between models is one function, `gradient(w, out, x, y, rows,
widths)`; everything else, the local steps and the averaging, is the same loop. `widths` holds the sizes that
the vector is cut by.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

SOFTMAX, SQUARED = 0, 1


@njit(fastmath=True, cache=True)
def _residuals(scores: Any, y: Any, rows: Any, squared: bool) -> None:
    """Turn scores into the derivative of the mean loss by them, in place."""
    share = np.float32(1.0 / len(rows))
    for b in range(len(rows)):
        line = scores[b]
        if not squared:
            top = line.max()
            total = np.float32(0.0)
            for c in range(len(line)):
                line[c] = np.exp(line[c] - top)
                total += line[c]
            line /= total
        line[y[rows[b]]] -= np.float32(1.0)
        line *= share


@njit(fastmath=True, cache=True)
def _gather(x: Any, rows: Any) -> Any:
    batch = np.empty((len(rows), x.shape[1]), dtype=np.float32)
    for b in range(len(rows)):
        batch[b] = x[rows[b]]
    return batch


@njit(fastmath=True, cache=True)
def softmax(w: Any, out: Any, x: Any, y: Any, rows: Any, widths: Any) -> None:
    batch = _gather(x, rows)
    scores = np.dot(batch, w.reshape(widths[0], widths[1]))
    _residuals(scores, y, rows, False)
    np.dot(batch.T, scores, out.reshape(widths[0], widths[1]))


@njit(fastmath=True, cache=True)
def squared(w: Any, out: Any, x: Any, y: Any, rows: Any, widths: Any) -> None:
    batch = _gather(x, rows)
    scores = np.dot(batch, w.reshape(widths[0], widths[1]))
    _residuals(scores, y, rows, True)
    np.dot(batch.T, scores, out.reshape(widths[0], widths[1]))


@njit(fastmath=True, cache=True)
def _hidden(w: Any, out: Any, x: Any, y: Any, rows: Any, widths: Any, rectified: bool) -> None:
    """One hidden layer: w holds (features, hidden), (hidden, classes), (classes,)."""
    features, units, classes = widths[0], widths[1], widths[2]
    cut, end = features * units, (features + classes) * units
    batch = _gather(x, rows)
    top = w[cut:end].reshape(units, classes)
    inner = np.dot(batch, w[:cut].reshape(features, units))
    for b in range(len(rows)):
        for h in range(units):
            inner[b, h] = max(inner[b, h], np.float32(0.0)) if rectified else np.tanh(inner[b, h])
    scores = np.dot(inner, top)
    scores += w[end:]
    _residuals(scores, y, rows, False)
    np.dot(inner.T, scores, out[cut:end].reshape(units, classes))
    out[end:] = scores.sum(axis=0)
    back = np.dot(scores, top.T)
    for b in range(len(rows)):
        for h in range(units):
            if rectified:
                if inner[b, h] <= 0:
                    back[b, h] = 0
            else:
                back[b, h] *= np.float32(1.0) - inner[b, h] * inner[b, h]
    np.dot(batch.T, back, out[:cut].reshape(features, units))


@njit(fastmath=True, cache=True)
def tanh(w: Any, out: Any, x: Any, y: Any, rows: Any, widths: Any) -> None:
    _hidden(w, out, x, y, rows, widths, False)


@njit(fastmath=True, cache=True)
def relu(w: Any, out: Any, x: Any, y: Any, rows: Any, widths: Any) -> None:
    _hidden(w, out, x, y, rows, widths, True)


@njit(fastmath=True, cache=True)
def _patches(images: Any, out: Any) -> None:
    """Every 5 x 5 patch of images (n, side, side, channels) as a row (channels, 5, 5), zeros outside."""
    n, side, _, channels = images.shape
    row = 0
    for b in range(n):
        for y in range(side):
            for x in range(side):
                for v in range(5):
                    for u in range(5):
                        inside = 0 <= y + v - 2 < side and 0 <= x + u - 2 < side
                        for c in range(channels):
                            out[row, c * 25 + v * 5 + u] = (
                                images[b, y + v - 2, x + u - 2, c] if inside else np.float32(0.0)
                            )
                row += 1


@njit(fastmath=True, cache=True)
def _unpatch(rows: Any, images: Any) -> None:
    """Add rows of patches back to where they came from: the transpose of `_patches`."""
    n, side, _, channels = images.shape
    images[:] = 0
    row = 0
    for b in range(n):
        for y in range(side):
            for x in range(side):
                for v in range(5):
                    for u in range(5):
                        if 0 <= y + v - 2 < side and 0 <= x + u - 2 < side:
                            for c in range(channels):
                                images[b, y + v - 2, x + u - 2, c] += rows[row, c * 25 + v * 5 + u]
                row += 1


@njit(fastmath=True, cache=True)
def _pool(full: Any, bias: Any, half: Any, place: Any) -> None:
    """Bias, rectifier and maximum of 2 x 2; `place` remembers where, -1 where nothing passed."""
    n, side, _, channels = half.shape
    for b in range(n):
        for y in range(side):
            for x in range(side):
                for c in range(channels):
                    top, at = np.float32(0.0), -1
                    for q in range(4):
                        value = full[b, 2 * y + q // 2, 2 * x + q % 2, c] + bias[c]
                        if value > top:
                            top, at = value, q
                    half[b, y, x, c] = top
                    place[b, y, x, c] = at


@njit(fastmath=True, cache=True)
def _unpool(half: Any, place: Any, full: Any, slope: Any) -> None:
    """Hand derivatives back through `_pool`; `slope` gets those of the bias."""
    n, side, _, channels = half.shape
    full[:] = 0
    slope[:] = 0
    for b in range(n):
        for y in range(side):
            for x in range(side):
                for c in range(channels):
                    at = place[b, y, x, c]
                    if at >= 0:
                        full[b, 2 * y + at // 2, 2 * x + at % 2, c] = half[b, y, x, c]
                        slope[c] += half[b, y, x, c]


@njit(fastmath=True, cache=True)
def _flatten(images: Any, rows: Any) -> None:
    """Images (n, side, side, channels) as rows (channels, side, side), as torch has them."""
    n, side, _, channels = images.shape
    for b in range(n):
        for c in range(channels):
            for v in range(side):
                for u in range(side):
                    rows[b, (c * side + v) * side + u] = images[b, v, u, c]


@njit(fastmath=True, cache=True)
def _unflatten(rows: Any, images: Any) -> None:
    """The inverse of `_flatten`."""
    n, side, _, channels = images.shape
    for b in range(n):
        for c in range(channels):
            for v in range(side):
                for u in range(side):
                    images[b, v, u, c] = rows[b, (c * side + v) * side + u]


@njit(fastmath=True, cache=True)
def conv(w: Any, out: Any, x: Any, y: Any, rows: Any, widths: Any) -> None:
    """Two convolutions of 5 x 5, maxima of 2 x 2, two dense layers; of each, weights and then bias."""
    channels, side, one, two, units, classes = widths
    n, mid, low = len(rows), side // 2, side // 4
    ends = np.cumsum(
        np.array(
            [channels * 25 * one, one, one * 25 * two, two, two * low * low * units, units, units * classes]
        )
    )
    first = w[: ends[0]].reshape(channels * 25, one)
    second = w[ends[1] : ends[2]].reshape(one * 25, two)
    third = w[ends[3] : ends[4]].reshape(two * low * low, units)
    fourth = w[ends[5] : ends[6]].reshape(units, classes)

    images = np.empty((n, side, side, channels), dtype=np.float32)
    _unflatten(_gather(x, rows), images)
    wide = np.empty((n * side * side, channels * 25), dtype=np.float32)
    _patches(images, wide)
    full1 = np.dot(wide, first).reshape(n, side, side, one)
    half1 = np.empty((n, mid, mid, one), dtype=np.float32)
    place1 = np.empty((n, mid, mid, one), dtype=np.int8)
    _pool(full1, w[ends[0] : ends[1]], half1, place1)
    deep = np.empty((n * mid * mid, one * 25), dtype=np.float32)
    _patches(half1, deep)
    full2 = np.dot(deep, second).reshape(n, mid, mid, two)
    half2 = np.empty((n, low, low, two), dtype=np.float32)
    place2 = np.empty((n, low, low, two), dtype=np.int8)
    _pool(full2, w[ends[2] : ends[3]], half2, place2)
    flat = np.empty((n, two * low * low), dtype=np.float32)
    _flatten(half2, flat)
    inner = np.dot(flat, third)
    inner += w[ends[4] : ends[5]]
    np.maximum(inner, np.float32(0.0), inner)
    scores = np.dot(inner, fourth)
    scores += w[ends[6] :]
    _residuals(scores, y, rows, False)

    np.dot(inner.T, scores, out[ends[5] : ends[6]].reshape(units, classes))
    out[ends[6] :] = scores.sum(axis=0)
    back = np.dot(scores, fourth.T) * np.sign(inner)
    np.dot(flat.T, back, out[ends[3] : ends[4]].reshape(two * low * low, units))
    out[ends[4] : ends[5]] = back.sum(axis=0)
    _unflatten(np.dot(back, third.T), half2)
    _unpool(half2, place2, full2, out[ends[2] : ends[3]])
    flat2 = full2.reshape(n * mid * mid, two)
    np.dot(deep.T, flat2, out[ends[1] : ends[2]].reshape(one * 25, two))
    _unpatch(np.dot(flat2, second.T), half1)
    _unpool(half1, place1, full1, out[ends[0] : ends[1]])
    np.dot(wide.T, full1.reshape(n * side * side, one), out[: ends[0]].reshape(channels * 25, one))


@lru_cache
def rounds_of(gradient: Callable[..., None]) -> Any:
    """Federated averaging with a model's gradient, compiled."""

    @njit(fastmath=True)
    def run(w: Any, x: Any, y: Any, picks: Any, sizes: Any, shares: Any, rate: Any, ridge: Any, widths: Any):
        """Run rounds; `picks` (rounds, N, tau, largest batch) holds row numbers, `sizes` every batch."""
        local, total, slope = np.empty_like(w), np.empty_like(w), np.empty_like(w)
        keep, step = np.float32(1.0 - rate * ridge), np.float32(rate)
        for k in range(picks.shape[0]):
            total[:] = 0
            for i in range(picks.shape[1]):
                local[:] = w
                for t in range(picks.shape[2]):
                    gradient(local, slope, x, y, picks[k, i, t, : sizes[i]], widths)
                    for j in range(len(local)):
                        local[j] = keep * local[j] - step * slope[j]
                for j in range(len(local)):
                    total[j] += shares[i] * local[j]
            w[:] = total

    return run


GRADIENTS = {"softmax": softmax, "squared": squared, "tanh": tanh, "relu": relu, "conv": conv}

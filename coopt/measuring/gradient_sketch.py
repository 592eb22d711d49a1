"""A linear sketch of a long vector: a few numbers that keep inner products on average.

The estimators of gradient divergence and of drift coupling need only inner products of the clients' vectors.
A sketch of 1,024 numbers replaces a vector of any length; since it is linear, the sketch of a weighted mean
is the weighted mean of the sketches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError


def count_sketch(vector: npt.ArrayLike, size: int, *, seed: int) -> npt.NDArray[np.float64]:
    """Sum the entries of `vector`, with random signs, into `size` random buckets.

    Parameters
    ----------
    vector : array_like, shape (n,)
        What to sketch.
    size : int
        Numbers kept, m >= 1.
    seed : int
        Random signs and buckets. Sketches add up and compare only if made with the same seed, so use the
        round's number: errors of different rounds are then independent and average out.

    Returns
    -------
    numpy.ndarray, shape (size,)
        Its inner product with another sketch is that of the two vectors on average, with a variance of at
        most 2 ||x||^2 ||y||^2 / m.

    References
    ----------
    Charikar, Chen and Farach-Colton, Finding frequent items in data streams, ICALP 2002.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones(10_000)
    >>> bool(abs(np.sum(count_sketch(x, 1024, seed=0) ** 2) / 10_000 - 1) < 0.2)
    True
    """
    if size < 1:
        raise InvalidProblemError(f"size = {size!r} of a sketch is invalid: give an integer of at least 1")
    values = np.asarray(vector, dtype=np.float64)
    rng = np.random.default_rng(seed)
    bucket = rng.integers(size, size=len(values))
    sign = 1.0 - 2.0 * rng.integers(2, size=len(values))
    return np.bincount(bucket, weights=sign * values, minlength=size).astype(np.float64)

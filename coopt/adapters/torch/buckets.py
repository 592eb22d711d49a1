"""Which clients train together, so that little of the work is padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

WORST_WASTE = 1.5  # samples computed over samples needed


def bucket_clients(local_steps: Ints, batch_sizes: Ints, *, most_clients: int, most_rows: int) -> list[Ints]:
    """Group clients of similar batch size.

    In a bucket all mini-batches are padded to the largest. Steps need no padding: clients are ordered by
    them, and those that are done drop off the end.

    Parameters
    ----------
    local_steps, batch_sizes : numpy.ndarray of int64, shape (m,)
        tau_i and s_i.
    most_clients, most_rows : int
        Most clients in a bucket, and most rows of padded mini-batches, for the sake of memory; a single
        client may exceed the latter.

    Returns
    -------
    list of numpy.ndarray of int64
        Positions of the clients; local steps do not increase within a bucket. Each bucket computes at most
        1.5 times the samples that its clients need.

    Examples
    --------
    >>> import numpy as np
    >>> tau, s = np.array([5, 2, 5, 5]), np.array([8, 7, 100, 6])
    >>> [bucket.tolist() for bucket in bucket_clients(tau, s, most_clients=100, most_rows=1000)]
    [[2], [0, 3, 1]]
    """
    buckets = []
    order = np.lexsort((-local_steps, -batch_sizes))
    steps, needed = local_steps[order], (local_steps * batch_sizes)[order]
    start = 0
    while start < len(order):
        widest = int(batch_sizes[order[start]])
        computed = widest * np.cumsum(steps[start:])
        # Batches shrink along the order, so the waste grows: all that fit come first.
        fits = int(np.searchsorted(computed / np.cumsum(needed[start:]), WORST_WASTE, side="right"))
        size = max(1, min(fits, most_clients, most_rows // widest))
        bucket = order[start : start + size]
        buckets.append(bucket[np.argsort(-local_steps[bucket], kind="stable")])
        start += size
    return buckets

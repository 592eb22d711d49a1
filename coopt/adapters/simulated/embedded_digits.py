"""Handwritten digits, spread over devices that each hold few of the ten."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.readable import readable
from coopt.problem.validation import count, real

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LARGEST_PIXEL = 16.0
CLASSES = 10
# Kept from the devices, to test on: one image of five.
TESTED = 360
# Beyond this some devices could hold nothing.
MOST_DEVICES = 200


@readable
@dataclass(frozen=True, eq=False)
class Digits:
    """A federation of devices that hold handwritten digits.

    Attributes
    ----------
    clients : tuple of (images, labels)
        What each device trains on: images of shape (d_i, 64) with pixels in [0, 1], labels of shape (d_i,).
    test : (images, labels)
        Images that no device holds.
    """

    clients: tuple[tuple[Floats, Ints], ...]
    test: tuple[Floats, Ints]

    def _shown(self) -> list[str]:
        return [f"{len(self.clients)} devices", f"{int(self.samples.sum())} samples"]

    @property
    def samples(self) -> Ints:
        """d_i, shape (N,)."""
        return np.array([labels.size for _, labels in self.clients])


def digits(devices: int = 24, *, skew: float = 0.5, seed: int = 0) -> Digits:
    """Spread 1,437 of 1,797 handwritten digits over devices; the others are for tests.

    The share that each device has of a digit is drawn from a Dirichlet distribution, as is common in research
    on federated learning; devices differ in how much they hold as well.

    Parameters
    ----------
    devices : int, default 24
        N, at most 200.
    skew : float, default 0.5
        Parameter of the Dirichlet distribution: the smaller, the fewer kinds of digits a device holds.
    seed : int, default 0

    Returns
    -------
    Digits
        Every device holds at least two images.

    Raises
    ------
    InvalidProblemError
        If an argument is out of range.

    References
    ----------
    Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine Learning Repository, 1998,
    doi:10.24432/C50P49, CC BY 4.0; the 1,797 images that scikit-learn ships.

    Examples
    --------
    >>> from coopt.adapters.simulated import digits
    >>> federation = digits(devices=5)
    >>> federation.samples.sum(), federation.test[0].shape
    (np.int64(1437), (360, 64))
    """
    devices = count("devices", devices)
    if devices > MOST_DEVICES:
        raise InvalidProblemError(f"devices = {devices}: 1,437 images are for at most {MOST_DEVICES} devices")
    skew = real("skew", skew, minimum=0.0, strict=True)
    rng = np.random.default_rng(count("seed", seed, minimum=0))
    with resources.files("coopt.data").joinpath("digits.npz").open("rb") as stream, np.load(stream) as stored:
        images, labels = stored["pixels"] / LARGEST_PIXEL, stored["labels"].astype(np.int64)
    order = rng.permutation(labels.size)
    test, train = order[:TESTED], order[TESTED:]
    owner = np.empty(train.size, dtype=np.int64)
    for digit in range(CLASSES):
        places = np.flatnonzero(labels[train] == digit)
        owner[places] = rng.choice(devices, size=places.size, p=rng.dirichlet(np.full(devices, skew)))
    # Nobody may be left with nothing: those with too little take from the richest.
    for device in range(devices):
        while np.count_nonzero(owner == device) < 2:
            richest = int(np.bincount(owner, minlength=devices).argmax())
            owner[np.flatnonzero(owner == richest)[0]] = device
    clients = tuple((images[train[owner == i]], labels[train[owner == i]]) for i in range(devices))
    return Digits(clients, (images[test], labels[test]))

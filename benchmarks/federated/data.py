"""Real data: read from the folder that COOPT_DATA names, else what scikit-learn ships or downloads.

CIFAR-10 is unpacked once, into the user's cache folder.
"""

from __future__ import annotations

import gzip
import lzma
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

OPENML = {"mnist": 554, "cifar10": 40927}


class DataUnavailableError(RuntimeError):
    """A data set is neither in COOPT_DATA nor to be downloaded."""


@dataclass(frozen=True, eq=False)
class Data:
    """A data set; images have shape (n, channels, height, width), everything else (n, features).

    `owner` is the device of each training sample where the devices are real, else None.
    """

    x: Floats
    y: Ints
    test_x: Floats
    test_y: Ints
    classes: int
    owner: Ints | None = None

    def flat(self) -> Data:
        """Give every sample as one vector with a constant entry, of mean squared norm 1 over all samples."""

        def vectors(x: Floats) -> Floats:
            rows = x.reshape(len(x), -1)
            return np.concatenate([rows, np.ones((len(rows), 1), dtype=np.float32)], axis=1)

        train, test = vectors(self.x), vectors(self.test_x)
        scale = np.float32(1 / np.sqrt(np.mean(np.sum(train.astype(np.float64) ** 2, axis=1))))
        return Data(train * scale, self.y, test * scale, self.test_y, self.classes, self.owner)


def cache_folder() -> Path:
    """Folder for unpacked data and finished cells: COOPT_CACHE, else the user's cache folder."""
    base = os.environ.get("COOPT_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "coopt"


def _folder(name: str) -> Path | None:
    root = os.environ.get("COOPT_DATA")
    path = Path(root) / name if root else None
    return path if path is not None and path.exists() else None


def _pooled(images: Floats, by: int) -> Floats:
    """Average squares of `by` x `by` pixels."""
    n, channels, height, width = images.shape
    blocks = images.reshape(n, channels, height // by, by, width // by, by)
    return blocks.mean(axis=(3, 5), dtype=np.float32)


def _open_ml(name: str) -> tuple[npt.NDArray[np.uint8], Ints]:
    from sklearn.datasets import fetch_openml

    try:
        found = fetch_openml(data_id=OPENML[name], as_frame=False, data_home=str(cache_folder()))
    except OSError as error:
        raise DataUnavailableError(
            f"{name} is not in the folder COOPT_DATA and OpenML cannot be reached: {error}"
        ) from error
    return found.data.astype(np.uint8), found.target.astype(np.int64)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16 - 0.5).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(y))
    test, train = order[:447], order[447:]
    return Data(x[train], y[train].astype(np.int64), x[test], y[test].astype(np.int64), 10)


def _mnist() -> Data:
    folder = _folder("mnist")
    if folder is None:
        pixels, labels = _open_ml("mnist")
    else:

        def read(name: str, skip: int) -> npt.NDArray[np.uint8]:
            with gzip.open(folder / name) as file:
                return np.frombuffer(file.read()[skip:], dtype=np.uint8)

        images = [read(f"{part}-images-idx3-ubyte.gz", 16) for part in ("train", "t10k")]
        pixels = np.concatenate(images).reshape(-1, 784)
        labels = np.concatenate([read(f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")])
    x = (pixels.reshape(-1, 1, 28, 28) / np.float32(255)).astype(np.float32)
    y = labels.astype(np.int64)
    return Data(x[:60_000], y[:60_000], x[60_000:], y[60_000:], 10)


def _cifar10() -> Data:
    stored = cache_folder() / "cifar10.npy"
    if not stored.exists():
        folder = _folder("cifar-10-batches-bin")
        if folder is None:
            pixels, labels = _open_ml("cifar10")
            records = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        else:
            names = [f"data_batch_{i}.bin.xz" for i in range(1, 6)] + ["test_batch.bin.xz"]
            raw = b"".join(lzma.decompress((folder / name).read_bytes()) for name in names)
            records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3073)
        stored.parent.mkdir(parents=True, exist_ok=True)
        part = stored.with_suffix(".part.npy")
        np.save(part, records)
        part.replace(stored)
    records = np.load(stored, mmap_mode="r")
    y = np.asarray(records[:, 0], dtype=np.int64)
    x = (records[:, 1:].reshape(-1, 3, 32, 32) / np.float32(255) - np.float32(0.47)).astype(np.float32)
    return Data(x[:50_000], y[:50_000], x[50_000:], y[50_000:], 10)


def _sensors() -> Data:
    folder = _folder("federated/sp-sw-har")
    if folder is None:
        raise DataUnavailableError("the sensor windows of 46 phones and watches need COOPT_DATA")
    stored = np.load(folder / "sp-sw-har-windows.npz")
    x = stored["x"]
    x = np.clip((x - x.mean(axis=0)) / x.std(axis=0), -5, 5).astype(np.float32)
    y = np.unique(stored["y"], return_inverse=True)[1].astype(np.int64)
    _, person = np.unique(stored["subject"], return_inverse=True)
    _, kind = np.unique(stored["device"], return_inverse=True)
    _, owner = np.unique(2 * person + kind, return_inverse=True)
    held = np.random.default_rng(0).random(len(y)) < 0.25  # windows of every device
    return Data(x[~held], y[~held], x[held], y[held], int(y.max()) + 1, owner[~held].astype(np.int64))


LOADERS = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10, "sensors": _sensors}


@lru_cache(maxsize=2)
def load(name: str, pool: int = 1) -> Data:
    """Read a data set.

    Parameters
    ----------
    name : {"digits", "mnist", "cifar10", "sensors"}
        "sensors" is human activity on 46 real phones and watches (doi 10.1016/j.dib.2023.109809).
    pool : int, default 1
        Average squares of so many pixels.

    Raises
    ------
    DataUnavailableError
        If it is not to be had, with the reason.
    """
    data = LOADERS[name]()
    if pool == 1:
        return data
    return Data(_pooled(data.x, pool), data.y, _pooled(data.test_x, pool), data.test_y, data.classes)

"""Measure on the client what the server's estimators need, from gradients that training computes anyway.

The first mini-batch of a round is evaluated in two halves instead of at once. What the halves agree on is the
gradient, what they differ in is the noise. After the last local step the gradient of a fresh batch, half as
large, is evaluated at the local model; the same batch then opens the next round at the model received: the
pair shows curvature, free of sampling noise. Reusing a batch across the aggregation is the idea of Wang et
al. (JSAC 37(6), 2019, arXiv 1804.05271); here the batch has had no part in the step that it measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.measuring.gradient_sketch import count_sketch
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair
from coopt.measuring.report_noise import ReportNoise
from coopt.problem.readable import Fact, readable
from coopt.problem.saved_state import Reader, anything, listed, number, optional, table, vector, whole
from coopt.problem.validation import choice, generator

Vector = npt.NDArray[np.float64]
GradientFunction = Callable[[Vector, Any], tuple[float, npt.ArrayLike]]
DrawFunction = Callable[[int], Any]


@dataclass(frozen=True)
class _Part:
    """One batch, and its mean loss and gradient at one model."""

    batch: Any
    size: int
    loss: float
    gradient: Vector


def _read_held(place: str, value: object) -> tuple[Vector, list[_Part]]:
    part: dict[str, Reader[Any]] = {
        "batch": anything,
        "size": whole(1),
        "loss": number(nan=True, infinite=True),
        "gradient": vector,
    }
    parts = listed(lambda inner, each: _Part(**table(inner, each, part)))
    read = table(place, value, {"model": vector, "parts": parts})
    return read["model"], read["parts"]


def _merge(parts: list[_Part]) -> tuple[float, Vector]:
    total = sum(part.size for part in parts)
    loss = sum(part.size * part.loss for part in parts) / total
    gradient = sum((part.size / total * part.gradient for part in parts), np.zeros_like(parts[0].gradient))
    return loss, gradient


def _pair(before: list[_Part], after: list[_Part], step: Vector) -> tuple[SameBatchPair, Vector]:
    first, second = (b.gradient - a.gradient for a, b in zip(before, after, strict=True))
    loss_before, gradient_before = _merge(before)
    loss_after, gradient_after = _merge(after)
    change = gradient_after - gradient_before
    pair = SameBatchPair(
        step=float(step @ step),
        product=float(first @ second),
        difference=float((first - second) @ (first - second)),
        slope=float(change @ step),
        loss_change=loss_after - loss_before,
    )
    return pair, change


@readable
class ClientProbe:
    """Turns a client's gradient function into a :class:`~coopt.ClientReport` a round.

    Parameters
    ----------
    client : int
        Index of the device in the fleet.
    gradient : callable
        ``gradient(model, batch) -> (loss, gradient)``: mean loss and mean gradient, shape ``(n,)``, of
        `batch` at `model`, a flat array of shape ``(n,)``.
    draw : callable
        ``draw(size) -> batch``: a fresh mini-batch, with replacement or from a fresh shuffle, in whatever
        form `gradient` takes. (An epoch's later batches depend on its earlier ones: their noise has no zero
        mean.)
    pair : {"next", "same"}, default "next"
        Which models a same-batch pair compares. "next": the last local model with the model received next,
        on a batch that trains only afterwards; needs an object that lives from round to round. "same": the
        model received with the last local model of the same round, on half of its first batch; no memory
        needed, but no coupling, and a slight bias, since the batch took part in the step.
    vectors : {"full", "sketch", "none"}, default "full"
        Whether reports carry vectors: without, the server cannot estimate gradient divergence.
    sketch_size : int, default 1024
        Length of the vectors when sketched; shorter ones are sent as they are.
    noise : ReportNoise, optional
        Noise on what reports say of the data, see :mod:`coopt.measuring.report_noise`; training has none.
    seed : int or numpy.random.Generator, optional
        Of the noise; default: what the operating system gives, which nobody can predict.
    clock : callable, default time.perf_counter
        Seconds.

    Notes
    -----
    No per-sample gradient is computed or kept. Memory: at most six vectors of the model's length.

    Raises
    ------
    InvalidProblemError
        If a choice is unknown, or the methods are called out of order.

    Examples
    --------
    One client with a quadratic loss, F(w) = mean of (w - x)^2 / 2 over its samples x:

    >>> import numpy as np
    >>> from coopt import ClientProbe
    >>> rng = np.random.default_rng(0)
    >>> data = rng.normal(size=(100, 2))
    >>> def gradient(model, batch):
    ...     error = model - data[batch]
    ...     return 0.5 * float(np.mean(np.sum(error**2, axis=1))), error.mean(axis=0)
    >>> probe = ClientProbe(0, gradient, lambda size: rng.integers(100, size=size))
    >>> model = np.ones(2)
    >>> local = model - 0.1 * probe.begin(model, round=0, batch_size=8)   # first local step
    >>> report = probe.end(local, samples=100, local_steps=1)
    >>> report.halves.first, report.halves.second, report.samples_processed
    (4, 4, 12)
    """

    __module__ = "coopt"

    def __init__(
        self,
        client: int,
        gradient: GradientFunction,
        draw: DrawFunction,
        *,
        pair: Literal["next", "same"] = "next",
        vectors: Literal["full", "sketch", "none"] = "full",
        sketch_size: int = 1024,
        noise: ReportNoise | None = None,
        seed: int | np.random.Generator | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        choice("pair", pair, ("next", "same"))
        choice("vectors", vectors, ("full", "sketch", "none"))
        self.client = client
        self._gradient = gradient
        self._draw = draw
        self._pair_kind = pair
        self._vectors = vectors
        self._sketch_size = sketch_size
        # Noise that protects is not to be guessed: without a seed it differs from run to run.
        self._noise = noise
        self._generator = np.random.default_rng() if seed is None else generator("seed", seed)
        self._clock = clock
        self._warm = False
        self._held: tuple[Vector, list[_Part]] | None = (
            None  # last local model, and fresh batches evaluated there
        )
        self._open: dict[str, Any] | None = None

    def _shown(self) -> list[Fact]:
        return [("client", self.client), ("pair", self._pair_kind), ("vectors", self._vectors)]

    def begin(self, model: npt.ArrayLike, *, round: int, batch_size: int) -> Vector:
        """Evaluate the round's first mini-batch at the received model.

        Parameters
        ----------
        model : array_like, shape (n,)
            The model received.
        round : int
            Round, from 0.
        batch_size : int
            Mini-batch size of this round, at least 1.

        Returns
        -------
        numpy.ndarray, shape (n,)
            Gradient of the first mini-batch, for the first local step.
        """
        if batch_size < 1:
            raise InvalidProblemError(
                f"batch_size = {batch_size!r} is invalid: give an integer of at least 1"
            )
        flat = np.array(model, dtype=np.float64).ravel()
        start = self._clock()
        warm_up = 0.0
        held, self._held = self._held, None
        batches = [] if held is None else [(part.batch, part.size) for part in held[1]]
        if sum(size for _, size in batches) > batch_size:
            batches, held = [], None
        if not batches:
            first = batch_size // 2
            sizes = [first, batch_size - first]
            if self._pair_kind == "same":
                # Two quarters are all that `end` evaluates again.
                first = max(1, batch_size // 4) if batch_size >= 2 else 0
                sizes = [first, first, batch_size - 2 * first]
            batches = [(self._draw(size), size) for size in sizes if size]
        elif rest := batch_size - sum(size for _, size in batches):
            batches.append((self._draw(rest), rest))
        parts = []
        for batch, size in batches:
            before = self._clock()
            parts.append(self._evaluate(flat, batch, size))
            if not self._warm and len(parts) == 1:
                warm_up = (self._clock() - before) / size
            elif not self._warm:
                # The first call also compiles and allocates: what it took beyond the second is no work on
                # samples.
                normal = (self._clock() - before) / size
                warm_up = parts[0].size * max(0.0, warm_up - normal)
                self._warm = True
        if not self._warm:  # a single part tells nothing about warm-up
            warm_up = 0.0
        _, gradient = _merge(parts)
        parts = self._told(parts)
        loss, told = _merge(parts)
        pair, change = None, None
        if held is not None:
            pair, change = _pair(held[1], parts[:2], flat - held[0])
        self._open = {
            "round": round,
            "batch_size": batch_size,
            "model": flat,
            "loss": loss,
            "gradient": told,
            "parts": parts[:2],
            "halves": self._halves(parts),
            "pair": pair,
            "change": change,
            "start": start + warm_up,
        }
        return gradient

    def end(
        self,
        local_model: npt.ArrayLike,
        *,
        samples: int,
        local_steps: int,
        extra_evaluation: bool = True,
        seconds_communicating: float = 0.0,
        cost: float | None = None,
    ) -> ClientReport:
        """Close the round and report.

        Parameters
        ----------
        local_model : array_like, shape (n,)
            The model after the last local step.
        samples : int
            Samples that the device holds.
        local_steps : int
            Local steps taken.
        extra_evaluation : bool, default True
            Whether to evaluate one more gradient, on half a mini-batch, for a same-batch pair.
        seconds_communicating : float, default 0
            Seconds spent on receiving and sending.
        cost : float, optional
            What the round's samples cost.

        Returns
        -------
        ClientReport
            The round's report.
        """
        if self._open is None:
            raise InvalidProblemError("ClientProbe.end was called without ClientProbe.begin before it")
        now, self._open = self._open, None
        flat = np.array(local_model, dtype=np.float64).ravel()
        processed = now["batch_size"] * local_steps
        pair, change = now["pair"], now["change"]
        if extra_evaluation and self._pair_kind == "next" and now["batch_size"] >= 2:
            size = max(1, now["batch_size"] // 4)
            self._held = flat, self._told([self._evaluate(flat, self._draw(size), size) for _ in range(2)])
            processed += 2 * size
        elif extra_evaluation and self._pair_kind == "same" and len(now["parts"]) == 2:
            moved = self._told([self._evaluate(flat, part.batch, part.size) for part in now["parts"]])
            pair, _ = _pair(now["parts"], moved, flat - now["model"])
            processed += sum(part.size for part in moved)
        return ClientReport(
            client=self.client,
            round=now["round"],
            samples=samples,
            local_steps=local_steps,
            batch_size=now["batch_size"],
            samples_processed=processed,
            loss=now["loss"],
            seconds_computing=max(self._clock() - now["start"], 0.0),
            seconds_communicating=seconds_communicating,
            cost=cost,
            halves=now["halves"],
            pair=pair,
            gradient=self._pack(now["gradient"], now["round"]),
            change=self._pack(change, now["round"]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Give what is kept from round to round, for a client that may be restarted.

        Returns
        -------
        dict
            Numbers, arrays, and batches as `draw` gave them.

        Raises
        ------
        InvalidProblemError
            If a round is open.
        """
        if self._open is not None:
            raise InvalidProblemError("ClientProbe.state_dict was called within a round: call end first")
        if self._held is None:
            return {"held": None}
        model, parts = self._held
        return {"held": {"model": model, "parts": [dict(part.__dict__) for part in parts]}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        InvalidProblemError
            If it is nothing that a probe keeps; the message names the entry.
        """
        held = table("state", state, {"held": optional(_read_held)})["held"]
        self._open, self._held = None, held

    def _evaluate(self, model: Vector, batch: Any, size: int) -> _Part:
        loss, gradient = self._gradient(model, batch)
        return _Part(batch, size, float(loss), np.array(gradient, dtype=np.float64).ravel())

    def _told(self, parts: list[_Part]) -> list[_Part]:
        """What reports are computed from: the parts, with noise where that is wanted."""
        if self._noise is None:
            return parts
        noisy = [self._noise.add(part.loss, part.gradient, self._generator) for part in parts]
        return [replace(part, loss=x, gradient=g) for part, (x, g) in zip(parts, noisy, strict=True)]

    @staticmethod
    def _halves(parts: list[_Part]) -> HalfBatches | None:
        if len(parts) < 2:
            return None
        first, rest = parts[0], parts[1:]
        second = _merge(rest)[1]
        difference = first.gradient - second
        return HalfBatches(
            first=first.size,
            second=sum(part.size for part in rest),
            difference=float(difference @ difference),
            product=float(first.gradient @ second),
        )

    def _pack(self, vector: Vector | None, seed: int) -> Vector | None:
        if vector is None or self._vectors == "none":
            return None
        if self._vectors == "full" or len(vector) <= self._sketch_size:
            return vector
        return count_sketch(vector, self._sketch_size, seed=seed)

"""What :class:`coopt.ClientProbe` measures, for many clients at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coopt.adapters.torch.engine import RoundWork
from coopt.adapters.torch.local import ProbeOptions
from coopt.adapters.torch.stack import Stack
from coopt.measuring.gradient_sketch import count_sketch
from coopt.measuring.report import HalfBatches, SameBatchPair
from coopt.problem import validation
from coopt.problem.saved_state import table

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Held:
    """A client's last local model, and two fresh batches evaluated there.

    Attributes
    ----------
    rows : numpy.ndarray of int64, shape (2, q)
        Samples of the batches.
    model : torch.Tensor, shape (n,)
        Parameters.
    losses, gradients : torch.Tensor, shape (2,) and (2, n)
        Of the batches.
    """

    rows: Ints
    model: Tensor
    losses: Tensor
    gradients: Tensor


@dataclass(frozen=True, eq=False)
class Opening:
    """The first mini-batches of a bucket, in parts: two to compare, and what is left.

    Attributes
    ----------
    start : torch.Tensor, shape (n,)
        Parameters that all clients received.
    rows : numpy.ndarray of int64, shape (P, B, width)
        Samples, padded.
    sizes : numpy.ndarray of int64, shape (P, B)
        How many count.
    part_losses, part_gradients : torch.Tensor, shape (P, B) and (P, B, n)
        Of the parts.
    losses, gradient : torch.Tensor, shape (B,) and (B, n)
        Of whole mini-batches.
    held : list of Held or None
        What each client had kept, where its batches are the first two parts.
    """

    start: Tensor
    rows: Ints
    sizes: Ints
    part_losses: Tensor
    part_gradients: Tensor
    losses: Tensor
    gradient: Tensor
    held: list[Held | None]


class StackedProbe:
    """Measures for buckets of clients; holds what they keep from round to round.

    Parameters
    ----------
    stack : Stack
        The model.
    options : ProbeOptions
        What to measure.
    """

    def __init__(self, stack: Stack, options: ProbeOptions) -> None:
        self.stack = stack
        self.options = options
        self._held: dict[int, Held] = {}

    def begin(self, start: Tensor, work: RoundWork, fresh: Ints) -> Opening:
        """Evaluate the first mini-batches in parts.

        Parameters
        ----------
        start : torch.Tensor, shape (n,)
            Parameters received.
        work : RoundWork
            What the B clients of the bucket do.
        fresh : numpy.ndarray of int64, shape (B, s)
            Samples drawn for the first step.
        """
        size = work.batch_sizes
        held = [self._take(client, s) for client, s in zip(work.clients.tolist(), size.tolist(), strict=True)]
        kept = np.array([0 if each is None else each.rows.shape[1] for each in held])
        # As ClientProbe has it: two batches that are compared at two models, and the rest; or two halves.
        quarter = np.where(size >= 2, np.maximum(1, size // 4), 0)
        pair = np.where(kept > 0, kept, quarter if self.options.pair == "same" else 0)
        thirds, halves = [pair, pair, size - 2 * pair], [size // 2, size - size // 2, 0 * size]
        sizes = np.array(thirds) if self.options.pair == "same" else np.where(kept > 0, thirds, halves)
        sizes = sizes[: 3 if sizes[2].any() else 2]
        # The parts of a fresh mini-batch follow one another; held batches come before it.
        before = np.cumsum(sizes, axis=0) - sizes - np.where(kept > 0, 2 * kept, 0)
        columns = before[:, :, None] + np.arange(sizes.max())
        rows = np.take_along_axis(fresh[None], np.clip(columns, 0, fresh.shape[1] - 1), axis=2)
        for place, each in enumerate(held):
            if each is not None:
                rows[:2, place, : kept[place]] = each.rows
        parts, clients = sizes.shape
        flat_losses, gradients = self.stack.gradients(
            start.expand(parts * clients, -1),
            self.stack.places(rows.reshape(parts * clients, -1)),
            self.stack.weights(sizes.ravel()),
        )
        part_losses = flat_losses.view(parts, clients)
        part_gradients = self.stack.join(gradients).view(parts, clients, -1)
        shares = torch.from_numpy(sizes / size).to(start)
        return Opening(
            start=start,
            rows=rows,
            sizes=sizes,
            part_losses=part_losses,
            part_gradients=part_gradients,
            losses=(shares * part_losses).sum(dim=0),
            gradient=(shares[:, :, None] * part_gradients).sum(dim=0),
            held=held,
        )

    def end(
        self, opening: Opening, work: RoundWork, parameters: Tensor, last: Ints | None
    ) -> tuple[list[dict[str, Any]], Ints]:
        """Give the measurements of a round, and the samples that they took beyond training.

        Parameters
        ----------
        opening : Opening
            What `begin` returned.
        work : RoundWork
            What the B clients of the bucket did.
        parameters : torch.Tensor, shape (B, n)
            The stacked models after the last local step.
        last : numpy.ndarray of int64, shape (B, s), optional
            Samples drawn for the extra evaluation, if there is one.

        Returns
        -------
        measured : list of dict
            Entries "halves", "pair", "gradient" and "change" of each client's report.
        extra : numpy.ndarray of int64, shape (B,)
            Samples.
        """
        clients = len(work.clients)
        sent = self.options.vectors != "none"
        pairs: list[SameBatchPair | None] = [None] * clients
        changes: list[Floats | None] = [None] * clients
        extra = np.zeros(clients, dtype=np.int64)
        known = np.array([each is not None for each in opening.held])
        if known.any():
            now = [each for each in opening.held if each is not None]
            models, losses, slopes = (
                torch.stack([getattr(each, name) for each in now])
                for name in ("model", "losses", "gradients")
            )
            chosen = torch.from_numpy(np.flatnonzero(known)).to(opening.gradient.device)
            found, vectors = _pairs(
                opening.start.double() - models.double(),
                (losses.T, slopes.transpose(0, 1)),
                (opening.part_losses[:2, chosen], opening.part_gradients[:2, chosen]),
                opening.sizes[:2, known],
            )
            for place, pair, vector in zip(np.flatnonzero(known).tolist(), found, vectors, strict=True):
                pairs[place], changes[place] = pair, vector if sent else None
        if last is not None and self.options.pair == "next":
            extra = self._hold(work, parameters, last)
        elif last is not None:
            sizes = opening.sizes[:2]
            moved = self._evaluate(parameters, opening.rows[:2].reshape(2 * clients, -1), sizes.ravel())
            step = parameters.double() - opening.start.double()
            found, _ = _pairs(step, (opening.part_losses[:2], opening.part_gradients[:2]), moved, sizes)
            for place in np.flatnonzero(sizes[0] > 0).tolist():
                pairs[place] = found[place]
                extra[place] = sizes[:, place].sum()
        gradients = list(_numbers(opening.gradient)) if sent else [None] * clients
        measured = [
            {
                "halves": halves,
                "pair": pair,
                "gradient": self._pack(vector, work.round),
                "change": self._pack(change, work.round),
            }
            for halves, pair, vector, change in zip(_halves(opening), pairs, gradients, changes, strict=True)
        ]
        return measured, extra

    def _take(self, client: int, size: int) -> Held | None:
        held = self._held.pop(client, None)
        return None if held is None or held.rows.size > size else held

    def _hold(self, work: RoundWork, parameters: Tensor, last: Ints) -> Ints:
        """Evaluate two fresh batches at the last local models, for the next round."""
        size = np.where(work.batch_sizes >= 2, np.maximum(1, work.batch_sizes // 4), 0)
        width = max(1, int(size.max()))
        second = np.minimum(size[:, None] + np.arange(width), last.shape[1] - 1)
        rows = np.concatenate([last[:, :width], np.take_along_axis(last, second, axis=1)])
        losses, gradients = self._evaluate(parameters, rows, np.concatenate([size, size]))
        for place, (client, count) in enumerate(zip(work.clients.tolist(), size.tolist(), strict=True)):
            if count:
                self._held[client] = Held(
                    np.stack([rows[place, :count], rows[len(size) + place, :count]]),
                    parameters[place],
                    losses[:, place],
                    gradients[:, place],
                )
        return 2 * size

    def _evaluate(self, parameters: Tensor, rows: Ints, sizes: Ints) -> tuple[Tensor, Tensor]:
        """Losses (2, B) and gradients (2, B, n) of two mini-batches a client."""
        weights = self.stack.weights(sizes)
        places = self.stack.places(rows[:, : weights.shape[1]])
        losses, gradients = self.stack.gradients(parameters.repeat(2, 1), places, weights)
        return losses.view(2, -1), self.stack.join(gradients).view(2, *parameters.shape)

    def _pack(self, vector: Floats | None, seed: int) -> Floats | None:
        if vector is None or self.options.vectors == "full" or len(vector) <= self.options.sketch_size:
            return vector
        return count_sketch(vector, self.options.sketch_size, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """What clients keep from round to round."""
        return {str(client): dict(held.__dict__) for client, held in self._held.items()}

    def load_state_dict(self, state: dict[str, Any], like: Tensor) -> None:
        """Go on from what `state_dict` returned, on the device of `like`."""
        readers = dict.fromkeys(("rows", "model", "losses", "gradients"), validation.numeric_array)
        held = {}
        for client, kept in state.items():
            read = table(f"state[{client}]", kept, readers)
            rows = read.pop("rows")
            held[int(client)] = Held(rows, **{name: torch.as_tensor(read[name]).to(like) for name in read})
        self._held = held


def _numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.double().cpu().numpy())


def _halves(opening: Opening) -> list[HalfBatches | None]:
    """Compare the first part with the rest."""
    sizes = opening.sizes
    rest = sizes[1:].sum(axis=0)
    first, second = opening.part_gradients[:2]
    if len(sizes) > 2:
        shares = torch.from_numpy(sizes[1:] / rest).to(first)
        second = (shares[:, :, None] * opening.part_gradients[1:]).sum(dim=0)
    difference = (first - second).square().sum(dim=1).tolist()
    product = (first * second).sum(dim=1).tolist()
    table = zip(sizes[0].tolist(), rest.tolist(), difference, product, strict=True)
    return [HalfBatches(*row) if row[0] else None for row in table]


def _pairs(
    step: Tensor, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], sizes: Ints
) -> tuple[list[SameBatchPair], Floats]:
    """Compare two batches at two models each: losses (2, B), gradients (2, B, n), sizes (2, B)."""
    shares = torch.from_numpy(sizes / np.maximum(sizes.sum(axis=0), 1)).to(step)
    first, second = after[1].double() - before[1].double()
    change = shares[0, :, None] * first + shares[1, :, None] * second
    columns = [
        step.square().sum(dim=1),
        (first * second).sum(dim=1),
        (first - second).square().sum(dim=1),
        (change * step).sum(dim=1),
        (shares * (after[0].double() - before[0].double())).sum(dim=0),
    ]
    table = zip(*(column.tolist() for column in columns), strict=True)
    return [SameBatchPair(*row) for row in table], _numbers(change)

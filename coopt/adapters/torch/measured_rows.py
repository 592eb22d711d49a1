"""What is found on the rows of all measured devices: gradients, products with the curvature, and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coopt.adapters.torch.curvature import NUMBERS_AT_ONCE, Differentiable, row_chunks, rows_at_once
from coopt.adapters.torch.data import ClientRows, SharedData
from coopt.adapters.torch.flat import FlatModel
from coopt.errors import InvalidProblemError
from coopt.measuring.basis import Basis, Seeds, krylov
from coopt.measuring.device_gradients import check_finite
from coopt.measuring.parts import Projected
from coopt.measuring.prepare import Survey
from coopt.measuring.spread import Spread
from coopt.objectives.forecast.optimiser import ClientAdam

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A product with the curvature runs forward and back twice, a gradient once.
GRADIENTS_A_PRODUCT = 2
# Units in the last place of a vector that rounding leaves of one that depends on others.
ROUNDING = 100.0
ROWS_TO_TRY = 4
# Rows of the batches at whose gradients Adam's second moments are frozen.
ADAM_BATCH = 8


class MeasuredRows:
    """The rows of all measured devices, and what is found on them.

    Parameters
    ----------
    flat : FlatModel
    data : SharedData
    held : ClientRows
        What each device holds.
    survey : Survey
        Who is measured, on which rows.
    curvature : {"auto", "hessian", "gauss-newton"}
    micro_batch : int or None
        Most rows in one pass through the model.

    Attributes
    ----------
    kind, reason : str
        Which curvature is taken, and why.
    samples_used : int
    point : numpy.ndarray, shape (m,)
        The model in the directions, once :meth:`run` has found them.
    """

    def __init__(
        self,
        flat: FlatModel,
        data: SharedData,
        held: ClientRows,
        survey: Survey,
        curvature: str,
        micro_batch: int | None,
    ) -> None:
        self._function = Differentiable(flat)
        self._flat, self._data, self._survey = flat, data, survey
        self._counts = survey.shares.counts
        self._first = [
            held.flat[held.first[i] + rows.first]
            for i, rows in zip(survey.shares.measured, survey.rows, strict=True)
        ]
        self._fresh = [
            held.flat[held.first[i] + rows.fresh]
            for i, rows in zip(survey.shares.measured, survey.rows, strict=True)
        ]
        self.samples_used = 0
        self.point = np.empty(0)  # the model in the basis
        self.cut_off = False  # whether the curvature leads out of it
        widest = max(len(rows) for rows in self._first)
        likely = rows_at_once(data.inputs)
        self._at_once = likely if micro_batch is None else min(likely, max(micro_batch, widest))
        x, y = self._take(self._first[0][:ROWS_TO_TRY])
        self._function.check_mean(x, y)
        self.kind, self.reason, self._exact = _kind(self._function.is_affine(x, seed=0), curvature)
        self._owner = np.repeat(np.arange(len(self._first)), [len(rows) for rows in self._first])
        self._all = np.concatenate(self._first)
        self._held = np.bincount(self._owner)[self._owner]  # first rows of the device that each row is of
        self._share = torch.from_numpy(1.0 / self._held).to(self._function.point)
        self._changes: list[Tensor] = []  # of the outputs, along each direction
        self._columns: list[Floats] = []  # of the devices' curvatures in the basis so far

    def take_units_of(self, adam: ClientAdam) -> None:
        """Measure every parameter in the units in which Adam steps, its second moments frozen here."""
        function, moments = self._function, np.zeros(self._flat.size)
        for rows, share in zip(self._first, self._counts, strict=True):
            mean, squares = np.zeros_like(moments), np.zeros_like(moments)
            for part in row_chunks(len(rows), self._at_once, self._flat.size):
                each = function.row_gradients(*self._take(rows[part])).double()
                mean += each.sum(dim=0).cpu().numpy() / len(rows)
                squares += each.square().sum(dim=0).cpu().numpy() / len(rows)
            spread = (squares - mean**2) / max(len(rows) - 1, 1)  # of the mean of these rows
            moments += share * (np.maximum(mean**2 - spread, 0.0) + spread * len(rows) / ADAM_BATCH)
            self.samples_used += len(rows)
        units = 1.0 / np.sqrt(np.sqrt(moments) + adam.epsilon)
        self._function = Differentiable(self._flat, torch.from_numpy(units).to(function.point))

    def _take(self, rows: Ints) -> tuple[Tensor, Tensor]:
        places = torch.from_numpy(rows)
        device = self._flat.device
        inputs, targets = self._data.inputs, self._data.targets
        return (
            inputs.index_select(0, places.to(inputs.device)).to(device),
            targets.index_select(0, places.to(targets.device)).to(device),
        )

    def run(self, advance: Callable[[int], object]) -> Projected:
        """Gradients, products, and the noise."""
        losses, squares, seeds = self._gradients()
        advance(1)
        eps = torch.finfo(self._function.point.dtype).eps
        basis = Basis(self._flat.size, self._survey.directions, precision=ROUNDING * eps)

        def product(grown: Basis) -> Floats:
            mean = self._hessian(grown) if self._exact else self._gauss_newton(grown)
            self.samples_used += GRADIENTS_A_PRODUCT * len(self._all)
            advance(1)
            return mean

        self.cut_off = krylov(seeds, product, basis)
        if not len(basis.vectors):
            raise InvalidProblemError(
                "the gradient is zero on the rows of every device: the model has nothing to learn from them; "
                "measure another model or more rows"
            )
        parts = self._finish(basis.vectors, seeds.gradient, losses, squares)
        self.point = basis.vectors @ self._function.point.detach().cpu().numpy().astype(np.float64)
        advance(1)
        return parts

    def _gradients(self) -> tuple[Floats, Floats, Seeds]:
        function = self._function
        devices, size = len(self._first), self._flat.size
        losses, squares = np.empty(devices), np.empty(devices)
        mean, spare = np.zeros(size), np.zeros(size)
        mix = np.random.default_rng(0).normal(size=devices)
        eps = torch.finfo(function.point.dtype).eps
        for part, x, y, weights in self._devices():
            found = function.device_gradients(x, y, weights).cpu().numpy().astype(np.float64)
            for i, value in zip(range(devices)[part], found[:, :-1], strict=True):
                losses[i], squares[i] = found[i - part.start, -1], float(value @ value)
                finite = bool(np.isfinite(value).all())
                self._check_finite(i, losses[i], finite)
                mean += self._counts[i] * value
                spare += self._counts[i] * mix[i] * value
        self.samples_used += len(self._all)
        # What rounding leaves of gradients that cancel is no direction.
        if np.linalg.norm(mean) <= ROUNDING * eps * np.sqrt(squares.max()):
            mean = np.zeros(size)
        return losses, squares, Seeds(mean, spare)

    def _check_finite(self, place: int, loss: float, gradient: bool) -> None:
        device, rows = int(self._survey.shares.measured[place]), len(self._first[place])
        check_finite(device, self._survey.name(place), loss, gradient, rows)

    def _devices(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Some devices at a time: their first rows, padded to one number, and the weights of these."""
        widest = max(len(rows) for rows in self._first)
        at_once = min(NUMBERS_AT_ONCE // self._flat.size, self._at_once // widest)
        for start in range(0, len(self._first), max(1, at_once)):
            part = slice(start, min(start + max(1, at_once), len(self._first)))
            padded = np.array([np.resize(rows, widest) for rows in self._first[part]])
            shares = np.array([(np.arange(widest) < len(rows)) / len(rows) for rows in self._first[part]])
            x, y = self._take(padded.ravel())
            weights = torch.from_numpy(shares).to(self._function.point)
            yield part, x.view(*padded.shape, *x.shape[1:]), y.view(*padded.shape, *y.shape[1:]), weights

    def _direction(self, basis: Basis) -> Tensor:
        return torch.from_numpy(basis.last).to(self._function.point)

    def _gauss_newton(self, basis: Basis) -> Floats:
        direction, decay = self._direction(basis), self._function.decay
        kept = decay.cpu().numpy().astype(np.float64) * basis.last
        mean = kept.copy()
        changes, curved = [], []
        heavy = self._share * torch.from_numpy(self._counts[self._owner]).to(self._share)
        for part in row_chunks(len(self._all), self._at_once):
            x, y = self._take(self._all[part])
            change, product = self._function.output_product(x, y, direction)
            scale = heavy[part].view(-1, *[1] * (product.ndim - 1))
            mean += self._function.pull_back(x, scale * product).cpu().numpy()
            changes.append(change.reshape(len(x), -1))
            curved.append(product.reshape(len(x), -1))
        self._changes.append(torch.cat(changes))
        image = torch.cat(curved)
        rows = torch.stack([(change * image).sum(dim=1) for change in self._changes], dim=1)
        rows = rows.double() * self._share[:, None]
        column = _sums(rows.cpu().numpy(), self._owner, len(self._first))
        column += basis.vectors @ kept
        self._columns.append(column)
        return mean

    def _hessian(self, basis: Basis) -> Floats:
        direction = self._direction(basis)
        mean, column = np.zeros(self._flat.size), np.empty((len(self._first), len(basis.vectors)))
        for part, x, y, weights in self._devices():
            products = self._function.hessian_products(x, y, weights, direction)
            exact = products.cpu().numpy().astype(np.float64)
            column[part] = exact @ basis.vectors.T
            mean += self._counts[part] @ exact
        self._columns.append(column)
        return mean

    def _finish(self, basis: Floats, near: Floats, losses: Floats, squares: Floats) -> Projected:
        """Gradients of single rows, in the basis and in full."""
        devices, size = len(self._first), len(basis)
        gradients, noise = np.empty((devices, size)), np.empty(devices)
        curvatures, covariances = np.zeros((2, devices, size, size))
        for k, column in enumerate(self._columns):
            curvatures[:, : k + 1, k] = curvatures[:, k, : k + 1] = column
        fresh = np.zeros(self._flat.size)
        for i, (spread, first, other) in enumerate(self._spreads(basis, near)):
            gradients[i] = basis @ first
            covariances[i], noise[i] = spread.covariance, spread.trace
            fresh += self._counts[i] * other
            self.samples_used += spread.count
        steep = self._row_curvatures()
        sharpness = _sums(np.column_stack([steep, steep**2]) / self._held[:, None], self._owner, devices)
        self.samples_used += GRADIENTS_A_PRODUCT * len(steep)
        return Projected(
            losses=losses,
            squares=squares,
            gradients=gradients,
            curvatures=curvatures,
            covariances=covariances,
            noise=noise,
            sharpness=sharpness,
            fresh=basis @ fresh,
            fresh_square=float(fresh @ fresh),
        )

    def _row_curvatures(self) -> Floats:
        parts = []
        for part in row_chunks(len(self._all), self._at_once, self._flat.size):
            x, y = self._take(self._all[part])
            parts.append(self._function.row_curvatures(x, y, self._exact).double().cpu().numpy())
        return np.concatenate(parts)

    def _spreads(self, basis: Floats, near: Floats) -> Iterator[tuple[Spread, Floats, Floats]]:
        """For each device its rows' gradients, their mean on the first rows, and that on the fresh ones.

        Rows of several devices are differentiated together; where there are no fresh rows, the first count.
        """
        spread, first = Spread(near, basis), near
        for device, is_first, inside, total, squares in self._row_sums(basis, near):
            spread.add_deviations(inside, total, squares)
            known = len(self._first[device])
            if is_first and spread.count == known:
                first = spread.mean
            if spread.count == known + len(self._fresh[device]):
                count = spread.count - known
                yield spread, first, (spread.count * spread.mean - known * first) / count if count else first
                spread = Spread(near, basis)

    def _row_sums(self, basis: Floats, near: Floats) -> Iterator[tuple[int, bool, Floats, Floats, float]]:
        """Deviations of rows' gradients: in the basis, their sum, and the sum of their squares, in pieces."""
        directions, reference = (torch.from_numpy(part).to(self._flat.device) for part in (basis, near))
        segments = [rows for pair in zip(self._first, self._fresh, strict=True) for rows in pair]
        ends = np.cumsum([len(rows) for rows in segments])
        everything = np.concatenate(segments)
        for part in row_chunks(len(everything), self._at_once, self._flat.size):
            x, y = self._take(everything[part])
            deviations = self._function.row_gradients(x, y).double() - reference
            inside = (deviations @ directions.T).cpu().numpy()
            squares = deviations.square().sum(dim=1).cpu().numpy()
            start = part.start
            while start < part.stop:
                segment = int(np.searchsorted(ends, start, side="right"))
                stop = min(int(ends[segment]), part.stop)
                piece = slice(start - part.start, stop - part.start)
                total = deviations[piece].sum(dim=0).cpu().numpy()
                square = float(squares[piece].sum())
                self._check_finite(segment // 2, 0.0, math.isfinite(square))
                yield segment // 2, segment % 2 == 0, inside[piece], total, square
                start = stop


def _kind(affine: bool, curvature: str) -> tuple[str, str, bool]:
    """Kind of curvature, why, and whether products need the Hessian itself."""
    # Where outputs are affine, products with the Gauss-Newton curvature are products with the Hessian.
    if affine and curvature != "gauss-newton":
        why = "the outputs are affine in the parameters, as tried along two random directions"
        return "hessian", why, False
    if curvature == "hessian":
        return "hessian", "asked for; the outputs are not affine in the parameters", True
    why = "asked for" if curvature == "gauss-newton" else "the outputs are not affine in the parameters"
    return "gauss-newton", why, False


def _sums(rows: Floats, owner: Ints, devices: int) -> Floats:
    """Sums over the rows of each device, shape (devices, ...)."""
    sums = np.zeros((devices, *rows.shape[1:]))
    np.add.at(sums, owner, rows)
    return sums

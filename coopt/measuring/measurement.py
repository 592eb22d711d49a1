"""A federation in a few directions: what a forecast is made of."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.fresh_rows import confirmed_fall, confirmed_gradient
from coopt.measuring.measured_constants import measured_constants
from coopt.measuring.measurement_archive import read_archive, write_archive
from coopt.measuring.measurement_facts import facts
from coopt.measuring.measurement_fields import checked_fields
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.model import LocalModel
from coopt.objectives.forecast.optimiser import AVERAGING, ClientAdam, Optimiser
from coopt.problem.constants import Constants
from coopt.problem.fleet import Fleet
from coopt.problem.known_names import refuse_unknown
from coopt.problem.validation import instance, same_value

if TYPE_CHECKING:
    from coopt.objectives.forecast.forecast import Plan
    from coopt.plans.described_figure import DescribedFigure

Floats = NDArray[np.float64]

# Downward curvature from this share of the largest on speaks against a convex loss.
CURVES_DOWN = 1e-2
# Curvatures of single samples below so many times that of their mean do not point where the loss curves.
POINTING = 1.1


@dataclass(frozen=True, eq=False, repr=False)
class Measurement:
    """Each device's gradient, curvature and noise at one model, in a few directions that all share.

    Made by :func:`coopt.measure` and ``coopt.adapters.torch.measure``; what was measured on a few rows is an
    estimate, and everything derived from it a forecast, never a bound.

    Attributes
    ----------
    samples : numpy.ndarray of int64, shape (N,)
        Samples that each device holds, d_i.
    weights : numpy.ndarray, shape (N,)
        Aggregation weights p_i; they sum to one.
    names : tuple of str, or None
        Names of the devices.
    gradients : numpy.ndarray, shape (N, m)
        Gradient of each device in the directions Q, Q'g_i [gradient].
    fresh_gradient : numpy.ndarray, shape (m,)
        Averaged gradient in the directions on other rows, which had no part in choosing them [gradient].
    curvatures : numpy.ndarray, shape (N, m, m)
        Projected curvature Q'H_iQ, symmetric [curvature].
    covariances : numpy.ndarray, shape (N, m, m)
        Projected covariance Q'C_iQ of the gradient of one sample, unbiased [gradient^2].
    noise : numpy.ndarray, shape (N,)
        Trace of the whole covariance C_i, M_i [gradient^2 * samples].
    divergence : numpy.ndarray, shape (N,)
        ||g_i - g||, what sampling adds to it subtracted [gradient].
    gradient_norm : float
        ||g|| of the averaged gradient, what sampling adds to it subtracted [gradient].
    unseen : float
        Share of ||g||^2 that lies outside the directions, from rows that did not choose them.
    unseen_divergence : float
        Share of sum p_i ||g_i - g||^2 that lies outside the directions.
    loss : float
        Averaged loss of the model, on the rows measured.
    sample_curvature : float, or None
        E c^2 / E c over the largest curvatures c of the loss of single samples: what small batches may meet
        [curvature]; None where the gradient jumps.
    rows : numpy.ndarray of int64, shape (N,)
        Rows that gradient and curvature of each device were taken on; 0 where it was not measured.
    measured : numpy.ndarray of bool, shape (N,)
        Whether the device was measured; else its values are filled in from others.
    samples_used : int
        Samples that all devices together processed for it; a product with the curvature counts for the
        gradients that it takes.
    curvature_kind : {"hessian", "gauss-newton", "gradient differences"}
    curvature_reason : str
        Why this kind, in words.
    parameters : int
        Parameters of the model, n.
    scaling : str, optional
        "adam" where every parameter is measured in units of its own, those that Adam on the devices steps in
        (``coopt.adapters.torch.measure(optimiser=ClientAdam())``), else None.
    point : numpy.ndarray, shape (m,), optional
        The model measured in the directions, Q'w_0; None in files of before it was kept.
    sample_curvatures : numpy.ndarray, shape (N,), optional
        The `sample_curvature` of the samples of each device [curvature]; None where that is, and in files of
        before it was kept.
    cut_off : bool, optional
        Whether the curvature leads out of the directions, so that more of them would tell more. None in files
        of before it was kept.

    Notes
    -----
    Measurements compare by value and, since they hold arrays, do not hash.

    Examples
    --------
    Two devices with quadratic losses, F_i(w) = mean of (w - x)^2 / 2 over the samples x:

    >>> import coopt
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> clients = [rng.normal(size=(100, 3)), 1 + rng.normal(size=(50, 3))]
    >>> def gradient(model, x):
    ...     error = model - x
    ...     return 0.5 * np.mean(np.sum(error**2, axis=1)), error.mean(axis=0)
    >>> measurement = coopt.measure(gradient, np.full(3, 4.0), clients)
    >>> measurement
    Measurement(2 devices, 2 directions of 3 parameters, ...
    >>> measurement.spectrum.round(6)
    array([1., 1.])
    >>> measurement.fleet(throughput=[50.0, 200.0])
    Fleet(2 devices, 150 samples)
    """

    __module__ = "coopt"

    samples: NDArray[np.int64]
    weights: Floats
    names: tuple[str, ...] | None
    gradients: Floats
    fresh_gradient: Floats
    curvatures: Floats
    covariances: Floats
    noise: Floats
    divergence: Floats
    gradient_norm: float
    unseen: float
    unseen_divergence: float
    loss: float
    sample_curvature: float | None
    rows: NDArray[np.int64]
    measured: NDArray[np.bool_]
    samples_used: int
    curvature_kind: str
    curvature_reason: str
    parameters: int
    scaling: str | None = None
    point: Floats | None = None
    sample_curvatures: Floats | None = None
    cut_off: bool | None = None

    def __post_init__(self) -> None:
        for name, value in checked_fields(self).items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    def __len__(self) -> int:
        return int(self.samples.size)

    @property
    def directions(self) -> int:
        """Directions that everything is measured in, m; fewer than asked for where there are no more."""
        return int(self.gradients.shape[1])

    @cached_property
    def curvature(self) -> Floats:
        """Averaged curvature in the directions, sum p_i Q'H_iQ, shape (m, m)."""
        mean: Floats = np.tensordot(self.weights, self.curvatures, axes=1)
        return mean

    @cached_property
    def gradient(self) -> Floats:
        """Averaged gradient in the directions, sum p_i Q'g_i, shape (m,)."""
        mean: Floats = self.weights @ self.gradients
        return mean

    @cached_property
    def confirmed_gradient(self) -> Floats:
        """Averaged gradient in the directions as far as fresh rows confirm it, shape (m,).

        A gradient on a few rows is in part their noise. Along each axis of the averaged curvature its product
        with the gradient on fresh rows estimates the square without that noise.
        """
        return confirmed_gradient(self.gradient, self.fresh_gradient, self.curvature)

    @cached_property
    def confirmed(self) -> float:
        """Share of the fall of the loss, by the rows measured, that fresh rows confirm; from 0 to 1."""
        return confirmed_fall(self.gradient, self.fresh_gradient, self.curvature)

    @cached_property
    def spectrum(self) -> Floats:
        """Ritz values of the averaged curvature, largest first, shape (m,): they lie within its spectrum."""
        return np.linalg.eigvalsh(self.curvature)[::-1].astype(np.float64)

    @cached_property
    def device_spectra(self) -> Floats:
        """Ritz values of the curvature of each device, largest first, shape (N, m)."""
        return np.linalg.eigvalsh(self.curvatures)[:, ::-1].astype(np.float64)

    @property
    def noise_seen(self) -> float:
        """Share of the noise, sum p_i M_i, that lies in the directions."""
        traces = np.trace(self.covariances, axis1=1, axis2=2)
        total = float(self.weights @ self.noise)
        return float(self.weights @ traces) / total if total > 0.0 else 1.0

    @cached_property
    def model(self) -> LocalModel:
        """The quadratic model of every device; its ``digest`` tells this measurement from others.

        All gradients are shifted alike, so that their average is the :attr:`confirmed_gradient`.
        """
        return LocalModel(
            self.weights,
            self.gradients + (self.confirmed_gradient - self.gradient),
            self.curvatures,
            self.covariances,
            self.samples,
            self.sample_curvature,
            self.parameters,
            self.point,
            self.sample_curvatures,
        )

    @property
    def convex(self) -> bool:
        """Whether nothing that was measured speaks against a convex loss.

        A Gauss-Newton curvature is taken where the outputs are not affine in the parameters, as those of
        networks; and others show it where they curve downwards.
        """
        curves_down = -self.spectrum[-1] > CURVES_DOWN * max(self.spectrum[0], 0.0)
        return self.curvature_kind != "gauss-newton" and not curves_down

    @property
    def smallest_batch(self) -> int:
        """The smallest batch that a forecast is to be trusted with at the rate of the rounds before: 1 or 2.

        The largest curvature of a mean is at most the mean of those of its samples. Where less was measured
        along the samples' own gradients, as early in training of convolutional networks, these do not yet
        point where the loss curves, and curvature has yet to grow: batches of one, whose noise is that of
        curvature too, were seen to train far worse than forecast, and batches of two not. A rule that was
        checked on trained plans, not a theorem, with a margin for what a few rows leave open; a loss that
        seems convex has none of it.
        """
        if self.convex or self.sample_curvature is None:
            return 1
        return 2 if self.sample_curvature < POINTING * self.spectrum[0] else 1

    def forecast(
        self,
        learning_rate: float | None = None,
        optimiser: Optimiser | None = None,
        rate_growth: float | None = None,
    ) -> Forecast:
        """What plans are expected to reach: an objective for solvers, like the bounds, but no bound.

        Parameters
        ----------
        learning_rate : float, optional
            eta > 0; default: that of the problem, or of the solver's argument.
        optimiser : Optimiser
            Momentum and rates of devices and server; default plain federated averaging, with Adam on the
            devices where the measurement was taken for it.
        rate_growth : float, optional
            Where rates are chosen, none is more than so many times the one that is given, here or in the
            problem. Default 1 where the loss is not :attr:`convex`: give the rate of the rounds before the
            measurement, which is the one that was tried; and inf where it is.

        Returns
        -------
        Forecast
        """
        if optimiser is None:
            optimiser = Optimiser(ClientAdam()) if self.scaling == "adam" else AVERAGING
        instance("optimiser", optimiser, Optimiser)
        if isinstance(optimiser.client, ClientAdam) != (self.scaling == "adam"):
            raise InvalidProblemError(
                f"optimiser = {optimiser.client}: the measurement is "
                + ("for" if self.scaling else "not for")
                + " Adam; coopt.adapters.torch.measure takes the optimiser that it is meant for"
            )
        if rate_growth is None:
            rate_growth = math.inf if self.convex else 1.0
        return Forecast(self.model, learning_rate, optimiser=optimiser, rate_growth=rate_growth)

    def fleet(self, **given: Any) -> Fleet:
        """The fleet with what was measured filled in.

        Parameters
        ----------
        **given
            Other fields of :class:`~coopt.Fleet`: ``throughput``, ``round_time``, ``sample_cost``, ...; one
            that was measured may be given too, and then counts.

        Returns
        -------
        Fleet
            With samples, weights, names, gradient_noise and divergence as measured, and `min_batch` 2 where
            that is the :attr:`smallest_batch`.

        Raises
        ------
        InvalidProblemError
            As :class:`~coopt.Fleet` does.
        """
        measured: dict[str, Any] = {
            "samples": self.samples,
            "weights": self.weights,
            "names": self.names,
            "gradient_noise": self.noise,
            "divergence": self.divergence,
        }
        refuse_unknown(given, inspect.signature(Fleet).parameters, "Measurement.fleet")
        if self.smallest_batch > 1 and not given.keys() & {"max_batch", "batch_choices"}:
            measured["min_batch"] = np.minimum(self.smallest_batch, self.samples)
        return Fleet(**(measured | given))

    def constants(self, learning_rate: float) -> Constants:
        """Constants of the loss as measured: at one model, on a few rows, in a few directions.

        A bound evaluated with them guides, but proves nothing: a bound needs the largest curvature anywhere,
        and these are the values here.

        Parameters
        ----------
        learning_rate : float
            eta > 0.

        Returns
        -------
        Constants
            smoothness: largest Ritz value of any device. mean_smoothness: largest of the averaged curvature.
            curvature_floor: smallest of any device where negative beyond rounding, else 0. initial_gap: that
            of the forecast, over the directions of more curvature than its floor. pl_constant:
            ||g||^2 / (2 initial_gap), of the gradient in these.

        Raises
        ------
        InvalidProblemError
            If the loss does not curve upwards in any direction measured, or its gradient is zero.
        """
        return measured_constants(self.model.loss, self.spectrum, self.device_spectra, learning_rate)

    def save(self, path: str | Path) -> None:
        """Write to a numpy archive (.npz) without pickled objects; :meth:`load` gives back an equal one."""
        with Path(path).open("wb") as stream:
            self.write(stream)

    def write(self, stream: IO[bytes]) -> None:
        """Write what `save` writes to an open stream of bytes."""
        write_archive(stream, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; no code in the file is run.

        Raises
        ------
        InvalidProblemError
            If the file cannot be read or does not hold a measurement.
        """
        return cls.read(path, str(path))

    @classmethod
    def read(cls, source: str | Path | IO[bytes], name: str) -> Self:
        """Read what :meth:`write` wrote, from a stream or a file that messages call `name`."""
        values = read_archive(source, name, [field.name for field in fields(cls)], _OPTIONAL)
        if isinstance(values["names"], np.ndarray):
            values["names"] = values["names"].tolist()
        return cls(**values)

    def plot(self) -> DescribedFigure:
        """Draw the spectrum and the devices.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        from coopt.measuring.plot_measurement import plot_measurement

        return plot_measurement(self)

    def plot_training(self, plan: Plan, losses: ArrayLike) -> DescribedFigure:
        """Draw what a plan was forecast to reach beside what training by it reached.

        Parameters
        ----------
        plan : Allocation or the like
            With rounds, local steps, batch sizes, and the problem that it answers.
        losses : array_like, shape (K,) or (K + 1,)
            Averaged loss after each round that was trained from the model measured; before the first, if one
            more.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        InvalidProblemError
            If there are more or fewer losses.
        """
        from coopt.measuring.plot_measurement import plot_training

        return plot_training(self, plan, losses)

    def __repr__(self) -> str:
        left_out = int((~self.measured).sum())
        seen = self.rows[self.measured]
        rows = f"{seen.min()}" if seen.min() == seen.max() else f"{seen.min()} to {seen.max()}"
        return (
            f"Measurement({len(self)} devices, {self.directions} directions of {self.parameters:,} "
            f"parameters, {self.curvature_kind} on {rows} rows a device, {self.samples_used:,} samples"
            + (f", {left_out} filled in)" if left_out else ")")
        )

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<tr><td>{name}</td><td>{escape(text)}</td></tr>" for name, text in self.facts().items()
        )
        return f"<table><caption>Measurement</caption>{lines}</table>"

    def facts(self) -> dict[str, str]:
        """What a person wants to know of it, as labels and texts."""
        return facts(self)


_OPTIONAL = ("names", "sample_curvature", "scaling", "point", "sample_curvatures", "cut_off")

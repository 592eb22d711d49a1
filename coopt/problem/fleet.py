"""The fleet: what every device holds, how noisy and fast it is, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.admissible_batches import AdmissibleBatches, same_everywhere
from coopt.problem.fleet_fields import aggregation_weights, allowed_sizes, device_names, naming_device
from coopt.problem.fleet_sums import FleetSums
from coopt.problem.readable import readable
from coopt.problem.result_table import DataFrameSource
from coopt.problem.validation import count, flag, float_array, generator, integer_array, same_fields


@readable
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Fleet(AdmissibleBatches, FleetSums, DataFrameSource):
    """The devices: what they hold, how noisy they are, how fast they are and what they cost.

    Every argument but `samples` and `names` may be a scalar, which then holds for every device.

    Parameters
    ----------
    samples : array_like of int, shape (N,)
        Training samples held by each device, d_i >= 1.
    gradient_noise : array_like, shape (N,) or scalar
        M_i >= 0, so that a mini-batch gradient of size s has variance (trace of the covariance) at
        most M_i / s [gradient^2 * samples].
    divergence : array_like, shape (N,) or scalar
        delta_i >= 0, the largest distance between the gradient of device i and the global gradient
        [gradient]. There is no default: a silent zero would make the bound false.
    throughput : array_like, shape (N,) or scalar, default inf
        pi_i > 0, samples processed per second beyond what ``step_time`` counts: 1 / pi_i is how much longer
        a step takes for each further sample.
    round_time : array_like, shape (N,) or scalar, default 0
        u_i >= 0, seconds of communication per round.
    sample_cost : array_like, shape (N,) or scalar, default 1
        a_i >= 0, cost of processing one sample.
    weights : array_like, shape (N,), optional
        Aggregation weights p_i >= 0 that sum to one; default samples / samples.sum().
    min_batch, max_batch : array_like of int, shape (N,) or scalar
        1 <= min_batch <= s_i <= max_batch; defaults 1 and the samples held.
    batch_multiple : array_like of int, shape (N,) or scalar, default 1
        Batch sizes are multiples of this.
    replacement : bool, default True
        Whether mini-batches are drawn with replacement. Without it the variance is at most
        M_i (1/s - 1/d_i), and max_batch may not exceed the samples held.
    names : sequence of str, optional
        Device names for tables and messages.
    round_cost : array_like, shape (N,) or scalar, default 0
        b_i >= 0, cost of one round on the device beyond its samples, such as its communication; added to
        ``Budget.round_cost``.
    sample_energy : array_like, shape (N,) or scalar, default 0
        e_i >= 0, energy of processing one sample [J].
    round_energy : array_like, shape (N,) or scalar, default 0
        g_i >= 0, energy of one round on the device beyond its samples [J].
    step_time : array_like, shape (N,) or scalar, default 0
        alpha_i >= 0, seconds that every local step takes whatever its batch: starting kernels, loading data,
        the update of the model. A step of s samples takes alpha_i + s / pi_i [s].
    step_cost : array_like, shape (N,) or scalar, default 0
        f_i >= 0, cost of every local step on the device whatever its batch.
    step_energy : array_like, shape (N,) or scalar, default 0
        h_i >= 0, energy of every local step on the device whatever its batch [J].
    micro_batch : array_like of int, shape (N,) or scalar, optional
        m_i >= 1, the most samples that a device's memory holds at once. A larger batch is taken in parts
        whose gradients are added up, which leaves the step as it is and takes ``step_time`` once for each
        part: alpha_i ceil(s_i / m_i) + s_i / pi_i [s]; ``step_cost`` and ``step_energy`` still count once.
        Default: memory holds any batch.
    batch_choices : sequence of int, or one such sequence a device, optional
        The batch sizes that are allowed, such as powers of two or the shapes that were compiled; within
        min_batch and max_batch, and in place of batch_multiple. Default: all.
    step_noise : array_like, shape (N,) or scalar, default 0
        V_i >= 0, variance of every local step's gradient that no batch removes, such as noise added for
        privacy or by quantisation; the variance of a mini-batch gradient is then at most M_i / s + V_i
        [gradient^2].

    Raises
    ------
    InvalidProblemError
        If a value is missing, not a number, out of range or of the wrong shape. The message names
        the field, the first offending device, the value and what would be valid.

    Notes
    -----
    Fleets compare by value and, since they hold arrays, do not hash.

    Examples
    --------
    >>> from coopt import Fleet
    >>> fleet = Fleet(samples=[600, 200], gradient_noise=4.0, divergence=0.1, throughput=[50, 400])
    >>> fleet.weights
    array([0.75, 0.25])
    >>> Fleet(samples=[600, 0], gradient_noise=4.0, divergence=0.1)
    Traceback (most recent call last):
    ...
    coopt.InvalidProblemError: samples[1] = 0: must be an integer >= 1
    """

    __module__ = "coopt"

    samples: NDArray[np.int64]
    gradient_noise: NDArray[np.float64]
    divergence: NDArray[np.float64]
    throughput: NDArray[np.float64]
    round_time: NDArray[np.float64]
    sample_cost: NDArray[np.float64]
    weights: NDArray[np.float64]
    min_batch: NDArray[np.int64]
    max_batch: NDArray[np.int64]
    batch_multiple: NDArray[np.int64]
    replacement: bool
    names: tuple[str, ...] | None
    round_cost: NDArray[np.float64]
    sample_energy: NDArray[np.float64]
    round_energy: NDArray[np.float64]
    step_time: NDArray[np.float64]
    step_cost: NDArray[np.float64]
    step_energy: NDArray[np.float64]
    micro_batch: NDArray[np.int64] | None
    batch_choices: tuple[tuple[int, ...], ...] | None
    step_noise: NDArray[np.float64]

    def __init__(
        self,
        samples: ArrayLike,
        gradient_noise: ArrayLike,
        divergence: ArrayLike,
        throughput: ArrayLike = np.inf,
        round_time: ArrayLike = 0.0,
        sample_cost: ArrayLike = 1.0,
        weights: ArrayLike | None = None,
        min_batch: ArrayLike = 1,
        max_batch: ArrayLike | None = None,
        batch_multiple: ArrayLike = 1,
        replacement: bool = True,
        names: Sequence[str] | None = None,
        round_cost: ArrayLike = 0.0,
        sample_energy: ArrayLike = 0.0,
        round_energy: ArrayLike = 0.0,
        step_time: ArrayLike = 0.0,
        step_cost: ArrayLike = 0.0,
        step_energy: ArrayLike = 0.0,
        micro_batch: ArrayLike | None = None,
        batch_choices: Sequence[int] | Sequence[Sequence[int]] | None = None,
        step_noise: ArrayLike = 0.0,
    ) -> None:
        try:
            held = integer_array("samples", samples, None, minimum=1)
            size = held.size
            shares = aggregation_weights(weights, held)
            values = {
                "samples": held,
                "gradient_noise": float_array("gradient_noise", gradient_noise, size, minimum=0.0),
                "divergence": float_array("divergence", divergence, size, minimum=0.0),
                "throughput": float_array(
                    "throughput", throughput, size, minimum=0.0, strict=True, infinite=True
                ),
                "round_time": float_array("round_time", round_time, size, minimum=0.0),
                "sample_cost": float_array("sample_cost", sample_cost, size, minimum=0.0),
                "weights": shares,
                "min_batch": integer_array("min_batch", min_batch, size, minimum=1),
                "max_batch": held
                if max_batch is None
                else integer_array("max_batch", max_batch, size, minimum=1),
                "batch_multiple": integer_array("batch_multiple", batch_multiple, size, minimum=1),
                "replacement": flag("replacement", replacement),
                "names": device_names(names, size),
                "round_cost": float_array("round_cost", round_cost, size, minimum=0.0),
                "sample_energy": float_array("sample_energy", sample_energy, size, minimum=0.0),
                "round_energy": float_array("round_energy", round_energy, size, minimum=0.0),
                "step_time": float_array("step_time", step_time, size, minimum=0.0),
                "step_cost": float_array("step_cost", step_cost, size, minimum=0.0),
                "step_energy": float_array("step_energy", step_energy, size, minimum=0.0),
                "micro_batch": None
                if micro_batch is None
                else integer_array("micro_batch", micro_batch, size, minimum=1),
                "batch_choices": None if batch_choices is None else allowed_sizes(batch_choices, size),
                "step_noise": float_array("step_noise", step_noise, size, minimum=0.0),
            }
            for name, value in values.items():
                object.__setattr__(self, name, value)
            self.check_batch_range()
        except InvalidProblemError as error:
            raise InvalidProblemError(naming_device(str(error), names)) from error

    @cached_property
    def common_cost(self) -> float | None:
        """The cost of a sample where it is the same on every device, else None."""
        return float(self.sample_cost[0]) if same_everywhere(self.sample_cost) else None

    @cached_property
    def unit_cost(self) -> float | None:
        """The cost of batch_multiple samples where it is positive and the same on every device, else None."""
        if self.batch_choices is not None:
            return None
        first = float(self.sample_cost[0] * self.batch_multiple[0])
        alike = same_everywhere(self.sample_cost) and same_everywhere(self.batch_multiple)
        return first if first > 0.0 and (alike or self._one_unit_cost(first)) else None

    def _one_unit_cost(self, first: float) -> bool:
        return bool((self.sample_cost * self.batch_multiple == first).all())

    @cached_property
    def free_rounds(self) -> bool:
        """Whether no device has a round cost of its own."""
        return self.round_cost[0] == 0.0 and same_everywhere(self.round_cost)

    @cached_property
    def accumulates(self) -> bool:
        """Whether some batch is taken in parts that take time of their own."""
        if self.micro_batch is None:
            return False
        return bool(((self.micro_batch < self.max_batch) & (self.step_time > 0.0)).any())

    @cached_property
    def part_throughput(self) -> NDArray[np.float64]:
        """Samples a second in full parts, the time of the parts included: 1 / (alpha_i / m_i + 1 / pi_i)."""
        if self.micro_batch is None:
            return self.throughput
        with np.errstate(divide="ignore"):
            return 1.0 / (self.step_time / self.micro_batch + 1.0 / self.throughput)

    def __len__(self) -> int:
        return int(self.samples.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fleet) and same_fields(self, other)

    def _shown(self) -> list[str]:
        return [f"{len(self)} devices", f"{int(self.samples.sum())} samples"]

    def _first_rows(self, count: int) -> tuple[list[dict[str, Any]], int]:
        """Some devices, with the fields that are not the default everywhere."""
        columns = {} if self.names is None else {"names": self.names[:count]}
        for name, parameter in signature(Fleet).parameters.items():
            values = getattr(self, name)
            if isinstance(values, np.ndarray) and not np.all(values == parameter.default):
                columns[name] = values[:count].tolist()
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows], len(self)

    @classmethod
    def from_csv(cls, path: str | Path, **fields: Any) -> Self:
        """Read a fleet from a CSV file with one row a device and one column a field.

        Parameters
        ----------
        path : str or Path
            The header names fields of :class:`Fleet` (``names``, ``samples``, ...), in any order.
        **fields
            Fields that the file does not hold, such as ``replacement``.

        Returns
        -------
        Fleet

        Raises
        ------
        InvalidProblemError
            If the file cannot be read, a column is unknown (the nearest valid name is given), or a
            cell is not a number (row and column are given).
        """
        from coopt.problem.files import fleet_columns

        return cls(**fleet_columns(path, fields))

    @classmethod
    def from_dataframe(cls, frame: Any, **fields: Any) -> Self:
        """Read a fleet from a data frame with one row a device and one column a field.

        Parameters
        ----------
        frame : data frame of pandas, polars, pyarrow, or another library that narwhals knows
            Its columns are fields of :class:`Fleet`, in any order. Where it has no column ``names``, an index
            of texts names the devices.
        **fields
            Fields that the frame does not hold: a scalar, one value a device in the order of the rows, or
            values by name: a mapping, or a pandas Series with an index of texts.

        Returns
        -------
        Fleet

        Raises
        ------
        MissingDependencyError
            If narwhals, the extra ``dataframe``, is not installed.
        InvalidProblemError
            If a column is unknown (the nearest valid name is given) or missing, a value is missing or wrong,
            or a name has no value or is no device.

        Examples
        --------
        >>> import pandas as pd
        >>> from coopt import Fleet
        >>> frame = pd.DataFrame(
        ...     {"samples": [600, 2000], "gradient_noise": [4.0, 3.0], "divergence": [0.2, 0.1]},
        ...     index=["phone", "board"],
        ... )
        >>> fleet = Fleet.from_dataframe(frame, throughput={"board": 200.0, "phone": 50.0})
        >>> fleet.names, fleet.throughput
        (('phone', 'board'), array([ 50., 200.]))
        """
        from coopt.problem.data_frames import fleet_fields

        return cls(**fleet_fields(frame, fields))

    @classmethod
    def from_traces(
        cls,
        latency: ArrayLike,
        links: ArrayLike,
        model_bytes: float,
        *,
        devices: int,
        seed: int | np.random.Generator,
        **fields: Any,
    ) -> Self:
        """Draw the speeds and links of a fleet from measured tables, each device on its own.

        Parameters
        ----------
        latency : array_like, shape (n,)
            Measured time of computing for a sample, such as one entry a phone model [ms / sample].
        links : array_like, shape (m,) or (m, 2)
            Measured speeds of links; two columns are download and upload [kbit / s].
        model_bytes : float
            What is sent each way in a round [bytes].
        devices : int
            N. Devices are drawn with replacement, latency and link independently.
        seed : int or Generator
        **fields
            The other fields of the fleet: ``samples``, ``gradient_noise``, ``divergence``, ...

        Raises
        ------
        InvalidProblemError
            If a measured number is not positive, or a field is wrong or missing.

        Warns
        -----
        MeasurementWarning
            If the tables look like seconds and bit/s.

        Examples
        --------
        >>> from coopt import Fleet
        >>> fleet = Fleet.from_traces(
        ...     [54, 82, 610], [40_000, 8_000], 1e6, devices=4, seed=0,
        ...     samples=500, gradient_noise=4.0, divergence=0.1,
        ... )
        >>> fleet.throughput.round(1), fleet.round_time.round(2)
        (array([ 1.6, 12.2, 12.2, 18.5]), array([0.4, 0.4, 0.4, 0.4]))
        """
        from coopt.problem.traces import speeds_and_round_times

        number, rng = count("devices", devices), generator("seed", seed)
        held = fields.pop("samples", None)
        if held is None:
            raise InvalidProblemError(
                "samples is missing: give what each device holds, or one number for all"
            )
        samples = np.broadcast_to(np.asarray(held), (number,)) if np.ndim(held) == 0 else held
        throughput, round_time = speeds_and_round_times(latency, links, model_bytes, number, rng)
        return cls(samples, throughput=throughput, round_time=round_time, **fields)

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a device, with the fields that :meth:`to_csv` writes, and ``batch_choices``."""
        columns = self._columns()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _columns(self) -> Mapping[str, Any]:
        from coopt.problem.files import frame_columns

        return frame_columns(self)

    def with_busy_seconds(self, price: ArrayLike) -> Self:
        """The same fleet where every second that a device computes or communicates costs so much.

        Such seconds are linear in the batch: their price goes into ``sample_cost``, ``step_cost`` and
        ``round_cost``. Where a batch is taken in parts (``micro_batch``) up to one part too many is counted:
        the cost then is an upper bound. For seconds in which a machine also waits, see
        ``Budget.second_cost``.

        Parameters
        ----------
        price : array_like, shape (N,) or scalar
            Cost of a second on each device [cost / s].

        Raises
        ------
        InvalidProblemError
            If a price is no number of at least 0, or a cost is beyond the range of floats.

        Examples
        --------
        >>> from coopt import Fleet
        >>> fleet = Fleet([600, 200], 4.0, 0.1, throughput=[50, 400], round_time=2.0, sample_cost=0.0)
        >>> paid = fleet.with_busy_seconds([0.1, 0.4])
        >>> paid.sample_cost, paid.round_cost
        (array([0.002, 0.001]), array([0.2, 0.8]))
        """
        paid = float_array("price", price, len(self), minimum=0.0)
        with np.errstate(over="ignore", divide="ignore"):
            busy = paid / self.part_throughput
        return replace(
            self,
            sample_cost=self.sample_cost + busy,
            step_cost=self.step_cost + paid * self.step_time,
            round_cost=self.round_cost + paid * self.round_time,
        )

    def with_batch_noise(self, noise: ArrayLike, batch_sizes: ArrayLike) -> Fleet:
        """The same fleet where every batch as a whole has noise of its own, linear around some batches.

        Such noise, as DP-SGD adds it to the sum over a batch, has the variance R_i / s_i^2 in a step. In
        1 / s_i that is convex, so it lies above its tangent, and a tangent is what a fleet can have: more
        noise of samples, M_i + 2 R_i / t_i, in batches without replacement from a finite number of samples.
        Hence a bound of a plan of this fleet is at most that of the same plan with the noise itself, and
        hardly less near `batch_sizes`; the ``lower_bound`` of the best plan is one for all plans with
        the noise; `docs/how-to/noise-that-no-batch-removes.md` has the loop that closes the gap.

        It is for plans by a bound. A controller needs the fleet itself, and a forecast, which has covariances
        of its own, takes ``step_noise``: both refuse this one. A file of it holds its numbers alone, and is
        read as any fleet.

        Parameters
        ----------
        noise : array_like, shape (N,) or scalar
            R_i >= 0: variance (trace of the covariance) of a step's gradient, times the squared batch
            [gradient^2 * samples^2].
        batch_sizes : array_like, shape (N,) or scalar
            Batches near which it is right.

        Raises
        ------
        InvalidProblemError
            If a number is out of range, or the fleet has such noise already.

        Examples
        --------
        >>> from coopt import Fleet
        >>> fleet = Fleet([2000, 2000], gradient_noise=4.0, divergence=0.1)
        >>> near = fleet.with_batch_noise(1000.0, 50)
        >>> near.gradient_noise.round(1), near.samples
        (array([44., 44.]), array([110, 110]))
        >>> round(4.0 / 50 + 1000.0 / 50**2, 6), (near.gradient_noise * (1 / 50 - 1 / near.samples)).round(6)
        (0.48, array([0.48, 0.48]))
        """
        from coopt.problem.batch_noise import with_tangent

        return with_tangent(self, noise, batch_sizes)

    def to_csv(self, path: str | Path) -> None:
        """Write the fleet as CSV so that :meth:`from_csv` gives back an equal one.

        Raises
        ------
        InvalidProblemError
            If batches are drawn without replacement: that is not a column, so keep it in the TOML file.
        """
        from coopt.problem.files import write_fleet_csv

        write_fleet_csv(self, Path(path))

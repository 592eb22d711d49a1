"""What a client tells the server after a round: a handful of scalars, and at most two vectors.

Reports come from machines that nobody controls, so building one checks types alone; whether its values can be
believed is for the server to judge (:mod:`coopt.measuring.screening`).
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem.json_text import json_object
from coopt.problem.readable import readable
from coopt.problem.validation import any_real, instance, numeric_array, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Vector = npt.NDArray[np.float64]


def _check_numbers(report: object, names: Iterable[str]) -> None:
    """Refuse what is no number: a wrong number is judged by `screening`, any other thing would end a run."""
    for name in names:
        value = getattr(report, name)
        checked = any_real(name, value)
        if checked is not value:
            object.__setattr__(report, name, checked)


@dataclass(frozen=True)
class HalfBatches:
    """Two disjoint halves of one mini-batch, both evaluated at the model that the client received.

    Attributes
    ----------
    first, second : int
        Samples in each half.
    difference : float
        Squared norm of the difference of the two gradients, gradient^2.
    product : float
        Inner product of the two gradients, gradient^2: unbiased for the squared norm of the full gradient.
    """

    first: int
    second: int
    difference: float
    product: float

    def __post_init__(self) -> None:
        _check_numbers(self, tuple(self.__dict__))


@dataclass(frozen=True)
class SameBatchPair:
    """Two disjoint batches, each evaluated at two models: what changes is the model alone, not the sample.

    Attributes
    ----------
    step : float
        Squared distance of the two models.
    product : float
        Inner product of the two batches' gradient changes, gradient^2: unbiased for the squared norm of the
        change of the full gradient if the batches had no part in the step.
    difference : float
        Squared norm of the difference of the two batches' gradient changes, gradient^2.
    slope : float
        Inner product of the mean gradient change with the step: step times the curvature along it.
    loss_change : float
        Change of the mean loss, loss.
    """

    step: float
    product: float
    difference: float
    slope: float
    loss_change: float

    def __post_init__(self) -> None:
        _check_numbers(self, tuple(self.__dict__))


@readable
@dataclass(frozen=True, eq=False)
class ClientReport:
    """One client's account of one round.

    Parameters
    ----------
    client : int
        Index of the device in the fleet.
    round : int
        Round that the report is about, from 0.
    samples : int
        Samples that the device holds now, d_i.
    local_steps, batch_size : int
        Local steps and mini-batch size that were really used.
    samples_processed : int
        Samples whose gradient was evaluated, extra evaluations included.
    loss : float
        Mean loss of the first mini-batch at the received model, loss.
    seconds_computing : float
        Seconds spent on gradients, without imports and first-call warm-up.
    seconds_communicating : float, default 0
        Seconds spent on receiving and sending the model.
    cost : float, optional
        What the round's samples cost; default: the fleet's cost per sample times samples processed.
    halves : HalfBatches, optional
        For gradient noise and gradient norm.
    pair : SameBatchPair, optional
        For curvature.
    gradient : array_like, shape (n,), optional
        Gradient of the first mini-batch at the received model, or a sketch of it: for gradient divergence.
    change : array_like, shape (n,), optional
        Change of the same-batch gradient from the client's last local model to the received one, or a sketch
        of it: for the coupling of drift and averaged gradient.

    Notes
    -----
    Reports compare and hash by value; NaN equals NaN.

    Examples
    --------
    >>> from coopt import ClientReport
    >>> from coopt.measuring.report import HalfBatches
    >>> report = ClientReport(client=3, round=0, samples=500, local_steps=5, batch_size=8,
    ...                       samples_processed=40, loss=0.7, seconds_computing=0.2,
    ...                       halves=HalfBatches(4, 4, 0.5, 0.1))
    >>> ClientReport.from_json(report.to_json()) == report
    True
    >>> report.to_scalars()["halves_difference"]
    0.5
    """

    __module__ = "coopt"

    client: int
    round: int
    samples: int
    local_steps: int
    batch_size: int
    samples_processed: int
    loss: float
    seconds_computing: float
    seconds_communicating: float = 0.0
    cost: float | None = None
    halves: HalfBatches | None = None
    pair: SameBatchPair | None = None
    gradient: Vector | None = None
    change: Vector | None = None

    def __post_init__(self) -> None:
        _check_numbers(self, [name for name in _SCALARS if name != "cost" or self.cost is not None])
        for name, kind in _NESTED.items():
            if getattr(self, name) is not None:
                instance(name, getattr(self, name), kind)
        for name in _VECTORS:
            value = getattr(self, name)
            if value is not None:
                vector = np.array(numeric_array(f"{name} of client {self.client}", value), dtype=np.float64)
                if vector.ndim != 1:
                    raise InvalidProblemError(
                        f"{name} of client {self.client} has shape {vector.shape}: give a flat array"
                    )
                vector.flags.writeable = False
                object.__setattr__(self, name, vector)

    def __eq__(self, other: object) -> bool:
        """Tell whether all values agree; NaN equals NaN."""
        if not isinstance(other, ClientReport):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        """Hash the values."""
        return hash(self.to_json())

    def to_scalars(self) -> dict[str, int | float]:
        """Flatten to scalars, for frameworks that move nothing else; vectors and absent values are left out.

        Returns
        -------
        dict
            At most 19 entries; nested values are named ``halves_...`` and ``pair_...``.
        """
        flat: dict[str, int | float] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _NESTED and value is not None:
                flat |= {f"{field.name}_{part.name}": getattr(value, part.name) for part in fields(value)}
            elif field.name not in _VECTORS and value is not None:
                flat[field.name] = value
        return flat

    @classmethod
    def from_scalars(
        cls,
        scalars: Mapping[str, Any],
        *,
        gradient: npt.ArrayLike | None = None,
        change: npt.ArrayLike | None = None,
    ) -> Self:
        """Rebuild a report from `to_scalars`, and from the vectors that travelled beside it.

        Raises
        ------
        InvalidProblemError
            If an entry is missing, unknown or no number.
        """
        rest = dict(scalars)
        values: dict[str, Any] = {"gradient": gradient, "change": change}
        for name, kind in _NESTED.items():
            prefix = f"{name}_"
            inner = {key.removeprefix(prefix): rest.pop(key) for key in list(rest) if key.startswith(prefix)}
            values[name] = _build(kind, inner, prefix) if inner else None
        known = [field for field in fields(cls) if field.name not in values]
        optional = {field.name for field in known if field.default is not MISSING}
        return cls(**_numbers(known, rest, "", optional), **values)

    def to_json(self) -> str:
        """Write as JSON; numbers that JSON lacks become the strings "nan", "inf" and "-inf"."""
        plain: dict[str, Any] = {key: _plain(value) for key, value in self.to_scalars().items()}
        for name in _VECTORS:
            if getattr(self, name) is not None:
                plain[name] = [_plain(value) for value in getattr(self, name).tolist()]
        return json.dumps(plain, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        InvalidProblemError
            If the text is no JSON object, or an entry is missing, unknown or no number.
        """
        plain = json_object(text, "not a client report")
        try:
            vectors = {name: plain.pop(name, None) for name in _VECTORS}
            arrays = {
                name: None if value is None else np.array([float(x) for x in value])
                for name, value in vectors.items()
            }
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidProblemError(
                f"the vectors of a client report must be lists of numbers: {error}"
            ) from error
        return cls.from_scalars(plain, **arrays)


_VECTORS = ("gradient", "change")
_SCALARS = tuple(
    field.name for field in fields(ClientReport) if field.name not in (*_VECTORS, "halves", "pair")
)
_NESTED: dict[str, type[HalfBatches | SameBatchPair]] = {"halves": HalfBatches, "pair": SameBatchPair}


def _plain(value: float) -> int | float | str:
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if math.isfinite(value) else str(float(value))


def _numbers(known: Any, given: Mapping[str, Any], prefix: str, optional: set[str]) -> dict[str, Any]:
    names = {field.name for field in known}
    for key in given:
        if key not in names:
            raise InvalidProblemError(f"a client report has no entry {shown(prefix + key)}")
    numbers: dict[str, Any] = {}
    for field in known:
        if field.name not in given:
            if field.name not in optional:
                raise InvalidProblemError(f"a client report lacks the entry {prefix + field.name!r}")
            continue
        value = given[field.name]
        try:
            number = float(value)
            whole = field.type == "int" and math.isfinite(number) and number == int(number)
            numbers[field.name] = int(value) if whole else number
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidProblemError(
                f"{prefix + field.name} = {shown(value)} of a client report is no number"
            ) from error
    return numbers


def _build(kind: Any, given: Mapping[str, Any], prefix: str) -> Any:
    return kind(**_numbers(fields(kind), given, prefix, set()))

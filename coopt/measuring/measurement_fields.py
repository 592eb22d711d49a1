"""What each field of a measurement has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.fleet_fields import aggregation_weights, device_names
from coopt.problem.validation import choice, count, flag, float_array, integer_array, optional_real, real

if TYPE_CHECKING:
    from coopt.measuring.measurement import Measurement


def checked_fields(given: Measurement) -> dict[str, Any]:
    """The fields of a measurement under way, checked; arrays as read-only copies.

    Raises
    ------
    InvalidProblemError
        If a value is not a finite number, or shapes do not agree.
    """
    samples = integer_array("samples", given.samples, None, minimum=1)
    devices = samples.size
    directions = np.shape(given.gradients)[-1] if np.ndim(given.gradients) == 2 else 0
    if not directions:
        raise InvalidProblemError(
            f"gradients of a measurement has shape {np.shape(given.gradients)}: must have a row a device "
            "and one column a direction"
        )
    values: dict[str, Any] = {
        "samples": samples,
        "weights": aggregation_weights(given.weights, samples),
        "noise": float_array("noise", given.noise, devices, minimum=0.0),
        "divergence": float_array("divergence", given.divergence, devices, minimum=0.0),
        "rows": integer_array("rows", given.rows, devices, minimum=0),
        "measured": _array("measured", given.measured, np.bool_, (devices,)),
        "gradients": _array("gradients", given.gradients, np.float64, (devices, directions)),
        "fresh_gradient": _array("fresh_gradient", given.fresh_gradient, np.float64, (directions,)),
        "names": device_names(given.names, devices),
        "sample_curvature": optional_real("sample_curvature", given.sample_curvature, minimum=0.0),
        "loss": real("loss", given.loss),
        "samples_used": count("samples_used", given.samples_used, minimum=0),
        "parameters": count("parameters", given.parameters),
    }
    square = (devices, directions, directions)
    for name in ("curvatures", "covariances"):
        values[name] = _array(name, getattr(given, name), np.float64, square)
    for name in ("gradient_norm", "unseen", "unseen_divergence"):
        values[name] = real(name, getattr(given, name), minimum=0.0)
    if given.point is not None:
        values["point"] = _array("point", given.point, np.float64, (directions,))
    if given.sample_curvatures is not None:
        steep = float_array("sample_curvatures", given.sample_curvatures, devices, minimum=0.0)
        values["sample_curvatures"] = steep
    if given.cut_off is not None:
        values["cut_off"] = flag("cut_off", given.cut_off)
    if given.scaling is not None:
        choice("scaling of a measurement", given.scaling, ("adam",))
    for name in ("curvature_kind", "curvature_reason"):
        if not isinstance(getattr(given, name), str):
            raise InvalidProblemError(f"{name} = {getattr(given, name)!r} of a measurement: must be a text")
    if not values["measured"].any():
        raise InvalidProblemError("measured is false for every device of a measurement")
    return values


def _array(name: str, values: Any, kind: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """The values as a read-only array of a shape, all finite."""
    try:
        array: NDArray[Any] = np.array(values, dtype=kind)
    except (TypeError, ValueError) as error:
        raise InvalidProblemError(f"{name} of a measurement holds no numbers: {error}") from error
    if array.shape != shape:
        raise InvalidProblemError(f"{name} of a measurement has shape {array.shape}: must have {shape}")
    if not np.isfinite(array).all():
        device = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InvalidProblemError(f"{name} of a measurement is not finite at device {device}")
    array.flags.writeable = False
    return array

"""Which answers of a measurement to believe: they come from machines that nobody controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt.measuring.robust import LEAST_TO_JUDGE, far_sizes, reach
from coopt.measuring.winsorize import distances_from_middle

Vector = NDArray[np.float64]

# Ratios to the median that honest devices, of one class each, do not reach: of a gradient's distance from the
# others, as a whole, where it points against the others, and in few directions; of a loss; and of all else.
FAR_GRADIENT, FAR_AGAINST, FAR_PROJECTED, FAR_LOSS, FAR = 3.0, 2.5, 6.0, 5.0, 15.0
# A loss that is never negative can hardly fall by more than all of it: twice that is no honest device's where
# it is also four times what is usual.
FAR_FALL, MOST_FALL = 4.0, 2.0
# Relative rounding of numbers that a device computed in single precision and in another order.
ROUNDING = 1e-3
FLAGS = ("single",)


@dataclass(frozen=True)
class Form:
    """Shapes of the values that an answer has to hold.

    Attributes
    ----------
    kind : str
        Of the message.
    shapes : dict of str to tuple of int
    """

    kind: str
    shapes: Mapping[str, tuple[int, ...]]

    def fault(self, values: Mapping[str, NDArray[Any]]) -> str:
        """Say what is wrong with the form of an answer, or that it is not finite; nothing if it is right."""
        for name, shape in self.shapes.items():
            value = values.get(name)
            if value is None:
                return f"its {self.kind} has no {name}"
            if value.shape != shape:
                return f"its {name} has shape {value.shape}, not {shape}"
            if value.dtype.kind not in ("b" if name in FLAGS else "fiu"):
                return f"its {name} is no number"
            if not np.isfinite(value).all():
                return f"its {name} is not finite"
        return ""


GRADIENT = ("held", "loss", "single")


def gradient_form(parameters: int) -> Form:
    """What is asked for first."""
    return Form("gradient", {"gradient": (parameters,), **dict.fromkeys(GRADIENT, ())})


def product_form(parameters: int) -> Form:
    """What is asked for along each direction."""
    return Form("product", {"product": (parameters,)})


def findings_form(parameters: int, directions: int) -> Form:
    """What is asked for last."""
    m = directions
    return Form(
        "finish",
        {
            **dict.fromkeys(("loss", "square", "noise", "used"), ()),
            "gradient": (m,),
            "curvature": (m, m),
            "covariance": (m, m),
            "sharpness": (2,),
            "fresh": (parameters,),
        },
    )


def request_fault(kind: str, values: Mapping[str, NDArray[Any]], parameters: int, directions: int) -> str:
    """Say what is wrong with what a server asks of a device; nothing if it can be answered.

    `parameters` and `directions` are those of the measurement under way.
    """
    if kind == "gradient":
        shapes: dict[str, tuple[int, ...]] = {"seed": ()}
        shapes |= {name: np.shape(values.get(name, 0)) for name in ("parameters", "rows")}
    elif kind == "product":
        shapes = {"direction": (parameters,), "place": (), "step": ()}
    elif kind == "finish":
        shapes = {"single": ()}
    else:
        return "it is no gradient, product or finish"
    if parameters or kind == "gradient":  # out of order is said of itself
        if why := Form(kind, shapes).fault(values):
            return why
        if kind == "gradient" and not (
            len(shapes["parameters"]) == 1 and len(shapes["rows"]) <= 1 and int(values["seed"]) >= 0
        ):
            return "parameters and rows have one dimension, and the seed is not negative"
        if kind == "product" and not (0 <= int(values["place"]) <= directions and float(values["step"]) > 0):
            return f"it is about direction {int(values['place'])} of {directions}, or its step is not above 0"
    return ""


def contradiction(values: Mapping[str, NDArray[Any]]) -> str:
    """Say what in the findings of a device cannot be, whatever its data are; nothing if nothing."""
    square, noise = float(values["square"]), float(values["noise"])
    gradient, curvature, covariance = (
        values[name].astype(np.float64) for name in ("gradient", "curvature", "covariance")
    )
    sharpness = values["sharpness"].astype(np.float64)
    tolerance = ROUNDING * (square + noise) + np.finfo(np.float64).tiny
    if square < 0.0 or noise < 0.0 or float(values["used"]) < 0.0:
        return "it has a negative square"
    if float(gradient @ gradient) > square + tolerance:
        return "its gradient is longer in the directions than as a whole"
    if not np.allclose(curvature, curvature.T, rtol=ROUNDING, atol=ROUNDING * float(np.abs(curvature).max())):
        return "its curvature is not symmetric"
    if not np.allclose(covariance, covariance.T, rtol=ROUNDING, atol=tolerance):
        return "its covariance is not symmetric"
    if float(np.linalg.eigvalsh(covariance)[0]) < -tolerance:
        return "its covariance has a negative variance"
    if float(np.trace(covariance)) > noise + tolerance:
        return "its noise is larger in the directions than as a whole"
    if sharpness[0] < 0.0 or sharpness[1] < (1.0 - ROUNDING) * sharpness[0] ** 2:
        return "the mean square of its curvatures is below the square of their mean"
    return ""


@dataclass(frozen=True)
class First:
    """What a device told first, to be found again in its findings.

    Attributes
    ----------
    loss, square : float
        Its loss, and the squared norm of its gradient.
    along : float
        Its gradient along the averaged one.
    """

    loss: float
    square: float
    along: float

    def contradiction(self, values: Mapping[str, NDArray[Any]], mean: Vector, direction: Vector) -> str:
        """Say what in the findings is another than before; nothing if nothing.

        `mean` is the averaged gradient, `direction` the first one that findings are told in.
        """
        size = math.sqrt(self.square)
        if abs(float(values["loss"]) - self.loss) > ROUNDING * abs(self.loss):
            return "its loss is another than it told first"
        if abs(float(values["square"]) - self.square) > ROUNDING * self.square:
            return "its gradient has another length than it told first"
        # Where the averaged gradient is nothing but rounding, the first direction is another.
        told = float(values["gradient"][0])
        if abs(float(direction @ mean)) > (1.0 - ROUNDING) * float(np.linalg.norm(mean)) and (
            abs(told - self.along) > ROUNDING * size
        ):
            return "its gradient is another than it told first"
        return ""


def far_vectors(vectors: Sequence[Vector], ratio: float) -> NDArray[np.bool_]:
    """Mark the vectors that are far from the geometric median of all."""
    return far_sizes(distances_from_middle(list(vectors))[1], ratio)


def far_gradients(gradients: Sequence[Vector]) -> NDArray[np.bool_]:
    """Mark the gradients that are far from the geometric median of all, or point against it.

    Liars who agree widen the deviation of distances, which have one side only, and so hide in it. Along the
    geometric median they stand alone on one side: there, three robust deviations tell them apart, and a
    smaller distance is enough.

    Examples
    --------
    >>> honest = [np.array([1.0 + 0.1 * k, 0.1 * (-1) ** k]) for k in range(8)]
    >>> far_gradients([*honest, -honest[0], -honest[3]]).nonzero()[0].tolist()
    [8, 9]
    """
    if len(gradients) < LEAST_TO_JUDGE:
        return np.zeros(len(gradients), dtype=bool)
    _, distances, shares = distances_from_middle(list(gradients))
    middle = sum((share * g for share, g in zip(shares, gradients, strict=True)), np.zeros_like(gradients[0]))
    along = np.array([float(g @ middle) for g in gradients])
    against = along < np.median(along) - reach(along, 0.0)
    apart = distances > FAR_AGAINST * np.median(distances)
    return np.asarray(far_sizes(distances, FAR_GRADIENT) | (against & apart))


def far_findings(answers: Sequence[Mapping[str, NDArray[Any]]]) -> NDArray[np.bool_]:
    """Mark devices of which a number is far from those of all others, or promises a fall that cannot be."""
    sizes = [
        [
            float(np.linalg.norm(values["curvature"])),
            float(values["noise"]),
            float(values["sharpness"][0]),
            float(np.linalg.norm(values["fresh"])),
            float(values["used"]),
        ]
        for values in answers
    ]
    marks = np.array([far_sizes(column, FAR) for column in np.array(sizes).T])
    gradients = [values["gradient"].astype(np.float64) for values in answers]
    fall = np.array([promised_fall(values) for values in answers])
    too_long = far_sizes(fall, FAR_FALL) & (fall > MOST_FALL)
    high = far_sizes(np.array([float(values["loss"]) for values in answers]), FAR_LOSS)
    return np.asarray(marks.any(axis=0) | high | too_long | far_vectors(gradients, FAR_PROJECTED))


def promised_fall(values: Mapping[str, NDArray[Any]]) -> float:
    """How far a device's loss would fall along its gradient, by its curvature, as a share of the loss.

    A gradient that is told c times as long promises c^2 times the fall. For a convex quadratic loss that is
    never negative the share is at most 1. Nothing (0) is said of losses that are not positive.

    Examples
    --------
    >>> import numpy as np
    >>> told = {"loss": np.array(1.0), "gradient": np.array([1.0, 1.0]), "curvature": np.eye(2)}
    >>> promised_fall(told), promised_fall(told | {"gradient": np.array([-3.0, -3.0])})
    (1.0, 9.0)
    """
    gradient, curvature = (values[name].astype(np.float64) for name in ("gradient", "curvature"))
    loss, square = float(values["loss"]), float(gradient @ gradient)
    # Where the loss is nearly flat along the gradient a quadratic says nothing: its mean curvature does.
    bend = max(float(gradient @ curvature @ gradient), square * float(np.trace(curvature)) / gradient.size)
    return 0.5 * square * square / (bend * loss) if loss > 0.0 < bend else 0.0

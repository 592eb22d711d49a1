"""Devices that lie while they are measured are left out and named, and move nothing far."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from coopt import Measurement, MeasurementWarning
from coopt.measuring.answers import FAR_GRADIENT, far_gradients, far_vectors
from coopt.measuring.exchange import ClientMeasure, Message, measure_clients
from measuring.quadratics import LeastSquares

SIZES = [60] * 10
LIARS = (2, 7)
Values = dict[str, np.ndarray]
TASK = LeastSquares.random(SIZES, 7)


def measured(lie: Callable[[str, Values], Values] | None) -> tuple[Measurement, str]:
    clients = [ClientMeasure(i, TASK.gradient, data) for i, data in enumerate(TASK.clients)]

    def ask(message: Message, asked: Sequence[int]) -> list[tuple[int, Message]]:
        answers = []
        for i in asked:
            answer = clients[i].answer(message)
            if lie is not None and i in LIARS:
                answer = Message(answer.kind, lie(answer.kind, dict(answer.values)))
            answers.append((i, answer))
        return answers

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = measure_clients(ask, np.ones(7), SIZES, rows=8, directions=5)
    texts = [str(each.message) for each in caught if issubclass(each.category, MeasurementWarning)]
    return found, " ".join(text for text in texts if "left out" in text)


def scaled(name: str, factor: float) -> Callable[[str, Values], Values]:
    return lambda kind, values: values | ({name: factor * values[name]} if name in values else {})


LIES: dict[str, Callable[[str, Values], Values]] = {
    "a gradient x 1e6": scaled("gradient", 1e6),
    "a gradient x -50": scaled("gradient", -50.0),
    # Nearer to the others than honest ones may be, but no loss of theirs could fall that far.
    "gradients x -3": lambda kind, values: (
        values
        | {name: -3.0 * values[name] for name in ("gradient", "fresh") if name in values}
        | ({"square": 9.0 * values["square"]} if kind == "finish" else {})
    ),
    "a gradient turned round at last": lambda kind, values: (
        values | ({"gradient": -values["gradient"]} if kind == "finish" else {})
    ),
    "a longer gradient at last": lambda kind, values: (
        values | ({"square": 1.1 * values["square"]} if kind == "finish" else {})
    ),
    "another loss at last": lambda kind, values: (
        values | ({"loss": 1.1 * values["loss"]} if kind == "finish" else {})
    ),
    "losses x 1e4": scaled("loss", 1e4),
    "products x 1e9": scaled("product", 1e9),
    "curvature x 1e4": scaled("curvature", 1e4),
    "noise x 1e4": scaled("noise", 1e4),
    "negative noise": scaled("noise", -1.0),
    "negative covariance": scaled("covariance", -1.0),
    "curvature of single rows x 1e4": lambda kind, values: (
        values | ({"sharpness": values["sharpness"] * [1e4, 1e8]} if kind == "finish" else {})
    ),
    "another shape": lambda kind, values: values | {"gradient": np.ones(3)},
    "text": lambda kind, values: values | {"loss": np.array("low")},
    "not a number": scaled("loss", np.nan),
    "nothing": lambda kind, values: {},
    "asymmetric": lambda kind, values: (
        values
        | ({"curvature": values["curvature"] + np.triu(np.ones((5, 5)), 1)} if kind == "finish" else {})
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_liars_are_named_and_left_out(name: str) -> None:
    found, warning = measured(LIES[name])
    honest, silence = measured(None)
    assert silence == ""
    assert warning.startswith("2 of 10 devices were left out")
    # What is left is the mean of the others: near that of all.
    for part in ("noise", "divergence"):
        told, true = getattr(found, part), getattr(honest, part)
        assert np.median(np.abs(told - true)) < 0.1 * true.max()
    assert found.loss == pytest.approx(honest.loss, rel=0.5)
    assert 0.3 < found.spectrum[0] / honest.spectrum[0] < 3
    assert found.gradient_norm == pytest.approx(honest.gradient_norm, rel=1.0)


@pytest.mark.parametrize("seed", [0, 4, 7])
def test_a_fifth_that_turns_round_hides_in_the_distances_and_not_along_the_averaged_gradient(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    honest = np.ones(8) + 0.5 * rng.normal(size=(30, 8)) * np.exp(rng.uniform(-0.8, 0.8, (30, 1)))
    told = [*(-3.0 * honest[:6]), *honest[6:]]
    assert far_gradients(told).tolist() == [True] * 6 + [False] * 24
    assert not far_gradients(list(honest)).any()
    assert far_vectors(told, FAR_GRADIENT).sum() < 6

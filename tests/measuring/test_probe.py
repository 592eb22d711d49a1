"""The client probe: unbiased measurements, honest accounts of samples and seconds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coopt.errors import InvalidProblemError
from coopt.measuring.gradient_sketch import count_sketch
from coopt.measuring.probe import ClientProbe
from coopt.measuring.report import ClientReport

DIMENSION = 5


class Client:
    """Least squares on 400 samples; counts what the probe evaluates."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.x = self.rng.normal(size=(400, DIMENSION)) * np.linspace(0.5, 2, DIMENSION)
        self.y = self.x @ np.ones(DIMENSION) + self.rng.normal(size=400)
        self.evaluated: list[int] = []
        self.now = 0.0

    def gradient(self, model: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
        self.evaluated.append(len(batch))
        self.now += 0.01 * len(batch)
        error = self.x[batch] @ model - self.y[batch]
        return float(np.mean(error**2) / 2), self.x[batch].T @ error / len(batch)

    def draw(self, size: int) -> np.ndarray:
        return self.rng.integers(400, size=size)

    def clock(self) -> float:
        return self.now

    def train(self, probe: ClientProbe, model: np.ndarray, round_: int, **options: object) -> tuple:
        steps, size = options.pop("local_steps", 3), options.pop("batch_size", 8)
        local = model - 0.05 * probe.begin(model, round=round_, batch_size=size)
        for _ in range(steps - 1):
            local = local - 0.05 * self.gradient(local, self.draw(size))[1]
        return local, probe.end(local, samples=400, local_steps=steps, **options)


def test_halves_and_pairs_are_unbiased() -> None:
    client = Client(0)
    probe = ClientProbe(0, client.gradient, client.draw)
    model = np.zeros(DIMENSION)
    everything = np.arange(400)
    full = client.gradient(model, everything)[1]
    per_sample = np.array([client.gradient(model, np.array([i]))[1] for i in everything])
    noise = float(np.sum((per_sample - full) ** 2) / 400)
    hessian = client.x.T @ client.x / 400
    measured, product, curvature, change = [], [], [], []
    for round_ in range(4000):
        _, report = client.train(probe, model, round_)
        assert report.halves is not None
        measured.append(report.halves.difference / (1 / report.halves.first + 1 / report.halves.second))
        product.append(report.halves.product)
        if report.pair is not None:
            assert report.change is not None
            curvature.append(report.pair.slope / report.pair.step)
            change.append(report.pair.product - float(np.sum(report.change**2)) + report.pair.difference / 4)
    for values, truth in ((measured, noise), (product, float(full @ full))):
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - truth) < 5 * error < 0.2 * truth
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert eigenvalues[0] < np.mean(curvature) < eigenvalues[-1]
    # Two equal halves: the square of the mean is the product plus a quarter of the squared difference.
    np.testing.assert_allclose(change, 0, atol=1e-9)


def test_same_batch_pair_measures_a_quadratic_exactly_on_average() -> None:
    client = Client(1)
    probe = ClientProbe(0, client.gradient, client.draw)
    hessian = client.x.T @ client.x / 400
    start, ratios = np.zeros(DIMENSION), []
    for round_ in range(3000):
        probe.begin(start, round=2 * round_, batch_size=8)
        step = client.rng.normal(size=DIMENSION)
        probe.end(start + step, samples=400, local_steps=1)
        probe.begin(start, round=2 * round_ + 1, batch_size=8)
        report = probe.end(start, samples=400, local_steps=1, extra_evaluation=False)
        assert report.pair is not None
        assert report.pair.step == pytest.approx(float(step @ step))
        ratios.append(report.pair.product - float(np.sum((hessian @ step) ** 2)))
    assert abs(np.mean(ratios)) < 5 * np.std(ratios) / math.sqrt(len(ratios))


@pytest.mark.parametrize("pair", ["next", "same"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 33])
@pytest.mark.parametrize("extra", [True, False])
def test_samples_are_accounted_for_and_the_extra_is_at_most_half_a_gradient(
    pair: str, size: int, extra: bool
) -> None:
    client = Client(2)
    probe = ClientProbe(0, client.gradient, client.draw, pair=pair)
    model = np.zeros(DIMENSION)
    for round_ in range(4):
        client.evaluated.clear()
        _, report = client.train(probe, model, round_, batch_size=size, extra_evaluation=extra)
        assert sum(client.evaluated) == report.samples_processed
        evaluated_again = 2 * max(1, size // 4) if extra and size > 1 else 0
        assert report.samples_processed == 3 * size + evaluated_again
        assert (report.pair is not None) == (extra and size > 1 and (pair == "same" or round_ > 0))
        assert (report.halves is not None) == (size > 1)


def test_batch_that_shrinks_below_the_held_one_starts_afresh() -> None:
    client = Client(3)
    probe = ClientProbe(0, client.gradient, client.draw)
    model = np.zeros(DIMENSION)
    client.train(probe, model, 0, batch_size=64)
    client.evaluated.clear()
    _, report = client.train(probe, model, 1, batch_size=4, local_steps=1, extra_evaluation=False)
    assert report.pair is None and sum(client.evaluated) == 4


def test_first_call_warm_up_is_not_computing_time() -> None:
    client = Client(4)

    def slow_start(model: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
        client.now += 0 if client.evaluated else 100.0
        return client.gradient(model, batch)

    probe = ClientProbe(0, slow_start, client.draw, clock=client.clock)
    for round_ in range(2):
        before = len(client.evaluated)
        _, report = client.train(probe, np.zeros(DIMENSION), round_)
        work = sum(client.evaluated[before:])
        assert report.seconds_computing == pytest.approx(0.01 * work)


def test_gradient_returned_is_that_of_the_whole_first_batch() -> None:
    client = Client(5)
    drawn: list[np.ndarray] = []

    def draw(size: int) -> np.ndarray:
        drawn.append(client.draw(size))
        return drawn[-1]

    probe = ClientProbe(0, client.gradient, draw)
    model = np.ones(DIMENSION)
    got = probe.begin(model, round=0, batch_size=7)
    np.testing.assert_allclose(got, client.gradient(model, np.concatenate(drawn))[1])


def test_vectors_full_sketched_or_none() -> None:
    reports: dict[str, ClientReport] = {}
    for vectors in ("full", "sketch", "none"):
        client = Client(6)
        probe = ClientProbe(0, client.gradient, client.draw, vectors=vectors, sketch_size=3)
        for round_ in range(2):
            _, reports[vectors] = client.train(probe, np.zeros(DIMENSION), round_)
    assert reports["none"].gradient is None and reports["none"].change is None
    for name in ("gradient", "change"):
        np.testing.assert_array_equal(
            getattr(reports["sketch"], name), count_sketch(getattr(reports["full"], name), 3, seed=1)
        )


def test_wrong_use_is_named() -> None:
    client = Client(7)
    with pytest.raises(InvalidProblemError, match="pair = 'last'"):
        ClientProbe(0, client.gradient, client.draw, pair="last")
    with pytest.raises(InvalidProblemError, match="vectors = 'half'"):
        ClientProbe(0, client.gradient, client.draw, vectors="half")
    probe = ClientProbe(0, client.gradient, client.draw)
    with pytest.raises(InvalidProblemError, match="begin"):
        probe.end(np.zeros(DIMENSION), samples=400, local_steps=1)
    with pytest.raises(InvalidProblemError, match="batch_size = 0"):
        probe.begin(np.zeros(DIMENSION), round=0, batch_size=0)


def test_sketches_keep_inner_products_and_add_up() -> None:
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 3000))
    products = [
        float(count_sketch(x, 64, seed=s) @ count_sketch(x + y, 64, seed=s)) - float(x @ (x + y))
        for s in range(300)
    ]
    assert abs(np.mean(products)) < 5 * np.std(products) / math.sqrt(300)
    limit = math.sqrt(2 / 64) * np.linalg.norm(x) * np.linalg.norm(x + y)
    assert np.std(products) < 1.2 * limit
    np.testing.assert_allclose(
        count_sketch(x + 2 * y, 64, seed=1), count_sketch(x, 64, seed=1) + 2 * count_sketch(y, 64, seed=1)
    )
    with pytest.raises(InvalidProblemError, match="size = 0"):
        count_sketch(x, 0, seed=1)

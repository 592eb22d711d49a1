from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.measuring.basis import Basis, Seeds, krylov
from coopt.measuring.spread import Spread


def random_curvature(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    square = rng.normal(size=(size, size))
    vectors = np.linalg.qr(square)[0]
    return vectors @ np.diag(np.geomspace(1.0, 1e-4, size)) @ vectors.T, rng.normal(size=size)


def filled(
    curvature: np.ndarray, start: np.ndarray, directions: int, spare: np.ndarray | None = None
) -> Basis:
    basis = Basis(len(start), directions, precision=1e-12)
    spare = np.zeros_like(start) if spare is None else spare
    krylov(Seeds(start, spare), lambda b: curvature @ b.last, basis)
    return basis


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 12))
def test_moments_are_exact_to_twice_the_directions(seed: int, size: int, directions: int) -> None:
    curvature, start = random_curvature(seed, size)
    vectors = filled(curvature, start, directions).vectors
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-12)
    small, inside = vectors @ curvature @ vectors.T, vectors @ start
    for power in range(2 * len(vectors)):
        exact = start @ np.linalg.matrix_power(curvature, power) @ start
        projected = inside @ np.linalg.matrix_power(small, power) @ inside
        np.testing.assert_allclose(projected, exact, rtol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_gradient_descent_is_exact_to_as_many_steps_as_directions_and_optimistic_beyond(
    seed: int, directions: int
) -> None:
    curvature, start = random_curvature(seed, 30)
    vectors = filled(curvature, start, directions).vectors
    small, inside = vectors @ curvature @ vectors.T, vectors @ start
    true, model = np.zeros(30), np.zeros(directions)
    for step in range(1, 3 * directions):
        true -= 0.9 * (curvature @ true + start)
        model -= 0.9 * (small @ model + inside)
        decrease = start @ true + true @ curvature @ true / 2, inside @ model + model @ small @ model / 2
        if step <= directions:
            np.testing.assert_allclose(vectors.T @ model, true, atol=1e-9)
            np.testing.assert_allclose(decrease[1], decrease[0], rtol=1e-9)


def test_the_space_ends_where_it_is_invariant_and_goes_on_from_the_spare_direction() -> None:
    curvature = np.diag([4.0, 4.0, 1.0, 1.0, 2.0])
    start, spare = np.array([1.0, 0.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0, 1.0])
    assert len(filled(curvature, start, 5).vectors) == 2
    vectors = filled(curvature, start, 5, spare).vectors
    assert len(vectors) == 4
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-14)


def test_a_zero_start_takes_the_spare_direction_and_two_zeros_give_none() -> None:
    curvature, spare = np.eye(3), np.array([0.0, 2.0, 0.0])
    assert filled(curvature, np.zeros(3), 3, spare).vectors.tolist() == [[0.0, 1.0, 0.0]]
    assert len(filled(curvature, np.zeros(3), 3).vectors) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.floats(-3, 6))
def test_the_spread_is_numpy_s_covariance_whatever_the_reference(seed: int, rows: int, power: float) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(rows, 6)) + 10.0**power
    basis = np.linalg.qr(rng.normal(size=(6, 3)))[0].T
    spread = Spread(samples[0], basis)
    spread.add(samples[: rows // 2])
    spread.add(samples[rows // 2 :])
    full = np.cov(samples.T)
    np.testing.assert_allclose(spread.mean, samples.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(spread.trace, np.trace(full), rtol=1e-9 * 10.0 ** max(power, 0))
    np.testing.assert_allclose(spread.covariance, basis @ full @ basis.T, atol=1e-9 * 10.0 ** max(power, 0))

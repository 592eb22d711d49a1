"""A few Krylov directions: exact for few steps, never above the truth, and blind to drift outside."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp


def lanczos(H, g, m):
    """m orthonormal directions that span g, Hg, ..., orthogonalised twice."""
    Q = [g / np.linalg.norm(g)]
    while len(Q) < m:
        w = H @ Q[-1]
        for _ in range(2):
            w = w - np.array(Q).T @ (np.array(Q) @ w)
        Q.append(w / np.linalg.norm(w))
    return np.array(Q).T


def descent(H, g, eta, steps):
    """The decrease of the loss after each number of steps, and the gap."""
    values, vectors = np.linalg.eigh(H)
    parts = (vectors.T @ g) ** 2 / (2 * values)
    gaps = np.array([parts @ (1 - eta * values) ** (2 * T) for T in range(steps + 1)])
    return gaps[0] - gaps, gaps


def cases():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        size, m = int(rng.integers(6, 14)), int(rng.integers(1, 6))
        spectrum = np.exp(rng.uniform(-4.0, 1.0, size=size))
        U = np.linalg.qr(rng.normal(size=(size, size)))[0]
        yield seed, (U * spectrum) @ U.T, rng.normal(size=size), m, spectrum.max()


@pytest.mark.parametrize(("seed", "H", "g", "m", "largest"), list(cases()), ids=lambda x: str(x)[:2])
def test_directions_are_exact_for_m_steps_and_never_above_the_truth(seed, H, g, m, largest):
    Q = lanczos(H, g, m)
    small = Q.T @ H @ Q
    moments = range(2 * m)
    truth = [g @ np.linalg.matrix_power(H, j) @ g for j in moments]
    seen = [Q.T @ g @ np.linalg.matrix_power(small, j) @ (Q.T @ g) for j in moments]
    assert np.allclose(seen, truth, rtol=1e-9)
    for share in (0.1, 1.0, 1.9, 2.4, 4.0):  # the last two beyond stability: the lemma holds there as well
        decrease, gap = descent(H, g, share / largest, 30)
        model_decrease, model_gap = descent(small, Q.T @ g, share / largest, 30)
        assert np.allclose(model_decrease[: m + 1], decrease[: m + 1], rtol=1e-8, atol=1e-12)
        assert np.all(model_gap <= gap * (1 + 1e-9))
        # The deficit of the first m steps is that of conjugate gradients, and so the same at each.
        deficit = (gap - model_gap)[: m + 1]
        assert np.allclose(deficit, deficit[0], atol=1e-8 * max(gap.max(), 1.0))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("T", [0, 1, 2, 3, 4, 6])
def test_even_derivatives_have_no_positive_root(m, T):
    x = sp.Symbol("x", positive=True)
    derivative = sp.diff((1 - x) ** (2 * T) / x, x, 2 * m)
    numerator = sp.Poly(sp.cancel(derivative * x ** (2 * m + 1)), x)
    # Nonnegative: positive somewhere, and no root of odd order on the positive axis.
    roots = sp.Poly(numerator, x).sqf_list()[1]
    odd = [factor for factor, order in roots if order % 2]
    assert numerator.eval(sp.Rational(1, 2)) >= 0 and numerator.eval(7) > 0
    assert all(factor.count_roots(0, None) == 0 for factor in odd)


def test_odd_derivatives_may_have_any_sign():
    x = sp.Symbol("x", positive=True)
    derivative = sp.diff((1 - x) ** 4 / x, x, 3)
    assert derivative.subs(x, sp.Rational(1, 10)) < 0 < derivative.subs(x, 5)


def test_directions_say_nothing_of_the_kind_about_drift():
    """Two devices whose curvatures differ where the mean gradient does not point: the drift is not seen."""
    eta, tau, rounds = 0.2, 8, 40
    H = np.array([np.diag([1.0, 4.0]), np.diag([1.0, 0.1])])
    g = np.array([[1.0, 3.0], [1.0, -3.0]])
    Q = lanczos(H.mean(axis=0), g.mean(axis=0), 1)

    def change(H, g):
        z = np.zeros(H.shape[1])
        for _ in range(rounds):
            ends = np.tile(z, (2, 1))
            for _ in range(tau):
                ends = ends - eta * (np.einsum("iab,ib->ia", H, ends) + g)
            z = ends.mean(axis=0)
        return float(g.mean(axis=0) @ z + z @ H.mean(axis=0) @ z / 2)

    truth = change(H, g)
    seen = change(np.einsum("ac,iab,bd->icd", Q, H, Q), g @ Q)
    assert seen < -0.4 < 0 < truth

"""The published bound is not a bound on all problems that meet its stated assumptions; the certified one is.

Two devices with losses whose gradients are c w +- (clip(L w, -e, e) + b): the mean is the quadratic c w^2/2,
every loss is smooth with constant c + L = 1, and there is no gradient noise. Federated averaging then settles
away from the optimum, farther than eq. 11 of DYNAMITE allows with rho = beta/2.
"""

from __future__ import annotations

import numpy as np
import pytest

from coopt_bounds import certified, dynamite, tradeoff

PL, STEEP, OFFSET, SMOOTHNESS = 0.1, 0.9, 1.0, 1.0


def settled_error(learning_rate, width, local_steps, rounds):
    """F(w_K) - F* from w_0 = w* = 0, each round computed exactly."""
    model = 0.0
    for _ in range(rounds):
        local = np.array([model, model])
        for _ in range(local_steps):
            pull = np.clip(STEEP * local, -width, width) + OFFSET
            local = local - learning_rate * (PL * local + np.array([1.0, -1.0]) * pull)
        model = float(local.mean())
    return PL * model**2 / 2


def bound(theorem, learning_rate, width, local_steps, noise=0.0, **extra):
    values = {
        "K": 10**7,
        "tau": local_steps,
        "eta": learning_rate,
        "beta": SMOOTHNESS,
        "beta_F": SMOOTHNESS,
        "beta_d": SMOOTHNESS,
        "ell": -SMOOTHNESS,
        "c": PL,
        "D_0": 0,
        "rho": SMOOTHNESS / 2,
        "p": [0.5, 0.5],
        "M": [noise, noise],
        "s": [1, 1],
        "delta": [OFFSET + width] * 2,
    }
    return float(theorem.evaluate(values | extra, digits=15))


@pytest.fixture(scope="module")
def truth():
    return settled_error(0.01, 0.194, 2, rounds=20_000)


def test_true_error_exceeds_the_published_bound_31_times(truth):
    published = bound(dynamite.theorem, 0.01, 0.194, 2)
    assert truth == pytest.approx(1.101e-4, rel=1e-3)
    assert published == pytest.approx(3.57e-6, rel=2e-3)
    assert 30 < truth / published < 32


def test_gradient_noise_does_not_hide_it(truth):
    published = bound(dynamite.theorem, 0.01, 0.194, 2, noise=1e-4)
    assert published == pytest.approx(6.07e-6, rel=2e-3)
    assert 17.5 < truth / published < 18.5


def test_smaller_steps_make_it_worse():
    true = settled_error(0.001, 0.0194, 2, rounds=60_000)
    assert true / bound(dynamite.theorem, 0.001, 0.0194, 2) == pytest.approx(393, rel=0.01)


def test_certified_bound_holds(truth):
    value = bound(certified.theorem, 0.01, 0.194, 2, gamma=1, z="1e-12")
    assert value == pytest.approx(3.57e-4, rel=2e-3)
    assert truth < value


def test_published_bound_holds_with_the_least_possible_rho(truth):
    assert truth < bound(dynamite.theorem, 0.01, 0.194, 2, rho=1 / (0.01 * 2))


@pytest.mark.parametrize("local_steps", [2, 5, 20])
def test_tradeoff_bound_holds_and_is_tighter(local_steps):
    true = settled_error(0.01, 0.194, local_steps, rounds=8_000)
    curvature = {"ell": PL - STEEP, "beta_d": STEEP, "beta_F": PL, "gamma": 1}
    tighter = bound(tradeoff.theorem, 0.01, 0.194, local_steps, g=1 - 0.01 * (PL - STEEP), **curvature)
    assert true < tighter < bound(certified.theorem, 0.01, 0.194, local_steps, z=1e-12, **curvature)

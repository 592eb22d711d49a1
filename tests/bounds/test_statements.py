"""Statements against brute force: the recursions they unroll, run step by step at 50 digits."""

from __future__ import annotations

from fractions import Fraction
from types import MappingProxyType

import mpmath
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from coopt_bounds import (
    THEOREMS,
    adacoopt,
    certified,
    cohort,
    dynamic_tau,
    dynamite,
    nonconvex,
    participants,
    published_drift,
    relative_noise,
    streaming,
    tradeoff,
)
from coopt_bounds.geometric import divergence_sum, geometric_sum, noise_sum

unit = st.fractions(0, 1, max_denominator=64)
positive = st.fractions("1/64", 1, max_denominator=64)
few = st.integers(1, 6)


@pytest.fixture(autouse=True)
def _fifty_digits():
    with mpmath.workdps(60):
        yield


def close(left, right):
    return abs(left - right) <= mpf(10) ** -45 * max(abs(left), abs(right), mpf(10) ** -30)


def number(fraction):
    return mpf(fraction.numerator) / fraction.denominator


constants = st.fixed_dictionaries(
    {
        "K": few,
        "tau": few,
        "eta": positive,
        "beta": st.just(1),
        "beta_F": positive,
        "beta_d": unit,
        "ell": st.fractions(-1, 1, max_denominator=8),
        "c": positive,
        "D_0": unit,
        "sigma2": unit,
        "nu2": unit,
        "d_h": unit,
        "gamma": positive,
        "z": positive,
        "rho": positive,
        "deltabar": unit,
    }
)


@settings(max_examples=60, deadline=None)
@given(constants)
def test_certified_is_the_recursion_it_unrolls(v):
    K, tau = v["K"], v["tau"]
    e, bF, g, z = (number(v[k]) for k in ("eta", "beta_F", "gamma", "z"))
    q = 1 - e * number(v["c"]) * (2 - e * bF - (1 - e * bF) * g)
    C = e / 2 * (e * bF + (1 - e * bF) / g) * number(v["beta_d"]) ** 2
    r = 1 - e * number(v["ell"])
    value = number(v["D_0"])
    for _ in range(K):
        a = b2 = mpf(0)
        for _ in range(tau):
            drift = (1 + z) * a**2 + (1 + 1 / z) * b2
            value = q * value + e**2 * bF * number(v["sigma2"]) / 2 + C * drift
            a, b2 = r * a + e * number(v["d_h"]), r**2 * b2 + e**2 * number(v["nu2"])
    assert close(certified.theorem.evaluate(v), value)


@settings(max_examples=60, deadline=None)
@given(constants)
def test_nonconvex_is_the_sum_it_telescopes(v):
    K, tau = v["K"], v["tau"]
    e, bF, g, z = (number(v[k]) for k in ("eta", "beta_F", "gamma", "z"))
    r, m = 1 - e * number(v["ell"]), 1 - e * bF / 2 - (1 - e * bF) * g / 2
    C = e / 2 * (e * bF + (1 - e * bF) / g) * number(v["beta_d"]) ** 2
    total = number(v["D_0"])
    for _ in range(K):
        a = b2 = mpf(0)
        for _ in range(tau):
            total += e**2 * bF * number(v["sigma2"]) / 2 + C * ((1 + z) * a**2 + (1 + 1 / z) * b2)
            a, b2 = r * a + e * number(v["d_h"]), r**2 * b2 + e**2 * number(v["nu2"])
    assert close(nonconvex.theorem.evaluate(v), total / (e * m * K * tau))


@settings(max_examples=40, deadline=None)
@given(constants, unit)
def test_cohort_is_the_biased_recursion_and_certified_without_bias(v, bias):
    e, bF, g, z, dr = (number(v[k]) for k in ("eta", "beta_F", "gamma", "z", "beta_d"))
    C0 = e / 2 * (e * bF + (1 - e * bF) / g)
    r, m = 1 - e * number(v["ell"]), 1 - e * bF / 2 - (1 - e * bF) * g / 2
    contraction = 1 - e * number(v["c"]) * (2 - e * bF - (1 - e * bF) * g)
    for theorem, q in ((cohort.theorem, contraction), (cohort.nonconvex_theorem, mpf(1))):
        value = number(v["D_0"])
        for _ in range(v["K"]):
            a = b2 = mpf(0)
            for _ in range(v["tau"]):
                error = (1 + z) * (dr * a + number(bias)) ** 2 + (1 + 1 / z) * dr**2 * b2
                value = q * value + e**2 * bF * number(v["sigma2"]) / 2 + C0 * error
                a, b2 = r * a + e * number(v["d_h"]), r**2 * b2 + e**2 * number(v["nu2"])
        if q == 1:
            value /= e * m * v["K"] * v["tau"]
        if q < 1 or theorem is cohort.nonconvex_theorem:
            assert close(theorem.evaluate(v | {"kappa": 0, "epsilon": bias}), value)
    if contraction < 1:
        plain = certified.theorem.evaluate(v)
        assert close(cohort.theorem.evaluate(v | {"kappa": 0, "epsilon": 0}), plain)


@settings(max_examples=60, deadline=None)
@given(constants, unit)
def test_participants_add_the_drift_at_the_end_of_each_round(v, kappa):
    e, bF, g, z = (number(v[k]) for k in ("eta", "beta_F", "gamma", "z"))
    C = e / 2 * (e * bF + (1 - e * bF) / g) * number(v["beta_d"]) ** 2
    r, m = 1 - e * number(v["ell"]), 1 - e * bF / 2 - (1 - e * bF) * g / 2
    contraction = 1 - e * number(v["c"]) * (2 - e * bF - (1 - e * bF) * g)
    for theorem, q in ((participants.theorem, contraction), (participants.nonconvex_theorem, mpf(1))):
        value = number(v["D_0"])
        for _ in range(v["K"]):
            a = b2 = ends = split = mpf(0)
            for _ in range(v["tau"]):
                drift = (1 + z) * a**2 + (1 + 1 / z) * b2
                value = q * value + e**2 * bF * number(v["sigma2"]) / 2 + C * drift
                a, b2 = r * a + e * number(v["d_h"]), r**2 * b2 + e**2 * number(v["nu2"])
                split = max(r**2, q) * (split + (e**2 * number(v["nu2"]) if ends else 0))
                ends = max(r, q) * ends + e
            last = e**2 * number(v["nu2"])
            value += (
                bF
                * number(kappa)
                / 2
                * ((1 + z) * (ends * number(v["d_h"])) ** 2 + (1 + 1 / z) * split + last)
            )
        if q == 1:
            value /= e * m * v["K"] * v["tau"]
        if q < 1 or theorem is participants.nonconvex_theorem:
            assert close(theorem.evaluate(v | {"kappa": kappa}), value)


@settings(max_examples=60, deadline=None)
@given(constants)
def test_published_bounds_are_the_recursions_they_unroll(v):
    e, beta, delta = number(v["eta"]), mpf(1), number(v["deltabar"])
    q, tau = 1 - e * number(v["c"]), v["tau"]
    drift = local = mpf(0)
    for _ in range(tau):
        drift, local = drift + e * beta * local, (1 + e * beta) * local + e * delta
    for theorem, power in ((dynamite.theorem, 2), (adacoopt.theorem, 1)):
        value = number(v["D_0"])
        for _ in range(v["K"]):
            for _ in range(tau):
                value = q * value + e**2 * beta * number(v["sigma2"]) / 2
            value += number(v["rho"]) * drift**power
        if q < 1:
            assert close(theorem.evaluate(v), value)
    once = dynamite.marginal.evaluate(v)
    assert close(once, dynamite.theorem.evaluate(v | {"K": 1}))


def test_terms_that_cancel_exactly_are_nothing():
    # h(1) is a difference of equal terms, which no working precision can tell from a tiny number.
    v = {"K": 1, "tau": 1, "beta": 1, "D_0": 0, "sigma2": 0, "rho": 1, "deltabar": 1}
    v |= {"eta": Fraction(1, 43), "c": Fraction(1, 64)}
    assert dynamite.theorem.evaluate(v) == 0
    assert dynamite.theorem.evaluate(v | {"D_0": Fraction(1, 10**40)}) > 0


relative = st.fixed_dictionaries(
    {
        **dict.fromkeys(("mu_1", "mu_2", "nu_1", "nu_2", "B", "zeta", "sigma2", "nu2", "D_0"), unit),
        "K": few,
        "tau": few,
        "eta": positive,
        "beta": st.just(1),
        "c": positive,
        "ell": st.fractions(-1, 1, max_denominator=8),
        "z": positive,
    }
)


@settings(max_examples=40, deadline=None)
@given(relative)
def test_relative_noise_is_the_matrix_recursion(v):
    rational = {name: sp.Rational(str(value)) for name, value in v.items()}
    rational |= {name: 1 - rational["eta"] * rational[rate] for name, rate in (("q", "c"), ("r", "ell"))}
    symbols = relative_noise.A.free_symbols | relative_noise.b.free_symbols
    point = {symbol: rational[str(symbol)] for symbol in symbols}
    A, b = relative_noise.A.subs(point).tolist(), list(relative_noise.b.subs(point))
    gap = rational["D_0"]
    for _ in range(v["K"]):
        drift = sp.S.Zero
        for _ in range(v["tau"]):
            gap, drift = A[0][0] * gap + A[0][1] * drift + b[0], A[1][0] * gap + A[1][1] * drift + b[1]
    assert close(relative_noise.theorem.evaluate(v), number(gap))


@settings(max_examples=40, deadline=None)
@given(constants, unit, unit, positive)
def test_streaming_is_the_biased_recursion_and_certified_without_bias(v, bias, local_bias, y):
    e, bF, g, z = (number(v[k]) for k in ("eta", "beta_F", "gamma", "z"))
    q = 1 - e * number(v["c"]) * (2 - e * bF - (1 - e * bF) * g)
    C = e / 2 * (e * bF + (1 - e * bF) / g)
    r, value = 1 - e * number(v["ell"]), number(v["D_0"])
    for _ in range(v["K"]):
        a = b2 = mpf(0)
        for _ in range(v["tau"]):
            drift = (1 + z) * a**2 + (1 + 1 / z) * b2
            off = (1 + number(y)) * number(v["beta_d"]) ** 2 * drift + (1 + 1 / number(y)) * number(bias) ** 2
            value = q * value + e**2 * bF * number(v["sigma2"]) / 2 + C * off
            a, b2 = r * a + e * (number(v["d_h"]) + number(local_bias)), r**2 * b2 + e**2 * number(v["nu2"])
    extra = {"epsilon": bias, "epsilon_h": local_bias, "y": y}
    assert close(streaming.theorem.evaluate(v | extra), value)
    unbiased = streaming.theorem.evaluate(v | {"epsilon": 0, "epsilon_h": 0, "y": "1e-60"})
    assert abs(unbiased - certified.theorem.evaluate(v)) <= mpf(10) ** -45


class TestTradeOff:
    values = MappingProxyType(
        {"eta": "0.3", "beta": 1, "beta_F": "0.8", "ell": "-0.5", "c": "0.1", "gamma": "0.4", "g": "1.1"}
    )

    def weights(self, steps):
        v = {name: mpf(value) for name, value in self.values.items()}
        q = 1 - v["eta"] * v["c"] * (2 - v["eta"] * v["beta_F"] - (1 - v["eta"] * v["beta_F"]) * v["gamma"])
        C0 = v["eta"] / 2 * (v["eta"] * v["beta_F"] + (1 - v["eta"] * v["beta_F"]) / v["gamma"])
        rho, alpha = (v["beta"] - v["ell"]) / 2, 1 - v["eta"] * (v["beta"] + v["ell"]) / 2
        return q, C0, rho, alpha, tradeoff.storage(q, C0, alpha, v["eta"] * rho, rho, v["g"], steps)

    @pytest.mark.parametrize("steps", [1, 2, 5, 12])
    def test_storage_pays_for_every_share(self, steps):
        q, C0, rho, alpha, weights = self.weights(steps)
        eta, growth = mpf(self.values["eta"]), mpf(self.values["g"])
        assert weights[-1] == 0
        for j in range(1, steps):
            zeta = 1 / sum(growth**k for k in range(1, j + 1))
            prices = [
                (1 + zeta) * weights[j] * (alpha + eta * rho * t) ** 2
                + C0 * q ** (steps - 1 - j) * rho**2 * (1 - t**2)
                for t in mpmath.linspace(0, 1, 201)
            ]
            assert max(prices) <= weights[j - 1] <= max(prices) * (1 + mpf(10) ** -4)

    @pytest.mark.parametrize(("K", "tau"), [(1, 1), (3, 1), (2, 5), (4, 3)])
    def test_statement_is_the_recursion_it_unrolls(self, K, tau):
        q, _, _, _, weights = self.weights(tau)
        sums = {"D_0": 1, "sigma2": "0.2", "nu2": "0.3", "d_h": "0.4"}
        eta, c, mean, growth = (mpf(self.values[name]) for name in ("eta", "c", "beta_F", "g"))
        drift = sum(
            P * ((1 + sum(growth**k for k in range(1, j))) * mpf("0.16") + mpf("0.3"))
            for j, P in enumerate(weights, start=1)
        )
        gap = mpf(1)
        for _ in range(K):
            for step in range(tau):
                contraction = q if step else 1 - eta * c * (2 - eta * mean)
                gap = contraction * gap + eta**2 * mean * mpf("0.2") / 2
            gap += eta**2 * drift
        assert close(tradeoff.theorem.evaluate({**self.values, **sums, "K": K, "tau": tau}), gap)


class TestSingularPoints:
    points = (
        ("q = r", "1/2", "1/2"),
        ("q = r^2", "1/4", "1/2"),
        ("q = 1", "1", "1/2"),
        ("r = 1", "1/2", "1"),
        ("q = r = 1", "1", "1"),
        ("q = 0", "0", "1/2"),
        ("r = 0", "1/2", "0"),
        ("regular", "1/3", "7/5"),
    )

    @pytest.mark.parametrize(("where", "q", "r"), points)
    @pytest.mark.parametrize("n", [1, 2, 3, 7])
    def test_closed_forms_are_the_sums(self, where, q, r, n):
        q, r = sp.Rational(q), sp.Rational(r)

        def ratio(base, power):
            return sum((base**k for k in range(power)), sp.S.Zero)

        squares = sum(q ** (n - 1 - j) * ratio(r, j) ** 2 for j in range(n))
        counts = sum(q ** (n - 1 - j) * ratio(r**2, j) for j in range(n))
        assert divergence_sum(q, r, sp.Integer(n)) == squares
        assert noise_sum(q, r, sp.Integer(n)) == counts
        assert geometric_sum(q, r, sp.Integer(n)) == sum(q ** (n - 1 - j) * r**j for j in range(n))

    def test_numbers_near_a_singular_point_approach_it(self):
        base = {
            "K": 3,
            "tau": 9,
            "eta": "0.5",
            "beta": 1,
            "beta_F": 1,
            "beta_d": 1,
            "c": "0.25",
            "D_0": 1,
            "sigma2": 1,
            "nu2": 1,
            "d_h": 1,
        }
        exact = certified.theorem.evaluate(base | {"gamma": 1, "z": 1, "ell": "0.25"})
        near = certified.theorem.evaluate(base | {"gamma": 1, "z": 1, "ell": "0.25" + "0" * 40 + "1"})
        assert 0 < abs(near - exact) < mpf(10) ** -39


def test_h_is_zero_at_one_step_and_known_at_two():
    h = published_drift.published_drift(sp.Integer(2))
    beta, delta, eta = published_drift.beta, published_drift.delta, published_drift.eta
    assert sp.expand(h) == sp.expand(eta**2 * beta * delta)


def test_dynamic_tau_prefers_more_steps_when_communication_is_dear():
    tau = sp.Symbol("tau", integer=True, positive=True)

    def best(t_global):
        def objective(steps):
            budget = dynamic_tau.steps_in_budget.subs(
                {tau: steps, dynamic_tau.R: 100, dynamic_tau.t_local: 1, dynamic_tau.t_global: t_global}
            )
            values = {
                "tau": steps,
                "eta": "0.01",
                "beta": 1,
                "rho": 1,
                "phi": "0.1",
                "deltabar": "0.1",
                "T": str(sp.N(budget, 30)),
            }
            return dynamic_tau.theorem.evaluate(values, digits=20)

        return min(range(1, 40), key=objective)

    assert best(sp.Rational(1, 10)) < best(10)


class TestEvaluate:
    values = MappingProxyType({"K": 1, "tau": 1, "eta": "0.1", "beta": 1, "c": "0.1", "D_0": 1, "rho": 1})
    devices = MappingProxyType({"p": ["0.25", "0.75"], "M": [1, 2], "s": [1, 4], "delta": [0, 1]})

    def test_devices_and_their_sums_agree(self):
        sums = {"sigma2": mpf(1) / 16 + mpf(9) / 16 / 2, "deltabar": "0.75"}
        sums["sigma2"] = str(sums["sigma2"])
        assert close(
            dynamite.theorem.evaluate(self.values | self.devices),
            dynamite.theorem.evaluate(self.values | sums),
        )

    def test_missing_values_are_named(self):
        with pytest.raises(KeyError, match="no value for M"):
            dynamite.theorem.evaluate(self.values | {"deltabar": 0})
        with pytest.raises(KeyError, match="beta_F"):
            certified.theorem.evaluate({"K": 1, "tau": 1, "sigma2": 0, "nu2": 0, "d_h": 0, "eta": 1, "c": 1})

    def test_digits_are_as_asked(self):
        low = dynamite.theorem.evaluate(self.values | self.devices, digits=10)
        high = dynamite.theorem.evaluate(self.values | self.devices, digits=100)
        assert abs(low - high) < mpf(10) ** -10


@pytest.mark.parametrize("name", THEOREMS)
def test_every_symbol_is_documented(name):
    theorem = THEOREMS[name]
    derived = {str(symbol) for symbol, _ in theorem.definitions}
    documented = {str(quantity.symbol) for quantity in theorem.symbols()}
    expressions = (theorem.bound, *(value for _, value in theorem.definitions))
    columns = {entry.base.label for expression in expressions for entry in expression.atoms(sp.Indexed)}
    used = {
        str(atom)
        for expression in expressions
        for atom in expression.atoms(sp.Indexed, sp.Symbol)
        - columns
        - {sp.Symbol("i", integer=True, positive=True)}
    }
    assert used - derived <= documented, used - derived - documented
    assert all(quantity.meaning and quantity.unit for quantity in theorem.symbols())

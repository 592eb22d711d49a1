"""The expected loss on quadratics: equal to all outcomes added up, exactly, and to 10,000 simulated runs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt_bounds import federated_quadratic, quadratic_rounds, sampled_quadratic
from coopt_bounds.federated_quadratic import Federation, Phase

HALF = Fraction(1, 2)
RUNS = 10_000


def fractions(rows):
    return np.vectorize(Fraction, otypes=[object])(rows)


class Data:
    """Devices with quadratic losses whose samples differ in their gradient alone."""

    def __init__(self, weights, gradients, curvatures, deviations, start=None):
        self.weights, self.gradients, self.curvatures = weights, gradients, curvatures
        self.deviations = deviations
        self.start = start

    def federation(self, *, distinct):
        spread = [x.T @ x / (len(x) - 1 if distinct else len(x)) for x in self.deviations]
        return Federation(self.weights, self.gradients, self.curvatures, spread, self.start)

    def change(self, z):
        """F(w_0 + z) - F(w_0) for many z."""
        H = sum(p * C for p, C in zip(self.weights, self.curvatures, strict=True))
        g = sum(p * x for p, x in zip(self.weights, self.gradients, strict=True))
        return z @ g + ((z @ H) * z).sum(axis=-1) / 2


def exact_data(devices, samples, size):
    """Small whole numbers, so that every outcome is a fraction."""
    rng = np.random.default_rng(devices * 10 + size)
    counts = rng.integers(1, 4, size=devices)
    weights = [Fraction(int(count), int(counts.sum())) for count in counts]
    gradients = [fractions(rng.integers(-3, 4, size=size)) for _ in range(devices)]
    roots = rng.integers(-1, 2, size=(devices, size, size))
    curvatures = [fractions(root @ root.T + np.eye(size, dtype=int)) for root in roots]
    deviations = []
    for _ in range(devices):
        x = fractions(rng.integers(-2, 3, size=(samples, size)))
        deviations.append(x - x.sum(axis=0) / Fraction(samples))
    return Data(weights, gradients, curvatures, deviations, fractions(rng.integers(-2, 3, size=size)))


def batch_outcomes(deviations, batch, *, distinct):
    """The means of all batches, equally likely."""
    draws = itertools.combinations if distinct else lambda x, s: itertools.product(x, repeat=s)
    return np.array([sum(rows) / Fraction(batch) for rows in draws(list(deviations), batch)])


def trained(z, data, device, phase, noise):
    """All ends of a round on one device: from (states, m) to (states, outcomes, m)."""
    ends, buffers = z[:, None, :], 0 * z[:, None, :]
    for _ in range(phase.local_steps):
        ends, buffers = (np.repeat(x, len(noise), axis=1) for x in (ends, buffers))
        fresh = np.tile(noise, (ends.shape[1] // len(noise), 1))
        gradient = data.gradients[device] + ends @ data.curvatures[device] + fresh
        gradient = gradient + phase.decay * (data.start + ends)
        buffers = phase.momentum * buffers + gradient
        ends = ends - phase.learning_rate * buffers
    return ends


def all_outcomes(data, phases, batches, *, distinct=False, choices=None):
    """The expected change of the loss, by adding up every outcome with its probability.

    ``choices``: (probability, [(device, weight of its change), ...]) for every draw of devices; without it
    all devices take part.
    """
    everyone = [(Fraction(1), list(enumerate(data.weights)))]
    size = len(data.gradients[0])
    z, u = fractions(np.zeros((1, size), dtype=int)), fractions(np.zeros((1, size), dtype=int))
    probability = np.array([Fraction(1)])
    for phase, sizes in zip(phases, batches, strict=True):
        noises = [
            batch_outcomes(x, s, distinct=distinct) for x, s in zip(data.deviations, sizes, strict=True)
        ]
        for _ in range(phase.rounds):
            parts = []
            for chance, drawn in choices or everyone:
                change = 0 * z[:, None, :]
                for device, weight in drawn:
                    moved = trained(z, data, device, phase, noises[device]) - z[:, None, :]
                    both = change[:, :, None, :] + weight * moved[:, None, :, :]
                    change = both.reshape(len(z), -1, size)
                outcomes = change.shape[1]
                kept = phase.server_momentum * u[:, None, :] + change
                step = change + phase.server_momentum * kept if phase.nesterov else kept
                after = z[:, None, :] + phase.server_rate * step
                likely = np.repeat(probability * chance / outcomes, outcomes)
                parts.append((after.reshape(-1, size), kept.reshape(-1, size), likely))
            z, u, probability = (np.concatenate(column) for column in zip(*parts, strict=True))
    return (probability * data.change(z)).sum()


PLAIN = Phase(2, 2, Fraction(1, 4))
SETTINGS = {
    "plain": [PLAIN],
    "one step": [Phase(3, 1, HALF)],
    "weight decay": [replace(PLAIN, decay=Fraction(1, 3))],
    "heavy ball": [replace(PLAIN, momentum=Fraction(2, 3))],
    "server rate": [replace(PLAIN, server_rate=Fraction(3, 2))],
    "server momentum": [replace(PLAIN, server_momentum=HALF, server_rate=Fraction(3, 4))],
    "nesterov": [replace(PLAIN, server_momentum=HALF, nesterov=True)],
    "all at once": [
        replace(PLAIN, momentum=HALF, server_momentum=HALF, server_rate=Fraction(3, 4), decay=Fraction(1, 5))
    ],
    "phases": [Phase(1, 2, HALF), Phase(1, 1, Fraction(1, 4)), Phase(1, 1, Fraction(1, 3))],
    "phases with server momentum": [
        Phase(1, 2, HALF, server_momentum=HALF),
        Phase(2, 1, Fraction(1, 4), server_momentum=Fraction(1, 3)),
    ],
}


class TestAllOutcomes:
    @pytest.mark.parametrize(
        ("name", "size", "distinct"),
        [*((name, 1, False) for name in SETTINGS), ("all at once", 2, True), ("phases", 2, True)],
    )
    def test_expected_change_is_exact(self, name, size, distinct):
        phases = SETTINGS[name]
        data = exact_data(devices=2, samples=3, size=size)
        batches = [[1, 2]] if distinct else [[1, 1]]
        batches *= len(phases)
        value = federated_quadratic.expected_gap(
            data.federation(distinct=distinct), phases, batches, samples=[3, 3] if distinct else None
        )
        assert value == all_outcomes(data, phases, batches, distinct=distinct)

    def test_batches_with_replacement_have_the_divisor_of_all_samples(self):
        data, phases = exact_data(devices=2, samples=3, size=1), [Phase(1, 2, HALF)]
        truth = all_outcomes(data, phases, [[2, 1]])
        assert federated_quadratic.expected_gap(data.federation(distinct=False), phases, [[2, 1]]) == truth
        assert federated_quadratic.expected_gap(data.federation(distinct=True), phases, [[2, 1]]) != truth

    @pytest.mark.parametrize("name", ["plain", "heavy ball", "nesterov", "all at once"])
    @pytest.mark.parametrize("drawn", [1, 2, 3])
    def test_distinct_devices_are_exact(self, name, drawn):
        phases = [replace(phase, rounds=2 if drawn < 3 else 1) for phase in SETTINGS[name]]
        data = exact_data(devices=3, samples=2, size=2)
        subsets = list(itertools.combinations(range(3), drawn))
        choices = [
            (Fraction(1, len(subsets)), [(i, data.weights[i] * Fraction(3, drawn)) for i in subset])
            for subset in subsets
        ]
        answer = sampled_quadratic.coefficients(data.federation(distinct=False), phases, drawn)
        assert answer.value([[Fraction(1)] * 3]) == all_outcomes(data, phases, [[1] * 3], choices=choices)

    @pytest.mark.parametrize("name", ["plain", "heavy ball", "nesterov", "all at once"])
    @pytest.mark.parametrize("drawn", [1, 2])
    def test_independent_draws_are_exact(self, name, drawn):
        phases = [replace(phase, rounds=2 if drawn < 2 else 1) for phase in SETTINGS[name]]
        data = exact_data(devices=3, samples=2, size=2)
        choices = [
            (math.prod(data.weights[i] for i in draw), [(i, Fraction(1, drawn)) for i in draw])
            for draw in itertools.product(range(3), repeat=drawn)
        ]
        answer = sampled_quadratic.coefficients(
            data.federation(distinct=False), phases, drawn, distinct=False
        )
        assert answer.value([[Fraction(1)] * 3]) == all_outcomes(data, phases, [[1] * 3], choices=choices)

    def test_a_device_that_is_drawn_twice_may_train_once(self):
        data = exact_data(devices=3, samples=2, size=1)
        choices = []
        for draw in itertools.product(range(3), repeat=2):
            counts = [(i, Fraction(draw.count(i), 2)) for i in sorted(set(draw))]
            choices.append((math.prod(data.weights[i] for i in draw), counts))
        answer = sampled_quadratic.coefficients(
            data.federation(distinct=False), [PLAIN], 2, distinct=False, trains_once=True
        )
        assert answer.value([[Fraction(1)] * 3]) == all_outcomes(data, [PLAIN], [[1] * 3], choices=choices)

    def test_all_devices_drawn_are_all_devices(self):
        federation = exact_data(devices=3, samples=2, size=2).federation(distinct=False)
        for phases in SETTINGS.values():
            assert sampled_quadratic.coefficients(federation, phases, 3) == federated_quadratic.coefficients(
                federation, phases
            )


def simulated(data, phases, batches, rng, *, distinct=False, drawn=None, with_replacement=False):
    """The models at the end of RUNS runs."""
    devices, size = len(data.weights), len(data.gradients[0])
    z, u = np.zeros((RUNS, size)), np.zeros((RUNS, size))
    for phase, sizes in zip(phases, batches, strict=True):
        for _ in range(phase.rounds):
            if drawn is None:
                factors = np.tile(data.weights, (RUNS, 1))
            elif with_replacement:
                factors = rng.multinomial(drawn, data.weights, size=RUNS) / drawn
            else:
                chosen = rng.random((RUNS, devices)).argsort(axis=1) < drawn
                factors = chosen * np.array(data.weights) * devices / drawn
            change = np.zeros((RUNS, size))
            for i in range(devices):
                # A device that is drawn twice trains twice: its change has the noise of a mean of two.
                times = np.maximum(factors[:, i] * drawn, 1) if with_replacement else np.ones(RUNS)
                local, buffer = z.copy(), np.zeros((RUNS, size))
                for _ in range(phase.local_steps):
                    x = data.deviations[i]
                    if distinct:
                        picks = rng.random((RUNS, len(x))).argsort(axis=1)[:, : sizes[i]]
                    else:
                        picks = rng.integers(len(x), size=(RUNS, sizes[i]))
                    noise = x[picks].mean(axis=1) / np.sqrt(times)[:, None]
                    gradient = data.gradients[i] + local @ data.curvatures[i] + noise
                    buffer = phase.momentum * buffer + gradient + phase.decay * (data.start + local)
                    local = local - phase.learning_rate * buffer
                change += factors[:, i, None] * (local - z)
            u = phase.server_momentum * u + change
            z = z + phase.server_rate * (change + phase.server_momentum * u if phase.nesterov else u)
    return z


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    devices, size, samples = 5, 4, 12
    roots = rng.normal(size=(devices, size, size + 2))
    deviations = rng.normal(size=(devices, samples, size)) @ rng.normal(size=(devices, size, size))
    return Data(
        rng.dirichlet(np.full(devices, 4.0)),
        rng.normal(size=(devices, size)),
        roots @ roots.transpose(0, 2, 1) / size,
        deviations - deviations.mean(axis=1, keepdims=True),
        rng.normal(size=size),
    )


LONGER = Phase(8, 3, 0.15)
RUN = {
    "plain": ([LONGER], {}),
    "distinct samples": ([LONGER], {"distinct": True}),
    "weight decay": ([replace(LONGER, decay=0.3)], {}),
    "heavy ball": ([replace(LONGER, learning_rate=0.06, momentum=0.7)], {}),
    "server momentum": ([replace(LONGER, server_rate=0.6, server_momentum=0.5)], {}),
    "nesterov": ([replace(LONGER, server_rate=0.6, server_momentum=0.5, nesterov=True)], {}),
    "phases": ([Phase(4, 4, 0.2), Phase(4, 2, 0.05)], {}),
    "two distinct devices": ([LONGER], {"drawn": 2}),
    "two distinct devices, nesterov": (
        [replace(LONGER, server_rate=0.6, server_momentum=0.5, nesterov=True)],
        {"drawn": 2},
    ),
    "two draws": ([LONGER], {"drawn": 2, "with_replacement": True}),
}


class TestSimulation:
    batches = (3, 2, 5, 4, 1)

    def coefficients(self, data, phases, *, distinct=False, drawn=None, with_replacement=False):
        federation = data.federation(distinct=distinct)
        if drawn is None:
            return federated_quadratic.coefficients(federation, phases)
        return sampled_quadratic.coefficients(federation, phases, drawn, distinct=not with_replacement)

    def variances(self, data, phases, *, distinct):
        row = [Fraction(1, s) - (Fraction(1, 12) if distinct else 0) for s in self.batches]
        return [row] * len(phases)

    @pytest.mark.parametrize("name", RUN)
    def test_mean_and_variance_of_runs(self, data, name):
        phases, how = RUN[name]
        distinct = how.get("distinct", False)
        answer = self.coefficients(data, phases, **how)
        z = simulated(data, phases, [self.batches] * len(phases), np.random.default_rng(7), **how)
        change = data.change(z)
        standard_error = change.std() / math.sqrt(RUNS)
        expected = float(answer.value(self.variances(data, phases, distinct=distinct)))
        assert abs(change.mean() - expected) < 4 * standard_error

        # The mean model, from the statement without noise; and what is left around it, the variance part.
        still = replace_noise(data)
        mean = simulated(still, phases, [[1] * 5] * len(phases), np.random.default_rng(7))[0]
        assert np.all(np.abs(z.mean(axis=0) - mean) < 4.5 * z.std(axis=0) / math.sqrt(RUNS))
        H = sum(p * C for p, C in zip(data.weights, data.curvatures, strict=True))
        around = (((z - mean) @ H) * (z - mean)).sum(axis=1) / 2
        noise = expected - float(data.change(mean))
        assert noise > 0
        assert abs(around.mean() - noise) < 4 * around.std() / math.sqrt(RUNS)

    @pytest.mark.parametrize("distinct", [False, True])
    def test_the_other_divisor_is_far_off(self, data, distinct):
        phases = [replace(LONGER, rounds=20)]
        wrong = federated_quadratic.coefficients(data.federation(distinct=not distinct), phases)
        right = federated_quadratic.coefficients(data.federation(distinct=distinct), phases)
        variances = self.variances(data, phases, distinct=distinct)
        z = simulated(data, phases, [self.batches], np.random.default_rng(8), distinct=distinct)
        change = data.change(z)
        standard_error = change.std() / math.sqrt(RUNS)
        assert abs(change.mean() - float(right.value(variances))) < 4 * standard_error
        assert abs(change.mean() - float(wrong.value(variances))) > 5 * standard_error


def replace_noise(data):
    return Data(data.weights, data.gradients, data.curvatures, 0 * data.deviations, data.start)


class TestClosedForms:
    def test_floats_and_fractions_agree(self):
        federation = exact_data(devices=3, samples=3, size=2).federation(distinct=True)
        for phases in SETTINGS.values():
            exact = federated_quadratic.coefficients(federation, phases)
            reals = federated_quadratic.coefficients(
                replace(federation, weights=[float(p) for p in federation.weights]), phases
            )
            assert float(reals.offset) == pytest.approx(float(exact.offset), rel=1e-12)

    def test_arrays_and_matrices_are_read_alike(self):
        rows = [[2, 1], [1, 3]]
        ways = (rows, np.array(rows), sp.Matrix(rows))
        federations = [Federation([1], [way[0] if way is rows else [2, 1]], [way], [way]) for way in ways]
        assert federations[0] == federations[1] == federations[2]
        column = Federation([1], sp.Matrix([[2, 1]]), [rows], [rows])
        assert federated_quadratic.coefficients(column, [PLAIN]) == federated_quadratic.coefficients(
            federations[0], [PLAIN]
        )

    def test_lengths_must_agree(self):
        with pytest.raises(ValueError, match="one length"):
            Federation([1], [[1], [2]], [[[1]]], [[[1]]])

    def test_the_theorem_takes_the_numbers(self, data):
        answer = federated_quadratic.coefficients(data.federation(distinct=False), [LONGER])
        batches = [3, 2, 5, 4, 1]
        values = {"V_K": 2 + float(answer.offset), "W": [float(w) for w in answer.weights[0]], "s": batches}
        gap = federated_quadratic.expected_gap(
            data.federation(distinct=False), [LONGER], [batches], initial_gap=2
        )
        assert float(quadratic_rounds.theorem.evaluate(values)) == pytest.approx(float(gap), rel=1e-13)
        offset, weights = quadratic_rounds.theorem.coefficients(2)
        assert str(offset) == "V_K" and [str(w) for w in weights] == ["W[1]", "W[2]"]

    @pytest.mark.parametrize("rounds", [1, 2, 7, 40])
    def test_powers_in_the_eigenbasis(self, data, rounds):
        tau, eta = 3, 0.15
        p = np.array(data.weights)
        J = np.eye(4) - eta * np.array(data.curvatures)
        M = np.einsum("i,iab->ab", p, np.array([np.linalg.matrix_power(A, tau) for A in J]))
        sums = [sum(np.linalg.matrix_power(A, j) for j in range(tau)) for A in J]
        v = eta * sum(w * S @ g for w, S, g in zip(p, sums, data.gradients, strict=True))
        H, g = np.einsum("i,iab->ab", p, data.curvatures), p @ data.gradients
        assert np.allclose(M, M.T, atol=1e-15)
        mu, U = np.linalg.eigh(M)
        fixed, best = -np.linalg.solve(np.eye(4) - M, v), -np.linalg.solve(H, g)
        d, u, h = U.T @ (fixed - best), -U.T @ fixed, U.T @ H @ U
        gap = (
            d @ h @ d / 2
            + (h @ d * u) @ mu**rounds
            + (h * np.outer(u, u) * np.outer(mu, mu) ** rounds).sum() / 2
        )
        answer = federated_quadratic.coefficients(data.federation(distinct=False), [Phase(rounds, tau, eta)])
        assert float(answer.offset) + best @ H @ best / 2 == pytest.approx(gap, rel=1e-10)
        C = data.deviations[0].T @ data.deviations[0] / 12
        powers = [np.linalg.matrix_power(J[0], j) for j in range(tau)]
        P = (eta * p[0]) ** 2 * sum(A @ C @ A for A in powers)
        both = np.outer(mu, mu)
        weight = (h * (U.T @ P @ U) * (1 - both**rounds) / (1 - both)).sum() / 2
        assert float(answer.weights[0][0]) == pytest.approx(weight, rel=1e-10)


small = st.integers(-2, 2)
rates = st.sampled_from([Fraction(1, 8), Fraction(1, 3), Fraction(1, 2), Fraction(1)])


@st.composite
def federations(draw, size=2):
    devices = draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(1, 3), min_size=devices, max_size=devices))

    def square():
        root = np.array(draw(st.lists(small, min_size=size**2, max_size=size**2))).reshape(size, size)
        return root @ root.T

    gradients = [draw(st.lists(small, min_size=size, max_size=size)) for _ in range(devices)]
    weights = [Fraction(count, sum(counts)) for count in counts]
    return Federation(weights, gradients, [square() for _ in counts], [square() for _ in counts])


@st.composite
def momenta(draw):
    server = draw(st.sampled_from([Fraction(0), HALF]))
    return {
        "momentum": draw(st.sampled_from([Fraction(0), HALF])),
        "server_momentum": server,
        "nesterov": draw(st.booleans()),
    }


class TestLaws:
    @settings(max_examples=30, deadline=None)
    @given(federations(), rates, st.integers(1, 3), st.integers(1, 3), momenta())
    def test_weights_are_nonnegative_and_never_fall_in_rounds(self, federation, eta, tau, rounds, momentum):
        few, many = (
            federated_quadratic.coefficients(federation, [Phase(K, tau, eta, **momentum)]).weights[0]
            for K in (rounds, rounds + 1)
        )
        assert all(0 <= a <= b for a, b in zip(few, many, strict=True))

    @settings(max_examples=30, deadline=None)
    @given(federations(), rates, st.integers(1, 3), st.integers(1, 2), st.booleans())
    def test_weights_stay_nonnegative_when_devices_are_drawn(self, federation, eta, tau, drawn, distinct):
        drawn = min(drawn, len(federation.weights))
        answer = sampled_quadratic.coefficients(federation, [Phase(2, tau, eta)], drawn, distinct=distinct)
        everyone = federated_quadratic.coefficients(federation, [Phase(2, tau, eta)])
        assert all(w >= 0 for w in answer.weights[0])
        assert answer.offset >= everyone.offset

    @settings(max_examples=30, deadline=None)
    @given(federations(), rates, st.integers(1, 4))
    def test_noise_of_a_round_grows_in_every_direction(self, federation, eta, tau):
        few, many = (
            federated_quadratic.round_map(federation, Phase(1, steps, eta), sp.QQ).averaged_noises
            for steps in (tau, tau + 1)
        )
        for less, more in zip(few, many, strict=True):
            assert (more - less).to_Matrix().is_positive_semidefinite

    @settings(max_examples=30, deadline=None)
    @given(federations(), rates, st.integers(1, 4), momenta())
    def test_every_map_is_symmetric(self, federation, eta, tau, momentum):
        one = federated_quadratic.round_map(federation, Phase(1, tau, eta, **momentum), sp.QQ)
        for matrix in (one.mean_map, *one.maps, *one.noises):
            assert matrix == matrix.transpose()

    @settings(max_examples=20, deadline=None)
    @given(federations(), rates, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
    def test_a_phase_cut_in_two_is_the_same(self, federation, eta, tau, first, second):
        whole = federated_quadratic.coefficients(federation, [Phase(first + second, tau, eta)])
        cut = federated_quadratic.coefficients(federation, [Phase(first, tau, eta), Phase(second, tau, eta)])
        assert cut.offset == whole.offset
        assert [a + b for a, b in zip(*cut.weights, strict=True)] == list(whole.weights[0])

    @settings(max_examples=20, deadline=None)
    @given(federations(), rates, st.integers(1, 3), st.randoms(use_true_random=False))
    def test_devices_may_be_listed_in_any_order(self, federation, eta, tau, random):
        order = list(range(len(federation.weights)))
        random.shuffle(order)
        names = ("weights", "gradients", "curvatures", "covariances")
        turned = Federation(*([getattr(federation, name)[k] for k in order] for name in names))
        phases = [Phase(2, tau, eta)]
        before, after = (federated_quadratic.coefficients(x, phases) for x in (federation, turned))
        assert after.offset == before.offset
        assert after.weights[0] == tuple(before.weights[0][k] for k in order)

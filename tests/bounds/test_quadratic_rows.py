"""What is printed is what is computed: the rows of each theorem, read literally, give the same fractions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp

from coopt_bounds import (
    federated_quadratic,
    quadratic_momentum,
    quadratic_monotone,
    quadratic_rounds,
    quadratic_sampling,
    sampled_quadratic,
)
from coopt_bounds.federated_quadratic import Federation, Phase

SIZE = 2
FEDERATION = Federation(
    weights=[Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)],
    gradients=[[1, 0], [-2, 1], [0, 3]],
    curvatures=[[[1, 0], [0, 2]], [[3, 1], [1, 1]], [[1, -1], [-1, 2]]],
    covariances=[[[4, 0], [0, 1]], [[1, 1], [1, 2]], [[2, -1], [-1, 1]]],
)
BATCHES = [2, 3, 4]
PHASE = Phase(3, 2, Fraction(1, 5))


def rational(value):
    return sp.Rational(value.numerator, value.denominator)


class Reader:
    """Evaluates the rows of a theorem: a name with an index depends on it, ``X^T`` is X transposed."""

    def __init__(self, theorem, phase, drawn=0):
        self.rows = {str(left): right for left, right in theorem.matrices}
        weights = [rational(Fraction(p)) for p in FEDERATION.weights]
        matrices = {
            "H_i": [sp.Matrix(H) for H in FEDERATION.curvatures],
            "C_i": [sp.Matrix(C) for C in FEDERATION.covariances],
            "g_i": [sp.Matrix(g) for g in FEDERATION.gradients],
        }
        self.devices = {"p_i": weights, "s[i]": BATCHES, **matrices}
        self.known = {
            "I": sp.eye(SIZE),
            "H": sum((p * H for p, H in zip(weights, matrices["H_i"], strict=True)), sp.zeros(SIZE)),
            "g": sum((p * g for p, g in zip(weights, matrices["g_i"], strict=True)), sp.zeros(SIZE, 1)),
            "D_0": sp.S.Zero,
            "N": sp.Integer(len(weights)),
            "n_c": sp.Integer(drawn),
            "K": sp.Integer(phase.rounds),
            "tau": sp.Integer(phase.local_steps),
            "eta": rational(phase.learning_rate),
            "beta_u": rational(Fraction(phase.momentum)),
            "gamma_s": rational(Fraction(phase.server_rate)),
            "beta_s": rational(Fraction(phase.server_momentum)),
        }
        self.found = {}

    def name(self, name, at):
        if name in at:
            return at[name]
        if name in self.devices:
            return self.devices[name][at["i"] - 1]
        if name in self.known:
            return self.known[name]
        if name not in self.rows:
            return self.name("e^T" if name == "e" else name.replace("^T", ""), at).T
        place = (name, *sorted((index, value) for index, value in at.items() if value is not None))
        if place not in self.found:
            self.found[place] = self.value(self.rows[name], at)
        return self.found[place]

    def covariance(self, at):
        """S(k), by its recursion."""
        total = sp.zeros(SIZE)
        for k in range(int(at)):
            self.known["S(k)"] = total
            total = self.value(self.rows["S(k + 1)"], {"k": k})
        return total

    def value(self, expression, at):
        if isinstance(expression, sp.MatrixBase):
            blocks = [
                [sp.zeros(SIZE) if entry == 0 else self.value(entry, at) for entry in row]
                for row in expression.tolist()
            ]
            return sp.Matrix.vstack(*(sp.Matrix.hstack(*row) for row in blocks))
        if isinstance(expression, (sp.Symbol, sp.Indexed)):
            return self.name(str(expression), at)
        if expression.is_Number:
            return expression
        if isinstance(expression, sp.Sum):
            index, first, last = expression.args[1]
            first, last = (self.value(end, at) for end in (first, last))
            parts = (self.value(expression.function, {**at, str(index): k}) for k in range(first, last + 1))
            return self.added(parts)
        if expression.is_Add:
            return self.added(self.value(part, at) for part in expression.args)
        if expression.is_Mul:
            result = sp.S.One
            for factor in expression.args:
                result = result * self.value(factor, at)
            return result[0] if getattr(result, "shape", None) == (1, 1) else result
        if expression.is_Pow:
            return self.value(expression.base, at) ** self.value(expression.exp, at)
        if expression.func.__name__ == "tr":
            return self.value(expression.args[0], at).trace()
        assert expression.func.__name__ == "S", expression
        argument = expression.args[0]
        return self.known["S(k)"] if str(argument) == "k" else self.covariance(self.value(argument, at))

    @staticmethod
    def added(parts):
        parts = list(parts)
        return sum(parts[1:], start=parts[0]) if parts else sp.S.Zero


def fraction(value):
    return Fraction(int(value.p), int(value.q))


MOMENTUM = {
    "heavy ball": replace(PHASE, momentum=Fraction(1, 2)),
    "server": replace(PHASE, server_rate=Fraction(2, 3), server_momentum=Fraction(1, 3)),
    "both": replace(PHASE, momentum=Fraction(1, 4), server_momentum=Fraction(1, 2)),
}


@pytest.mark.parametrize(
    ("theorem", "phase"),
    [
        (quadratic_rounds.theorem, PHASE),
        (quadratic_rounds.distinct_theorem, PHASE),
        *((quadratic_momentum.theorem, phase) for phase in MOMENTUM.values()),
    ],
)
def test_rows_of_equations_without_a_draw(theorem, phase):
    answer = federated_quadratic.coefficients(FEDERATION, [phase])
    reader = Reader(theorem, phase)
    # W_k and R_ij depend on indices that M or v do not have: each is read where it stands.
    assert fraction(reader.name("V_K", {})) == answer.offset
    assert tuple(fraction(reader.name("W_i", {"i": i})) for i in (1, 2, 3)) == answer.weights[0]


@pytest.mark.parametrize("drawn", [1, 2, 3])
@pytest.mark.parametrize("distinct", [True, False])
def test_rows_of_equations_with_a_draw(distinct, drawn):
    theorem = quadratic_sampling.theorem if distinct else quadratic_sampling.draws_theorem
    answer = sampled_quadratic.coefficients(FEDERATION, [PHASE], drawn, distinct=distinct)
    reader = Reader(theorem, PHASE, drawn)
    noise = (reader.known["H"] * reader.covariance(PHASE.rounds)).trace() / 2
    expected = answer.value([[Fraction(1, s) for s in BATCHES]])
    assert fraction(reader.name("V_K", {})) + fraction(noise) == expected


@pytest.mark.parametrize("seed", range(20))
def test_floors_over_intervals_hold(seed):
    """Lemmas terms, parity and interval with the steps of devices so long that M has negative eigenvalues."""
    rng = np.random.default_rng(seed)
    devices, size, tau, most = 4, 3, int(rng.integers(1, 4)), 40
    roots = rng.normal(size=(devices, size, size + 1))
    H_i = roots @ roots.transpose(0, 2, 1) / size
    g_i, p = rng.normal(size=(devices, size)), rng.dirichlet(np.ones(devices))
    eta = rng.uniform(0.2, 1.9) / np.linalg.eigvalsh(H_i).max()
    J = np.eye(size) - eta * H_i
    M = np.einsum("i,iab->ab", p, [np.linalg.matrix_power(A, tau) for A in J])
    v = eta * sum(
        w * sum(np.linalg.matrix_power(A, j) for j in range(tau)) @ g
        for w, A, g in zip(p, J, g_i, strict=True)
    )
    H, g = np.einsum("i,iab->ab", p, H_i), p @ g_i
    mu, U = np.linalg.eigh(M)
    fixed, best = -np.linalg.solve(np.eye(size) - M, v), -np.linalg.solve(H, g)
    d, u, h = U.T @ (fixed - best), -U.T @ fixed, U.T @ H @ U
    ratios = np.concatenate([mu, np.outer(mu, mu).ravel()])
    factors = np.concatenate([(h @ d) * u, (h * np.outer(u, u)).ravel() / 2])
    constant = d @ h @ d / 2

    def gap(K):
        return constant + factors @ ratios**K

    def least(first, last):
        ends = np.minimum(factors * ratios**first, factors * ratios**last)
        both_parities = [factors * ratios**K for K in (first, first + 1, last - 1, last)]
        return constant + np.where(ratios >= 0, ends, np.min(both_parities, axis=0)).sum()

    values = [gap(K) for K in range(most + 1)]
    tolerance = 1e-12 * max(map(abs, values))
    for first in range(1, most, 3):
        for last in range(first + 1, most + 1, 5):
            assert least(first, last) <= min(values[first : last + 1]) + tolerance
    exact = federated_quadratic.coefficients(
        Federation(p, g_i, H_i, np.zeros((devices, size, size))), [Phase(7, tau, eta)]
    )
    assert float(exact.offset) + best @ H @ best / 2 == pytest.approx(values[7], rel=1e-8)
    for lemma in (quadratic_monotone.TERMS, quadratic_monotone.PARITY, quadratic_monotone.INTERVAL):
        lemma.check()


@pytest.mark.parametrize("fewer", [1, 2])
def test_noise_floor_from_fewer_local_steps_holds(fewer):
    rounds, tau, eta = 4, 3, Fraction(1, 3)
    many = federated_quadratic.round_map(FEDERATION, Phase(1, tau, eta), sp.QQ)
    few = federated_quadratic.round_map(FEDERATION, Phase(1, fewer, eta), sp.QQ)
    H, _ = federated_quadratic.loss(FEDERATION, sp.QQ)
    M, G, power = many.mean_map, H - H, H
    for _ in range(rounds):
        G, power = G + power, M * power * M
    weights = federated_quadratic.coefficients(FEDERATION, [Phase(rounds, tau, eta)]).weights[0]
    floors = [federated_quadratic.number(federated_quadratic.trace(G * P)) / 2 for P in few.averaged_noises]
    assert all(0 < floor <= weight for floor, weight in zip(floors, weights, strict=True))

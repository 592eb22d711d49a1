"""A federation with quadratic losses, in numbers: the round as an affine map, exact or to 50 digits.

What :mod:`coopt_bounds.quadratic_rounds`, :mod:`coopt_bounds.quadratic_momentum` and
:mod:`coopt_bounds.quadratic_sampling` state, computed as it is stated, for small matrices. Integers,
fractions and strings stay exact rationals; one float among them makes all numbers real with 50 digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from coopt_bounds.theorem import Number

DIGITS = 50
_REALS = sp.RealField(prec=DIGITS * 10 // 3 + 4)


@dataclass(frozen=True)
class Federation:
    """Devices with quadratic losses around a first model w_0, in an orthonormal basis of m directions.

    Parameters
    ----------
    weights : sequence of N numbers
        Aggregation weights p_i, summing to 1.
    gradients : N sequences of m numbers
        Gradient of every device at w_0 [gradient].
    curvatures : N symmetric m x m matrices
        Hessian of every device [curvature]. Lists, numpy arrays and sympy matrices are all read.
    covariances : N symmetric m x m matrices
        Covariance of the gradient of one sample [gradient^2 samples].
    start : sequence of m numbers, optional
        w_0 itself, which weight decay pulls to zero.
    """

    weights: Sequence[Number]
    gradients: Sequence[Any]
    curvatures: Sequence[Any]
    covariances: Sequence[Any]
    start: Sequence[Number] | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "gradients", "curvatures", "covariances"):
            object.__setattr__(self, name, _tuples(getattr(self, name)))
        if self.start is not None:
            object.__setattr__(self, "start", _tuples(self.start))
        counts = {len(self.weights), len(self.gradients), len(self.curvatures), len(self.covariances)}
        if len(counts) > 1:
            raise ValueError("weights, gradients, curvatures and covariances are of one length, the devices")

    def numbers(self) -> Iterable[Any]:
        """All numbers, in no useful order."""
        return _flat((self.weights, self.gradients, self.curvatures, self.covariances, self.start or ()))


@dataclass(frozen=True)
class Phase:
    """Rounds with the same settings.

    Parameters
    ----------
    rounds, local_steps : int
        K and tau.
    learning_rate : number
        Of the local steps [1/curvature].
    decay : number
        Weight decay in the local steps [curvature].
    momentum : number
        Heavy ball on the clients, reset at the start of every round.
    server_rate, server_momentum : number
        The server moves by its rate times the averaged change; its momentum lasts over rounds and phases.
    nesterov : bool
        Nesterov's momentum on the server in place of the heavy ball.
    """

    rounds: int
    local_steps: int
    learning_rate: Number
    decay: Number = 0
    momentum: Number = 0
    server_rate: Number = 1
    server_momentum: Number = 0
    nesterov: bool = False

    def numbers(self) -> Iterable[Any]:
        """All numbers but the counts."""
        return (self.learning_rate, self.decay, self.momentum, self.server_rate, self.server_momentum)


@dataclass(frozen=True)
class Coefficients:
    """An expected loss as an offset and weights of the 1/s_i.

    Parameters
    ----------
    offset : Fraction or mpmath.mpf
        F(w_0 + mean) - F(w_0), and what sampling of devices adds without noise [loss].
    weights : tuple of tuples
        n_ip, one tuple a phase, one number a device [loss samples].
    """

    offset: Any
    weights: tuple[tuple[Any, ...], ...]

    def value(self, variances: Sequence[Sequence[Fraction]]) -> Any:
        """The expected change of the loss, given 1/s_ip (or 1/s_ip - 1/d_i) for every phase and device."""
        result = self.offset
        for row, given in zip(self.weights, variances, strict=True):
            for weight, x in zip(row, given, strict=True):
                result += weight * x.numerator / x.denominator
        return result


@dataclass(frozen=True)
class Round:
    """One round as an affine map: z <- M z - v with noise of covariance sum P_i/s_i.

    Parameters
    ----------
    maps, shifts : tuple of matrices
        A_i and f_i of every device: z <- A_i z - f_i.
    noises : tuple of matrices
        Covariance at the end of the round of the noise of every device, times s_i, before averaging.
    weights : tuple of numbers
        p_i.
    """

    maps: tuple[Any, ...]
    shifts: tuple[Any, ...]
    noises: tuple[Any, ...]
    weights: tuple[Any, ...]

    @property
    def mean_map(self) -> Any:
        """M, the sum of p_i A_i."""
        return total(matrix * p for matrix, p in zip(self.maps, self.weights, strict=True))

    @property
    def mean_shift(self) -> Any:
        """v, the sum of p_i f_i."""
        return total(vector * p for vector, p in zip(self.shifts, self.weights, strict=True))

    @property
    def averaged_noises(self) -> tuple[Any, ...]:
        """P_i: those of the devices times p_i^2."""
        return tuple(matrix * (p * p) for matrix, p in zip(self.noises, self.weights, strict=True))


def coefficients(federation: Federation, phases: Sequence[Phase]) -> Coefficients:
    """Offset and weights of the expected loss after all phases, batches and noise apart.

    The mean runs forwards. The weight of the squared model at the end runs backwards through the phases,
    G <- M G M from H, and P_i of a round meets the G of what follows it. Server momentum makes the state the
    model and the server's buffer; the mathematics stays.

    Parameters
    ----------
    federation : Federation
    phases : sequence of Phase
        In the order in which they run. ``momentum`` is reset every round, ``server_momentum`` never.

    Returns
    -------
    Coefficients
        ``offset`` is F(w_0 + mean) - F(w_0).
    """
    domain = numbers_of(federation, *phases)
    H, g = loss(federation, domain)
    rounds = [round_map(federation, phase, domain) for phase in phases]
    servers = [server_map(one, phase, domain) for one, phase in zip(rounds, phases, strict=True)]
    size = len(federation.gradients[0])
    model = DomainMatrix.eye(size, domain).to_dense()
    pick = model.hstack(model - model)
    state = pick.transpose() * (g - g)
    for (step, entry), one, phase in zip(servers, rounds, phases, strict=True):
        push = entry * one.mean_shift
        for _ in range(phase.rounds):
            state = step * state - push
    mean = pick * state
    half = domain.one / domain(2)
    offset = trace(g.transpose() * mean) + half * form(H, mean)
    at_end = pick.transpose() * H * pick
    weights = []
    for (step, entry), one, phase in reversed(list(zip(servers, rounds, phases, strict=True))):
        met = H - H
        for _ in range(phase.rounds):
            met = met + entry.transpose() * at_end * entry
            at_end = step.transpose() * at_end * step
        weights.append(tuple(number(half * trace(met * P)) for P in one.averaged_noises))
    return Coefficients(number(offset), tuple(reversed(weights)))


def expected_gap(
    federation: Federation,
    phases: Sequence[Phase],
    batches: Sequence[Sequence[int]],
    initial_gap: Number = 0,
    samples: Sequence[int] | None = None,
) -> Any:
    """E F(w) - F* after all phases (with the default ``initial_gap``: the expected change of the loss).

    Parameters
    ----------
    federation : Federation
    phases : sequence of Phase
    batches : sequence of sequences of int
        s_ip, one sequence a phase, one batch a device.
    initial_gap : number
        D_0 = F(w_0) - F* [loss].
    samples : sequence of int, optional
        d_i where batches are of distinct samples; the covariances then have divisor d_i - 1.

    Returns
    -------
    Fraction, or mpmath.mpf where a number given is a float
    """
    answer = coefficients(federation, phases)
    spared = [Fraction(1, d) for d in samples] if samples is not None else [Fraction(0)] * len(batches[0])
    variances = [[Fraction(1, s) - x for s, x in zip(row, spared, strict=True)] for row in batches]
    domain = numbers_of(federation, *phases)
    return number(scalar(initial_gap, domain)) + answer.value(variances)


def server_map(one: Round, phase: Phase, domain: Any) -> tuple[Any, Any]:
    """The map of model and buffer over a round, and how the averaged change enters both.

    With B = M - I the change is B z - v; the heavy ball has [[I + gamma B, gamma beta I], [B, beta I]],
    Nesterov [[I + gamma (1 + beta) B, gamma beta^2 I], [B, beta I]].
    """
    rate, beta = scalar(phase.server_rate, domain), scalar(phase.server_momentum, domain)
    M = one.mean_map
    identity = DomainMatrix.eye(M.shape[0], domain).to_dense()
    now, kept = (rate * (domain.one + beta), rate * beta * beta) if phase.nesterov else (rate, rate * beta)
    B = M - identity
    step = (identity + B * now).hstack(identity * kept).vstack(B.hstack(identity * beta))
    return step, (identity * now).vstack(identity)


def numbers_of(*parts: Federation | Phase) -> Any:
    """The domain of all computations: rationals, or reals where one number is a float."""
    found = [number for part in parts for number in part.numbers()]
    return _REALS if any(isinstance(x, (float, sp.Float)) for x in found) else sp.QQ


def loss(federation: Federation, domain: Any) -> tuple[Any, Any]:
    """Curvature H and gradient g of the global loss."""
    weights = [scalar(p, domain) for p in federation.weights]
    curvatures = (matrix(rows, domain) for rows in federation.curvatures)
    gradients = (column(entries, domain) for entries in federation.gradients)
    return (
        total(curvature * p for curvature, p in zip(curvatures, weights, strict=True)),
        total(gradient * p for gradient, p in zip(gradients, weights, strict=True)),
    )


def round_map(federation: Federation, phase: Phase, domain: Any) -> Round:
    """The maps of the devices over one round, with heavy ball and weight decay.

    A gradient g + H z + xi enters the buffer, u <- beta u + g + H z + xi, and z <- z - eta u. What enters in
    one step moves the model j steps later by R_j, the same for gradient and noise.
    """
    eta, beta, decay = (scalar(x, domain) for x in (phase.learning_rate, phase.momentum, phase.decay))
    size = len(federation.gradients[0])
    one = DomainMatrix.eye(size, domain).to_dense()
    start = column(federation.start if federation.start is not None else [0] * size, domain)
    maps, shifts, noises = [], [], []
    for rows, entries, spread in zip(
        federation.curvatures, federation.gradients, federation.covariances, strict=True
    ):
        H = matrix(rows, domain) + one * decay
        g = column(entries, domain) + start * decay
        C = matrix(spread, domain)
        z, u = one, one - one
        e, w = one * -eta, one
        moved, noise = one - one, one - one
        for _ in range(phase.local_steps):
            moved, noise = moved + e, noise + e * C * e
            u = H * z + u * beta
            z = z - u * eta
            w = H * e + w * beta
            e = e - w * eta
        maps.append(z)
        shifts.append(moved * g * -domain.one)
        noises.append(noise)
    weights = tuple(scalar(p, domain) for p in federation.weights)
    return Round(tuple(maps), tuple(shifts), tuple(noises), weights)


def scalar(number: Any, domain: Any) -> Any:
    """A number in the domain, exactly (floats at their binary value)."""
    if isinstance(number, sp.Rational):
        number = Fraction(int(number.p), int(number.q))
    if isinstance(number, (float, sp.Float)):
        return domain(float(number))
    exact = Fraction(number)
    return domain(exact.numerator) / domain(exact.denominator)


def matrix(rows: Sequence[Sequence[Any]], domain: Any) -> Any:
    """A matrix over the domain."""
    entries = [[scalar(x, domain) for x in row] for row in rows]
    return DomainMatrix(entries, (len(entries), len(entries[0])), domain)


def column(entries: Sequence[Any], domain: Any) -> Any:
    """A column over the domain."""
    return matrix([[x] for x in entries], domain)


def total(parts: Iterable[Any]) -> Any:
    """The sum of at least one matrix."""
    first, *others = parts
    for part in others:
        first = first + part
    return first


def trace(product: Any) -> Any:
    """The sum of the diagonal, as a number of the domain."""
    rows = product.to_list()
    return sum((rows[k][k] for k in range(1, len(rows))), rows[0][0])


def form(A: Any, x: Any) -> Any:
    """X'Ax for a column x."""
    return trace(x.transpose() * A * x)


def number(value: Any) -> Any:
    """A number of the domain as a fraction, or as it is where it is real."""
    if hasattr(value, "denominator"):
        return Fraction(int(value.numerator), int(value.denominator))
    return value


def _tuples(given: Any) -> Any:
    """Nested tuples from lists, arrays or sympy matrices; columns as tuples of their entries."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, Iterable) and not isinstance(given, str):
        return tuple(_tuples(entry) for entry in given)
    return given


def _flat(given: Any) -> Iterable[Any]:
    for entry in given:
        if isinstance(entry, tuple):
            yield from _flat(entry)
        else:
            yield entry

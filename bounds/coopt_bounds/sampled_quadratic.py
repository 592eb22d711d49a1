"""A federation with quadratic losses and some devices a round, in numbers.

As :mod:`coopt_bounds.quadratic_sampling` states it: the covariance has no power of M, so the weight of the
squared model at the end is carried backwards round by round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sympy.polys.matrices import DomainMatrix

from coopt_bounds.federated_quadratic import (
    Coefficients,
    Federation,
    Phase,
    Round,
    form,
    loss,
    number,
    numbers_of,
    round_map,
    server_map,
    trace,
)


def coefficients(
    federation: Federation,
    phases: Sequence[Phase],
    participants: int,
    *,
    distinct: bool = True,
    trains_once: bool = False,
) -> Coefficients:
    """Offset and weights of the expected loss with some devices a round.

    Parameters
    ----------
    federation : Federation
    phases : sequence of Phase
        Momentum and server settings included.
    participants : int
        c, the devices that are drawn each round.
    distinct : bool
        c distinct devices, uniformly, with N p_i/c on their changes; otherwise c independent draws with the
        probabilities p_i and a plain mean.
    trains_once : bool
        Whether a device that is drawn twice trains once and counts twice; otherwise it trains twice.

    Returns
    -------
    Coefficients
        ``offset`` holds what the draw adds without noise.
    """
    domain = numbers_of(federation, *phases)
    H, g = loss(federation, domain)
    size = len(federation.gradients[0])
    model = DomainMatrix.eye(size, domain).to_dense()
    pick = model.hstack(model - model)
    rounds = [round_map(federation, phase, domain) for phase in phases]
    state = pick.transpose() * (g - g)
    path = []
    for one, phase in zip(rounds, phases, strict=True):
        step, entry = server_map(one, phase, domain)
        draws = _distinct(one, participants, domain) if distinct else _independent(one, participants, domain)
        for _ in range(phase.rounds):
            path.append((pick * state, step, entry, draws))
            state = step * state - entry * one.mean_shift
    mean = pick * state
    half = domain.one / domain(2)
    offset = trace(g.transpose() * mean) + half * form(H, mean)
    at_end = pick.transpose() * H * pick
    met = []
    for before, step, entry, draws in reversed(path):
        now = entry.transpose() * at_end * entry
        met.append(now)
        at_end = step.transpose() * at_end * step
        for factor, spread, shift in draws:
            jump = spread * before - shift
            offset = offset + half * factor * form(now, jump)
            at_end = at_end + pick.transpose() * (spread * now * spread) * pick * factor
    met.reverse()
    weights, done = [], 0
    for one, phase in zip(rounds, phases, strict=True):
        if distinct:
            shares = [p * p * domain(len(one.weights)) / domain(participants) for p in one.weights]
        elif trains_once:
            shares = [p * p + p * (domain.one - p) / domain(participants) for p in one.weights]
        else:
            shares = [p / domain(participants) for p in one.weights]
        noises = [C * share for C, share in zip(one.noises, shares, strict=True)]
        rows = met[done : done + phase.rounds]
        weights.append(tuple(number(sum((half * trace(G * P) for G in rows), domain.zero)) for P in noises))
        done += phase.rounds
    return Coefficients(number(offset), tuple(weights))


def _distinct(one: Round, drawn: int, domain: Any) -> list[tuple[Any, Any, Any]]:
    """Kappa, D_i and q_i."""
    devices = len(one.weights)
    if devices == 1:
        return []
    kappa = domain(devices * (devices - drawn)) / domain(drawn * (devices - 1))
    identity = one.maps[0] ** 0
    share = domain.one / domain(devices)
    change, shift = (one.mean_map - identity) * share, one.mean_shift * share
    return [
        (kappa, (A - identity) * p - change, f * p - shift)
        for A, f, p in zip(one.maps, one.shifts, one.weights, strict=True)
    ]


def _independent(one: Round, drawn: int, domain: Any) -> list[tuple[Any, Any, Any]]:
    """p_i/c, B_i and v_i of every device, and -1/c with the mean change."""
    identity = one.maps[0] ** 0
    share = domain.one / domain(drawn)
    parts = [(p * share, A - identity, f) for A, f, p in zip(one.maps, one.shifts, one.weights, strict=True)]
    return [*parts, (-share, one.mean_map - identity, one.mean_shift)]

"""Theorems about federated averaging, checked by computer algebra: its bounds, and its loss on quadratics.

Each module ``certified``, ``nonconvex``, ``dynamite``, ``adacoopt``, ``relative_noise``, ``dynamic_tau``,
``streaming``, ``tradeoff``, ``participants`` and ``cohort`` has a ``theorem``: its assumptions, its lemmas
with their proofs, its statement as a sympy expression, LaTeX, and numbers to any precision. ``closed_forms``
has the theorems behind formulas for the best plan: a least value, and the expression that never falls below
it. ``monotone`` and ``convexity`` hold the lemmas that the exact solver of :mod:`coopt` relies on.

``quadratic_rounds``, ``quadratic_sampling`` and ``quadratic_momentum`` have the expected loss on quadratic
losses, not a bound but an equation; ``federated_quadratic`` and ``sampled_quadratic`` compute it. ``krylov``
says what a few directions know of it, and ``quadratic_monotone`` holds the lemmas that a search prunes with.

Examples
--------
>>> from coopt_bounds import THEOREMS, dynamite
>>> sorted(THEOREMS)
['adacoopt', 'best-batches', 'best-steps', 'best-steps-costly-rounds', 'best-steps-reciprocal', 'certified',
 'co-optimised', 'cohort', 'cohort-nonconvex', 'dynamic-tau', 'dynamite', 'dynamite-marginal', 'krylov',
 'nonconvex', 'participants', 'participants-nonconvex', 'quadratic-momentum', 'quadratic-rounds',
 'quadratic-rounds-distinct', 'quadratic-sampling', 'quadratic-sampling-draws', 'relative-noise',
 'same-batch', 'streaming', 'tradeoff']
>>> dynamite.theorem.statement.lhs
E_K
>>> dynamite.FIXED_POINT.claim
rho >= (-beta*eta/2 + 1)/(eta*tau)
>>> dynamite.FIXED_POINT.check()  # silence is a proof
"""

from __future__ import annotations

from coopt_bounds import (
    adacoopt,
    best_batches,
    certified,
    closed_forms,
    cohort,
    convexity,
    dynamic_tau,
    dynamite,
    federated_quadratic,
    krylov,
    monotone,
    nonconvex,
    participants,
    quadratic_momentum,
    quadratic_monotone,
    quadratic_rounds,
    quadratic_sampling,
    relative_noise,
    sampled_quadratic,
    streaming,
    tradeoff,
)
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import ProofError
from coopt_bounds.theorem import Theorem

__all__ = [
    "LEMMAS",
    "THEOREMS",
    "Assumption",
    "Lemma",
    "ProofError",
    "Theorem",
    "adacoopt",
    "best_batches",
    "certified",
    "closed_forms",
    "cohort",
    "convexity",
    "dynamic_tau",
    "dynamite",
    "federated_quadratic",
    "krylov",
    "monotone",
    "nonconvex",
    "participants",
    "quadratic_momentum",
    "quadratic_monotone",
    "quadratic_rounds",
    "quadratic_sampling",
    "relative_noise",
    "sampled_quadratic",
    "streaming",
    "tradeoff",
]

THEOREMS: dict[str, Theorem] = {
    theorem.name: theorem
    for theorem in (
        certified.theorem,
        nonconvex.theorem,
        dynamite.theorem,
        dynamite.marginal,
        adacoopt.theorem,
        relative_noise.theorem,
        dynamic_tau.theorem,
        streaming.theorem,
        tradeoff.theorem,
        participants.theorem,
        participants.nonconvex_theorem,
        cohort.theorem,
        cohort.nonconvex_theorem,
        *closed_forms.THEOREMS,
        quadratic_rounds.theorem,
        quadratic_rounds.distinct_theorem,
        quadratic_sampling.theorem,
        quadratic_sampling.draws_theorem,
        quadratic_momentum.theorem,
        krylov.theorem,
    )
}
"""Every theorem by name."""

LEMMAS: dict[str, Lemma] = {
    lemma.name: lemma
    for lemma in (
        *(lemma for theorem in THEOREMS.values() for lemma in theorem.lemmas),
        *monotone.LEMMAS,
        *convexity.LEMMAS,
        *quadratic_monotone.LEMMAS,
    )
}
"""Every lemma by name."""

"""Convergence bounds of federated averaging as theorems checked by computer algebra.

Each module ``certified``, ``nonconvex``, ``dynamite``, ``adacoopt``, ``relative_noise``, ``dynamic_tau``,
``streaming``, ``tradeoff``, ``participants`` and ``cohort`` has a ``theorem``: its assumptions, its lemmas
with their proofs, its statement as a sympy expression, LaTeX, and numbers to any precision. ``closed_forms``
has the theorems behind formulas for the best plan: a least value, and the expression that never falls below
it. ``monotone`` and ``convexity`` hold the lemmas that the exact solver of :mod:`coopt` relies on.

Examples
--------
>>> from coopt_bounds import THEOREMS, dynamite
>>> sorted(THEOREMS)
['adacoopt', 'best-batches', 'best-steps', 'best-steps-costly-rounds', 'best-steps-reciprocal', 'certified',
 'co-optimised', 'cohort', 'cohort-nonconvex', 'dynamic-tau', 'dynamite', 'dynamite-marginal', 'nonconvex',
 'participants', 'participants-nonconvex', 'relative-noise', 'same-batch', 'streaming', 'tradeoff']
>>> dynamite.theorem.statement.lhs
E_K
>>> dynamite.FIXED_POINT.claim
rho >= (-beta*eta/2 + 1)/(eta*tau)
>>> dynamite.FIXED_POINT.check()  # silence is a proof
"""

from __future__ import annotations

from coopt_bounds import (
    adacoopt,
    certified,
    closed_forms,
    cohort,
    convexity,
    dynamic_tau,
    dynamite,
    monotone,
    nonconvex,
    participants,
    relative_noise,
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
    "certified",
    "closed_forms",
    "cohort",
    "convexity",
    "dynamic_tau",
    "dynamite",
    "monotone",
    "nonconvex",
    "participants",
    "relative_noise",
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
    )
}
"""Every theorem by name."""

LEMMAS: dict[str, Lemma] = {
    lemma.name: lemma
    for lemma in (
        *(lemma for theorem in THEOREMS.values() for lemma in theorem.lemmas),
        *monotone.LEMMAS,
        *convexity.LEMMAS,
    )
}
"""Every lemma by name."""

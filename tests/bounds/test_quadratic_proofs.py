"""The proofs about quadratics: a lemma with one thing wrong is caught, and matrices do not commute."""

from __future__ import annotations

import dataclasses

import pytest
import sympy as sp

from coopt_bounds import (
    THEOREMS,
    ProofError,
    device_draws,
    krylov,
    matrices,
    quadratic_momentum,
    quadratic_monotone,
    quadratic_noise,
    quadratic_rounds,
    quadratic_sampling,
)
from coopt_bounds.algebra import at_least, at_most, equal, nonnegative, vanishes
from coopt_bounds.proof import Combine, Identity, term


def mutants():
    """(what is wrong, lemma) with one thing wrong in each."""

    def with_claim(lemma, claim):
        *before, last = lemma.steps
        return dataclasses.replace(lemma, steps=(*before, dataclasses.replace(last, conclusion=claim)))

    def without(lemma, words):
        kept = tuple(a for a in lemma.hypotheses if words not in a.words)
        assert len(kept) == len(lemma.hypotheses) - 1
        return dataclasses.replace(lemma, hypotheses=kept)

    def identity(lemma, right):
        *before, last = lemma.steps
        return dataclasses.replace(lemma, steps=(*before, Identity(last.left, right)))

    def turned(lemma):
        claim = lemma.claim
        return with_claim(lemma, claim.func(claim.rhs, claim.lhs, evaluate=False))

    m, dd, qr, qs, qm, mono, n = (
        matrices,
        device_draws,
        quadratic_rounds,
        quadratic_sampling,
        quadratic_momentum,
        quadratic_monotone,
        quadratic_noise,
    )
    yield "powers summed without the first", without(m.SUM_OF_POWERS, "it starts at 0")
    yield "a map without its start", without(m.AFFINE_MAP, "x(0) = x_0")
    yield "noise before the first step", without(m.SANDWICH, "no noise at the start")
    yield "powers of any matrix symmetric", without(m.POWER_SYMMETRIC, "is symmetric")
    yield "blocks that do not commute", without(m.BLOCKS_COMMUTE, "commutes with B_21")
    yield "blocks symmetric without commuting", without(m.BLOCKS_SYMMETRIC, "with Y = B_12")
    yield (
        "a step uphill",
        identity(qr.LOCAL_STEP, (1 + qr.eta * qr.H) * qr.z - qr.eta * qr.g),
    )
    yield (
        "the gradient of weight decay left out",
        identity(qr.WEIGHT_DECAY, qr.g + (qr.H + qr.decay) * qr.z),
    )
    yield "noise that follows the past", without(qr.LOCAL_NOISE, "mean zero whatever")
    yield (
        "the rate not squared",
        with_claim(
            qr.LOCAL_NOISE, qr.LOCAL_NOISE.claim.subs(qr.eta**2 * qr.C, qr.eta * qr.C, simultaneous=True)
        ),
    )
    yield "an average of maps without their shifts", without(qr.AVERAGE, "v, the sum of p_i f_i: one")
    yield "M symmetric whatever the devices", without(qr.SYMMETRIC, "symmetric-power")
    yield (
        "phases in the other order",
        identity(qr.PHASES_MEAN, (qr.M1 * qr.M2) * qr.z - (qr.M2 * qr.v1 + qr.v2)),
    )
    yield (
        "noise of the first phase untouched by the second",
        identity(qr.PHASES_NOISE, (qr.M2 * qr.M1) * qr.S0 * (qr.M1 * qr.M2) + (qr.P1 + qr.P2)),
    )
    yield "a biased deviation", without(qr.LOSS, "mean zero")
    yield (
        "the whole trace in place of half",
        with_claim(qr.LOSS, equal(qr.error, qr.offset + 2 * qr.noise)),
    )
    yield "a point that is no minimum", without(qr.OPTIMUM, "is a minimum")
    yield "noise that is not split", without(qr.AFFINE, "trace is linear")
    yield "a statement without noise", with_claim(qr.STATEMENT, equal(qr.error, qr.offset))
    yield "distinct samples as if fresh", with_claim(qr.DISTINCT_STATEMENT, qr.STATEMENT.claim)
    yield (
        "the divisor d - 1 with replacement",
        with_claim(n.WITH_REPLACEMENT, equal(n.entry, n.entry_d1 / n.s)),
    )
    yield (
        "the divisor d without replacement",
        with_claim(
            n.WITHOUT_REPLACEMENT,
            equal(n.d * n.s * (n.d - 1) * n.entry, n.d * (n.d - n.s) * n.entry_d1),
        ),
    )
    yield "deviations around another mean", without(n.WITHOUT_REPLACEMENT, "add up to zero")
    yield (
        "distinct devices as if independent",
        with_claim(dd.DISTINCT, equal(dd.entry, dd.N / dd.c * dd.squares)),
    )
    yield "changes that do not add up", without(dd.DISTINCT, "add up to zero")
    yield (
        "deviation from zero in place of the mean",
        identity(qs.DEVIATION, dd.p_i * qs.B * qs.z - dd.p_i * qs.v_i),
    )
    yield "second moments around a wrong mean", without(qs.SECOND_MOMENT, "the same, transposed")
    yield (
        "the mean change forgotten",
        with_claim(qs.SECOND_MOMENT, equal(qs.moment, qs.D * qs.S * qs.D)),
    )
    yield "draws with weights that do not sum to one", without(dd.DRAWS, "sum to one")
    yield (
        "noise of distinct devices as with all",
        with_claim(dd.NOISE_DISTINCT, equal(dd.noise_out, dd.p_i**2 * dd.noise_in)),
    )
    yield (
        "noise of draws with squared weights",
        with_claim(dd.NOISE_DRAWS, equal(dd.noise_out, dd.p_i**2 / dd.c * dd.noise_in)),
    )
    yield "no noise of the draw", without(qs.COVARIANCE_DISTINCT, "device-draws/distinct and")
    yield "the mean change not taken off", without(qs.COVARIANCE_DRAWS, "for the mean change")
    yield (
        "training once as quiet as twice",
        with_claim(dd.NOISE_ONCE, equal(dd.noise_out, dd.p_i / dd.c * dd.noise_in)),
    )
    yield "normalised weights unbiased", identity(dd.NORMALISED, sp.S.Zero)
    yield "what the draw adds left out", without(qs.AFFINE, "R adds up")
    yield (
        "a statement without the draw",
        with_claim(qs.STATEMENT, equal(qs.error, qs.offset + qr.fresh_noise)),
    )
    yield (
        "momentum that forgets its buffer",
        identity(qm.CLIENT_STEP, (1 - qm.eta * qm.H) * qm.z - qm.eta * (qm.g + qm.xi)),
    )
    yield "three terms without the buffer", without(qm.THREE_TERMS, "beside it")
    yield (
        "Nesterov as heavy ball",
        identity(
            qm.NESTEROV_STEP,
            (1 + qm.gamma * qm.B) * qm.z + qm.gamma * qm.beta_s * qm.u + qm.gamma * (qm.xi - qm.v),
        ),
    )
    yield "a response of unsymmetric blocks", without(qm.RESPONSE_SYMMETRIC, "at t = 0")
    yield "noise falls in rounds", turned(mono.ROUNDS)
    yield "noise of a round falls in local steps", turned(mono.LOCAL_STEPS)
    yield "a floor from more local steps", turned(mono.NOISE_FLOOR)
    yield "terms fall for any ratio", without(mono.TERM_FALLS, "r <= 1")
    yield "terms rise for any ratio", without(mono.TERM_RISES, "r >= 1")
    yield "an odd power of a negative ratio", identity(mono.PARITY, mono.c * mono.x * (mono.x**2) ** mono.n)
    yield "an interval below its terms", turned(mono.INTERVAL)
    yield "no negative eigenvalue at any rate", without(mono.NONNEGATIVE, "eta lambda <= 1")
    yield "batches that need not fit at fewer rounds", without(mono.BEST_NOISE, "fit at K_1")
    yield "powers outside the basis", without(krylov.POWERS, "is in the basis, for")
    yield "directions that are not orthonormal", without(krylov.MOMENTS, "orthonormal")
    yield "iterates beyond m steps", without(krylov.ITERATES, "after n + 1 <= m steps")
    yield "a tail with other binomials", without(krylov.TAIL, "ratio of binomials")
    yield "derivatives with other binomials", without(krylov.DERIVATIVES, "binom(r + 1 + k, k)")
    yield "odd tails", identity(krylov.EVEN, -(krylov.below ** (2 * krylov.k - 1)))
    yield "no sign of the derivative", without(krylov.STATEMENT, "krylov/sign")
    yield "the model above the truth", turned(krylov.STATEMENT)
    yield "a deficit without the least loss", without(krylov.DEFICIT, "conjugate gradients")


@pytest.mark.parametrize(("what", "lemma"), list(mutants()), ids=[what for what, _ in mutants()])
def test_broken_lemma_is_caught(what, lemma):
    with pytest.raises(ProofError):
        lemma.check()


class TestMatricesInProofs:
    A, B = sp.symbols("A B", commutative=False)
    x = sp.Symbol("x", nonnegative=True)

    def test_products_keep_their_order(self):
        assert vanishes((self.A + self.B) ** 2 - self.A**2 - self.A * self.B - self.B * self.A - self.B**2)
        assert not vanishes((self.A + self.B) ** 2 - self.A**2 - 2 * self.A * self.B - self.B**2)
        assert not vanishes((self.A * self.B) ** 2 - self.A**2 * self.B**2)

    def test_a_matrix_is_never_visibly_nonnegative(self):
        assert not nonnegative(self.A**2) and not nonnegative(self.x * self.A)

    def test_equations_are_multiplied_from_the_side_that_is_said(self):
        fact = equal(self.A, self.B)
        Combine(equal(self.A * self.B, self.B**2), (term(1, fact, right=self.B),)).check([fact])
        with pytest.raises(ProofError, match="add up"):
            Combine(equal(self.A * self.B, self.B**2), (term(self.B, fact),)).check([fact])

    def test_inequalities_are_not_multiplied_from_the_right(self):
        fact = at_least(self.x, 1)
        with pytest.raises(ProofError, match="from the right"):
            Combine(at_most(-self.x, -1), (term(1, fact, right=-1),)).check([fact])


@pytest.mark.parametrize("name", [name for name, theorem in THEOREMS.items() if theorem.exact])
def test_an_equation_is_not_claimed_by_an_inequality(name):
    theorem = THEOREMS[name]
    assert isinstance(theorem.statement, sp.Eq) and r"&\le" not in theorem.to_latex()
    *before, last = theorem.lemmas
    weaker = Combine(at_most(last.claim.lhs, last.claim.rhs), (term(-1, last.claim),))
    inequality = dataclasses.replace(last, steps=(*last.steps, weaker))
    inequality.check()
    with pytest.raises(ProofError, match="does not claim"):
        dataclasses.replace(theorem, lemmas=(*before, inequality)).check()

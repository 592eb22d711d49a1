"""Every lemma proves itself, and a lemma with one thing wrong is caught."""

from __future__ import annotations

import dataclasses

import pytest
import sympy as sp

from coopt_bounds import (
    LEMMAS,
    THEOREMS,
    ProofError,
    certified,
    cohort,
    descent,
    drift,
    monotone,
    participants,
    published_drift,
)
from coopt_bounds.__main__ import main
from coopt_bounds.algebra import at_least, at_most, equal, nonnegative, vanishes
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, Grow, Identity, Induct, Root, Substitute, SumOver, term
from coopt_bounds.symbols import D0, eta, q


@pytest.mark.parametrize("name", LEMMAS)
def test_lemma_is_proved(name):
    LEMMAS[name].check()


@pytest.mark.parametrize("name", THEOREMS)
def test_last_lemma_claims_the_statement(name):
    theorem = THEOREMS[name]
    assert theorem.lemmas[-1].claim.rhs == theorem.bound or vanishes(
        theorem.lemmas[-1].claim.rhs - theorem.bound
    )
    theorem.check()


def test_names_and_numbers_are_unique():
    assert len({theorem.number for theorem in THEOREMS.values()}) == len(THEOREMS)
    assert all(LEMMAS[lemma.name] is lemma for theorem in THEOREMS.values() for lemma in theorem.lemmas)


def mutants():
    """(name, lemma) with one thing wrong in each."""

    def with_claim(lemma, claim):
        *before, last = lemma.steps
        return dataclasses.replace(lemma, steps=(*before, dataclasses.replace(last, conclusion=claim)))

    def without(lemma, hypothesis):
        kept = tuple(a for a in lemma.hypotheses if a is not hypothesis)
        assert len(kept) == len(lemma.hypotheses) - 1
        return dataclasses.replace(lemma, hypotheses=kept)

    step = descent.STEP
    yield "contraction twice as fast", with_claim(step, step.claim.subs(descent.c, 2 * descent.c))
    yield "noise halved", with_claim(step, step.claim.subs(descent.sigma2, descent.sigma2 / 2))
    yield "no Polyak-Lojasiewicz inequality", without(step, descent.polyak)
    yield "no step-size limit", without(descent.GRADIENT_STEP, descent.short_step)
    yield "no upper limit of gamma", without(descent.CONTRACTION, descent.gamma_range)
    yield (
        "drift grows by r only",
        with_claim(drift.RECURSION, at_most(drift.e_next**2, (drift.r * drift.e) ** 2 + eta**2 * drift.nu2)),
    )
    yield "no limit on eta for the local map", without(drift.CONTRACTION, drift.step_limit)
    young = drift.YOUNG
    yield (
        "Young without the cross term's price",
        with_claim(young, at_most((drift.x + drift.y) ** 2, drift.x**2 + (1 + 1 / drift.z) * drift.y**2)),
    )
    yield (
        "floor falls in tau",
        with_claim(monotone.DRIFT_AVERAGE_RISES, at_most(monotone.A(monotone.k + 1), monotone.A(monotone.k))),
    )
    yield (
        "K helps above the floor",
        with_claim(
            monotone.IN_ROUNDS_REVERSED,
            at_most(
                monotone.Q_more * D0 + (1 - monotone.Q_more) * monotone.G,
                monotone.Q * D0 + (1 - monotone.Q) * monotone.G,
            ),
        ),
    )
    square = monotone.TANGENT.claim
    yield "the tangent from above", with_claim(monotone.TANGENT, at_most(square.lhs, square.rhs))
    yield (
        "bias for nothing",
        with_claim(monotone.PRICE_OF_BIAS, at_least(monotone.PRICE_OF_BIAS.claim.lhs, 0)),
    )
    yield (
        "sign of a certificate",
        dataclasses.replace(
            young, steps=(Combine(young.claim, (term(-((drift.z * drift.x - drift.y) ** 2) / drift.z),)),)
        ),
    )
    yield (
        "h(1) = 1",
        dataclasses.replace(
            published_drift.AT_ONE, steps=(Identity(published_drift.published_drift(sp.S.One), sp.S.One),)
        ),
    )
    drawn = participants.SAMPLING_RISES
    yield "sampling falls back with fewer steps", without(drawn, drawn.hypotheses[3])
    yield (
        "ratio below that of progress",
        without(participants.RATIO_RISES, participants.RATIO_RISES.hypotheses[0]),
    )
    yield (
        "sampling variance over m^2",
        with_claim(
            participants.WITH_REPLACEMENT, equal(participants.xi2, participants.spread / participants.m**2)
        ),
    )
    yield (
        "distinct devices as if independent",
        with_claim(
            participants.WITHOUT_REPLACEMENT,
            equal(
                participants.m * (participants.N - 1) * participants.xi2,
                (participants.N - 1) * participants.spread,
            ),
        ),
    )
    yield (
        "a draw that looks at the models",
        without(participants.ROUND_END, participants.ROUND_END.hypotheses[1]),
    )
    yield (
        "noise of the last step left out",
        with_claim(participants.END_DRIFT, participants.END_DRIFT.claim.subs(drift.nu2, 0)),
    )
    yield "bias without its own sum", without(cohort.BIAS, cohort.BIAS.hypotheses[0])
    yield "bias of weights that do not sum to one", without(cohort.BALANCE, cohort.BALANCE.hypotheses[0])
    yield (
        "bias beside the coupling, not within its square",
        with_claim(
            cohort.COUPLING,
            at_most(
                cohort.COUPLING.claim.lhs,
                cohort.COUPLING.claim.rhs.subs(cohort.bias, 0) + cohort.bias**2,
            ),
        ),
    )
    for statement in (cohort.STATEMENT, cohort.NONCONVEX_STATEMENT):
        yield f"{statement.name} without bias", with_claim(statement, statement.claim.subs(cohort.bias, 0))
    for statement in (participants.STATEMENT, participants.NONCONVEX_STATEMENT):
        yield (
            f"{statement.name} without sampling",
            with_claim(statement, statement.claim.subs(participants.kappa, 0)),
        )
    (induction,) = drift.SPLIT.steps
    yield (
        "induction without a start",
        dataclasses.replace(drift.SPLIT, steps=(dataclasses.replace(induction, base=()),)),
    )
    yield (
        "induction without its last step",
        dataclasses.replace(drift.SPLIT, steps=(dataclasses.replace(induction, step=induction.step[:-1]),)),
    )
    yield (
        "statement with drift left out",
        dataclasses.replace(
            certified.STATEMENT,
            steps=(
                dataclasses.replace(
                    certified.STATEMENT.steps[0],
                    conclusion=at_most(
                        certified.error,
                        q ** (descent.eta * 0) * D0 + certified.rounds_factor * certified.noise_floor,
                    ),
                ),
            ),
        ),
    )


@pytest.mark.parametrize(("what", "lemma"), list(mutants()), ids=[what for what, _ in mutants()])
def test_broken_lemma_is_caught(what, lemma):
    with pytest.raises(ProofError):
        lemma.check()


def test_theorem_whose_statement_drifted_from_its_proof_is_caught():
    wrong = dataclasses.replace(certified.theorem, bound=certified.theorem.bound / 2)
    with pytest.raises(ProofError, match="does not claim"):
        wrong.check()


class TestRules:
    x = sp.Symbol("x", nonnegative=True)
    y = sp.Symbol("y", real=True)
    n = sp.Symbol("n", integer=True, nonnegative=True)

    def test_unknown_facts_cannot_be_used(self):
        with pytest.raises(ProofError, match="neither"):
            Combine(at_least(self.y, 0), (term(1, at_least(self.y, 0)),)).check([])

    def test_signs_must_be_visible(self):
        fact = at_least(self.y, 0)
        with pytest.raises(ProofError, match="visibly nonnegative"):
            Combine(at_least(-self.y, 0), (term(-1, fact),)).check([fact])

    def test_equations_come_from_equations_alone(self):
        fact = at_least(self.y, 0)
        with pytest.raises(ProofError, match="equation"):
            Combine(equal(self.y, 0), (term(1, fact),)).check([fact])

    def test_root_needs_a_nonnegative_larger_side(self):
        squared = at_least(self.y**2, self.x**2)
        with pytest.raises(ProofError, match="visibly"):
            Root(at_least(self.y, self.x), squared).check([squared])

    def test_growth_needs_the_start_and_the_slope(self):
        slope = at_least(sp.S.One, 0)
        Grow(at_least(self.x, 0), self.x, slope).check([slope])
        with pytest.raises(ProofError, match="not clear"):
            Grow(at_least(self.x - 1, 0), self.x, slope).check([slope])
        with pytest.raises(ProofError, match="derivative"):
            Grow(at_least(self.x**2, 0), self.x, slope).check([slope])

    def test_replacement_keeps_assumptions(self):
        fact = at_least(self.x, 0)
        with pytest.raises(ProofError, match="visibly"):
            Substitute(fact, {self.x: self.y}).check([fact])
        fact = at_least(self.n, 0)
        with pytest.raises(ProofError, match="integer"):
            Substitute(fact, {self.n: self.x}).check([fact])

    def test_sums_need_nonnegative_weights(self):
        i = sp.Symbol("i", integer=True, positive=True)
        v = sp.IndexedBase("v", real=True)
        fact = at_least(v[i], 0)
        with pytest.raises(ProofError, match="weight"):
            SumOver(fact, v[i], sp.Tuple(i, 1, 3)).check([fact])

    def test_induction_needs_a_declared_index(self):
        with pytest.raises(ProofError, match="declared"):
            Induct(at_least(self.y, 0), self.y, 0, (), ()).check([])

    def test_induction_hypothesis_stays_at_its_index(self):
        f = sp.Function("f", real=True)
        claim, start = at_least(f(self.n), 0), at_least(f(0), 0)
        circular = Substitute(claim, {self.n: self.n + 1})
        with pytest.raises(ProofError, match="beyond"):
            Induct(claim, self.n, 0, (Combine(start, (term(1, start),)),), (circular,)).check([start])

    def test_growth_needs_a_free_variable(self):
        slope = at_least(self.x - 5, 0)
        wrong = Lemma(
            "rule/grow",
            "x^2/2 - 5x + 1 >= 0 for x >= 5 does not follow from its slope there",
            (Assumption("x >= 5", slope),),
            (Grow(at_least(self.x**2 / 2 - 5 * self.x + 1, 0), self.x, slope),),
        )
        with pytest.raises(ProofError, match="restricts"):
            wrong.check()

    def test_a_lemma_applies_only_where_its_hypotheses_hold(self):
        hypothesis = at_least(self.y, 1)
        lemma = Lemma(
            "rule/apply",
            "y >= 0 if y >= 1",
            (Assumption("y >= 1", hypothesis),),
            (Combine(at_least(self.y, 0), (term(1, hypothesis), term(1))),),
        )
        Apply(lemma).check([hypothesis])
        with pytest.raises(ProofError, match="needs"):
            Apply(lemma).check([])

    def test_visible_signs_are_only_claimed_where_they_hold(self):
        assert nonnegative((self.y - 1) ** 2 * sp.exp(self.y)) and nonnegative(sp.exp(self.x) - 1)
        assert (
            not nonnegative(sp.exp(self.y) - 1) and not nonnegative(self.y**3) and not nonnegative(1 - self.x)
        )

    def test_zero_is_only_claimed_where_it_holds(self):
        assert vanishes((self.y + 1) ** 2 - self.y**2 - 2 * self.y - 1)
        assert not vanishes(sp.Abs(self.y) - self.y) and not vanishes(self.y - sp.Float("1e-30") - self.y)


def test_command_line_reports_each_lemma_once(capsys, monkeypatch):
    chosen = {name: LEMMAS[name] for name in ("drift/young", "descent/young")}
    monkeypatch.setattr("coopt_bounds.__main__.LEMMAS", chosen)
    monkeypatch.setattr("coopt_bounds.__main__.THEOREMS", {})
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[-1] == "2 lemmas, 0 theorems, 0 failed"
    (what, broken), *_ = mutants()
    monkeypatch.setattr("coopt_bounds.__main__.LEMMAS", {what: broken})
    assert main(["check"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_command_line_prints_latex(capsys):
    assert main(["latex", "dynamite"]) == 0
    printed = capsys.readouterr().out
    assert r"\tag{P}" in printed and r"\sigma^{2}" in printed and r"\sigma_{2}" not in printed

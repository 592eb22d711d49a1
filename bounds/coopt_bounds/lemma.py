"""Assumptions, lemmas and theorems: frozen values that check themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import sympy as sp

from coopt_bounds.algebra import gap, latex, nonnegative, vanishes
from coopt_bounds.proof import Grow, ProofError, Step, replaced, run


@dataclass(frozen=True)
class Assumption:
    """What is taken as given.

    Parameters
    ----------
    words : str
        The assumption in words; for an analytic fact (smoothness, Jensen's inequality) also its name.
    relation : sympy relation, optional
        The same in symbols; ``None`` where it has no algebraic content that a proof uses.
    """

    words: str
    relation: sp.Rel | None = None


@dataclass(frozen=True)
class Lemma:
    """A claim, what it rests on, and the steps that lead there.

    Parameters
    ----------
    name : str
        Unique name, ``file/claim``.
    words : str
        The claim in words and why it matters.
    hypotheses : tuple of Assumption
        What the steps may use.
    steps : tuple of Step
        The proof; the last step concludes the claim.
    source : str
        Where the argument comes from.
    """

    name: str
    words: str
    hypotheses: tuple[Assumption, ...]
    steps: tuple[Step, ...]
    source: str = ""

    @property
    def claim(self) -> sp.Rel:
        """The relation that the lemma establishes."""
        return self.steps[-1].conclusion

    @property
    def relations(self) -> tuple[sp.Rel, ...]:
        """The hypotheses that have a symbolic form."""
        return tuple(a.relation for a in self.hypotheses if a.relation is not None)

    def check(self) -> None:
        """Re-prove the claim from the hypotheses.

        Raises
        ------
        ProofError
            Names the lemma, the step and what does not follow.
        """
        known = list(self.relations)
        for number, step in enumerate(self.steps, start=1):
            try:
                self._require_free(step)
                known = run((step,), known)
            except ProofError as error:
                raise ProofError(f"{self.name}, step {number}: {error}") from error

    def _require_free(self, step: Step) -> None:
        """A slope must be known on the whole way from 0: no hypothesis may restrict its variable."""
        if isinstance(step, Grow) and any(step.variable in r.free_symbols for r in self.relations):
            raise ProofError(f"a hypothesis restricts {step.variable}")

    def to_latex(self) -> str:
        r"""The claim and its hypotheses as LaTeX."""
        lines = [rf"\textbf{{{self.name}.}} {self.words}"]
        lines += [rf"\[ {latex(relation)} \tag{{hypothesis}} \]" for relation in self.relations]
        lines.append(rf"\[ {latex(self.claim)} \]")
        return "\n".join(lines)


@cache
def _checked(lemma: Lemma) -> None:
    lemma.check()


def _holds(needed: sp.Rel, known: Sequence[sp.Rel]) -> bool:
    difference = gap(needed)
    evident = vanishes(difference) if isinstance(needed, sp.Eq) else nonnegative(sp.expand(difference))
    return evident or any(
        type(fact) is type(needed) and sp.expand(gap(fact) - difference) == sp.S.Zero for fact in known
    )


@dataclass(frozen=True)
class Apply:
    """The claim of an earlier lemma, with expressions in place of its symbols.

    Its hypotheses, with the same replacement, must be known by then.
    """

    lemma: Lemma
    replacement: Mapping[sp.Basic, sp.Basic] = field(default_factory=dict, hash=False)

    @property
    def conclusion(self) -> sp.Rel:
        """The lemma's claim after replacement."""
        claim = self.lemma.claim
        left, right = (
            side.subs(self.replacement, simultaneous=True).doit() for side in (claim.lhs, claim.rhs)
        )
        return claim.func(left, right, evaluate=False)

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Check the lemma, the replacement, and that each hypothesis is known."""
        _checked(self.lemma)
        for relation in self.lemma.relations:
            needed = replaced(relation, self.replacement, known)
            if not _holds(needed, known):
                raise ProofError(f"{self.lemma.name} needs {needed}")
        replaced(self.lemma.claim, self.replacement, known)

"""Dynamic-tau (Wang et al. 2019): the convergence bound behind its control objective G(tau).

Centralised gradient descent, restarted from the average every tau steps, closes the gap as 1/T; each
averaging costs rho h(tau). No mini-batch noise, no batch sizes: the bound chooses tau alone, within a time
budget.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import published_drift
from coopt_bounds.algebra import at_least, at_most
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, Induct, term
from coopt_bounds.published_drift import h
from coopt_bounds.symbols import Quantity, beta, delta, delta_sum, eta, rho, tau
from coopt_bounds.theorem import Theorem

phi = sp.Symbol("phi", positive=True)
T = sp.Symbol("T", positive=True)
gap = sp.Symbol("E_f", real=True)
drift = sp.Symbol("h", nonnegative=True)
epsilon = (1 + sp.sqrt(1 + 4 * eta * phi * T**2 * rho * drift / tau)) / (2 * eta * phi * T)
bound = epsilon.subs(drift, h) + rho * h

v, v_next, kappa = sp.symbols("v v_next kappa", positive=True)
_descends = Assumption(
    "one centralised step: v_next <= v - kappa v^2 with kappa = eta phi (convexity and smoothness)",
    at_most(v_next, v - kappa * v**2),
)
_falls = at_least(v, v_next)

INVERSE_STEP = Lemma(
    name="dynamic-tau/inverse-step",
    words="The inverse gap grows by at least eta phi per step.",
    hypotheses=(_descends,),
    steps=(
        Combine(_falls, (term(1, _descends.relation), term(kappa * v**2))),
        Combine(
            at_least(1 / v_next - 1 / v, kappa),
            (term(1 / (v * v_next), _descends.relation), term(kappa / v_next, _falls)),
        ),
    ),
    source="Wang et al. 2019 (arXiv 1804.05271), proof of Lemma 2",
)

w, floor = sp.symbols("w epsilon", positive=True)
_jump = Assumption(
    "averaging raises the gap by at most rho h (F is rho-Lipschitz)", at_most(w - v, rho * drift)
)
_v_above = Assumption("both gaps are at least epsilon", at_least(v, floor))
_w_above = Assumption("both gaps are at least epsilon", at_least(w, floor))

JUMP = Lemma(
    name="dynamic-tau/jump",
    words="Averaging lowers the inverse gap by at most rho h/epsilon^2.",
    hypotheses=(_jump, _v_above, _w_above),
    steps=(
        Combine(
            at_least(1 / w - 1 / v, -rho * drift / floor**2),
            (
                term(1 / (w * v), _jump.relation),
                term(rho * drift / (v * w * floor), _v_above.relation),
                term(rho * drift / (w * floor**2), _w_above.relation),
            ),
        ),
    ),
    source="Wang et al. 2019 (arXiv 1804.05271), proof of Lemma 2",
)

I = sp.Function("I", nonnegative=True)  # noqa: E741
_per_round = Assumption(
    "lemmas dynamic-tau/inverse-step (tau times) and dynamic-tau/jump: the inverse gap over a round",
    at_least(I(n + 1), I(n) + tau * eta * phi - rho * drift / floor**2),
)
_inverse = at_least(I(n), n * (tau * eta * phi - rho * drift / floor**2))
_nonnegative_start = Assumption("the inverse gap is nonnegative at the start", at_least(I(0), 0))

ROUNDS = Lemma(
    name="dynamic-tau/rounds",
    words="After K rounds the inverse gap is at least K (tau eta phi - rho h/epsilon^2) = T (eta phi - rho "
    "h/(tau epsilon^2)).",
    hypotheses=(_per_round, _nonnegative_start),
    steps=(
        Induct(
            _inverse,
            index=n,
            start=0,
            base=(
                Combine(
                    at_least(I(0), 0 * (tau * eta * phi - rho * drift / floor**2)),
                    (term(1, _nonnegative_start.relation),),
                ),
            ),
            step=(
                Combine(
                    at_least(I(n + 1), (n + 1) * (tau * eta * phi - rho * drift / floor**2)),
                    (term(1, _per_round.relation), term(1, _inverse)),
                ),
            ),
        ),
    ),
    source="Wang et al. 2019 (arXiv 1804.05271), Lemma 2",
)

ROOT = Lemma(
    name="dynamic-tau/root",
    words="epsilon_0, the first term of the bound, is the root of 1/epsilon = T (eta phi - rho h/(tau "
    "epsilon^2)).",
    hypotheses=(),
    steps=(
        Identity(
            epsilon**2 * T * eta * phi - epsilon - T * rho * drift / tau,
            sp.S.Zero,
        ),
    ),
    source="Wang et al. 2019 (arXiv 1804.05271), proof of Theorem 2",
)

_final, _best = sp.symbols("f_w f_v", real=True)
_either = Assumption(
    "lemmas dynamic-tau/rounds and dynamic-tau/root: the best centralised iterate at the end of a round has "
    "a gap of at "
    "most epsilon_0, since all gaps above epsilon > epsilon_0 would contradict each other",
    at_most(_best, epsilon.subs(drift, h)),
)
_close = Assumption("the averaged model is at most rho h above it", at_most(gap, _best + rho * h))

STATEMENT = Lemma(
    name="dynamic-tau/statement",
    words="The bound of Dynamic-tau; with T = the steps that the time budget allows it is the control "
    "objective G(tau).",
    hypotheses=(_either, _close),
    steps=(Combine(at_most(gap, bound), (term(1, _either.relation), term(1, _close.relation))),),
    source="Wang et al. 2019 (arXiv 1804.05271), Theorem 2",
)

R, t_local, t_global = sp.symbols("R t_local t_global", positive=True)
steps_in_budget = (R - t_local - t_global) * tau / (t_local * tau + t_global)
"""T' of the control objective: the local steps that a time budget R allows."""

BUDGET = Lemma(
    name="dynamic-tau/budget",
    words="K rounds of tau steps cost K (t_local tau + t_global): the budget less one evaluation allows T' "
    "= K tau steps.",
    hypotheses=(),
    steps=(
        Identity(
            steps_in_budget / tau * (t_local * tau + t_global) + t_local + t_global,
            R,
        ),
    ),
    source="Wang et al. 2019 (arXiv 1804.05271), section VI",
)

theorem = Theorem(
    name="dynamic-tau",
    title="Dynamic-tau: the control objective G(tau) of Wang et al.",
    number="W",
    citation="Wang et al., IEEE JSAC 37(6), 2019, arXiv 1804.05271, Theorem 2 and the control objective of "
    "section VI",
    assumptions=(
        Assumption("every F_i is convex, beta-smooth, and eta <= 1/beta", at_most(eta * beta, 1)),
        Assumption("F is rho-Lipschitz"),
        Assumption("||grad F_i - grad F|| <= delta_i everywhere; full local gradients, no mini-batch noise"),
        Assumption(
            "phi = omega (1 - eta beta/2), omega = min over rounds of 1/||v - w*||^2 for the centralised "
            "iterates: in "
            "practice a control parameter (0.025 for a smooth SVM, 5e-5 for a CNN in the paper)",
            sp.Gt(phi, 0, evaluate=False),
        ),
        Assumption("the best of the models at the end of the rounds is kept"),
    ),
    left=gap,
    bound=bound,
    definitions=((delta, delta_sum),),
    lemmas=(*published_drift.LEMMAS[:5], INVERSE_STEP, JUMP, ROUNDS, ROOT, BUDGET, STATEMENT),
    quantities=(
        Quantity(phi, "speed of centralised descent; a control parameter", "1/model distance^2"),
        Quantity(T, "local steps in all; T' of the control objective is steps_in_budget", "-"),
        Quantity(rho, "Lipschitz constant of F", "gradient"),
    ),
)

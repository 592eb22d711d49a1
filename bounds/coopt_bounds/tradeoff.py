"""The trade-off bound: curvature that couples drift to the averaged gradient cannot also feed drift.

It assumes what the certified bound assumes. Split the gradient change of every device, less the midpoint m of
the curvature range, into its mean x and the deviations y from it: the two are orthogonal, so
||x||^2 + ||y||^2 <= rho^2 ||e||^2 with rho = (beta - ell)/2. What disturbs the average (x) is missing from
what pushes the devices apart (y). A backward recursion of storage weights P_j prices both together; for the
same Young's parameters each price is at most that of the certified bound (``tradeoff/below-certified``).
"""

from __future__ import annotations

from typing import Any

import mpmath
import sympy as sp

from coopt_bounds import averaging, descent, unroll
from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.averaging import DEVICES, over_devices
from coopt_bounds.certified import assumptions as certified_assumptions
from coopt_bounds.certified import error
from coopt_bounds.geometric import MEANINGS, NUMERIC, G
from coopt_bounds.lemma import Apply, Assumption, Lemma
from coopt_bounds.proof import Combine, Induct, SumOver, term
from coopt_bounds.symbols import (
    D0,
    K,
    Quantity,
    beta,
    beta_d,
    beta_F,
    c,
    d_h,
    d_h_root,
    ell,
    eta,
    gamma,
    i,
    nu2,
    nu2_sum,
    p,
    q,
    sigma2,
    sigma2_sum,
    tau,
)
from coopt_bounds.theorem import Theorem

spread, alpha = sp.symbols("rho_c alpha_m", nonnegative=True)
"""rho = (beta - ell)/2, half the curvature range, and alpha = 1 - eta (beta + ell)/2."""
zeta, growth = sp.symbols("zeta g", positive=True)
C0, q0, Q = sp.symbols("C_0 q_0 Q", nonnegative=True)

# Orthogonal parts of the gradient change

_x2, _y2, _e2 = sp.symbols("x2 y2 e2", nonnegative=True)
_change2, _deviation2 = sp.IndexedBase("k2", nonnegative=True), sp.IndexedBase("u2", nonnegative=True)
_parts = Assumption(
    "lemma averaging/projection for the shifted gradient changes, summed over coordinates: their mean "
    "square is that "
    "of the mean x plus that of the deviations y",
    equal(over_devices(p[i] * _change2[i]), _x2 + _y2),
)
_lipschitz = Assumption(
    "lemma averaging/shifted-curvature along the segment from w_mean to w_i",
    at_most(_change2[i], spread**2 * _deviation2[i]),
)
_drift_is = Assumption("e2 is the drift", equal(_e2, over_devices(p[i] * _deviation2[i])))
_summed = SumOver(_lipschitz.relation, p[i], DEVICES)

PARTS = Lemma(
    name="tradeoff/parts",
    words="What couples and what feeds drift share one budget: x^2 + y^2 <= rho^2 e^2.",
    hypotheses=(_parts, _lipschitz, _drift_is),
    steps=(
        _summed,
        Combine(
            at_most(_x2 + _y2, spread**2 * _e2),
            (
                term(1, _summed.conclusion),
                term(1, _parts.relation),
                term(spread**2, _drift_is.relation),
            ),
        ),
    ),
    source="coopt",
)

# One local step, and the storage that pays for it

e, e_next, t, moved, n2 = sp.symbols("e e_next t m n2", nonnegative=True)
P_now, P_next, weight = sp.symbols("P P_next lambda", nonnegative=True)
_y = spread * t * e
_move = Assumption(
    "the mean move: a common linear map of norm alpha, the deviations y = rho t e, and gradients that "
    "differ by d_h",
    at_most(moved, alpha * e + eta * _y + eta * d_h),
)
_orthogonal = Assumption("the noise has conditional mean zero", equal(e_next**2, moved**2 + eta**2 * n2))
_noise = Assumption("lemma averaging/projected-noise", at_most(n2, nu2))
_drift = at_most(e_next**2, (alpha * e + eta * _y + eta * d_h) ** 2 + eta**2 * nu2)

DRIFT = Lemma(
    name="tradeoff/drift",
    words="One local step: e_next^2 <= (alpha e + eta y + eta d_h)^2 + eta^2 nu^2.",
    hypotheses=(_move, _orthogonal, _noise),
    steps=(
        Combine(
            _drift,
            (
                term(alpha * e + eta * _y + eta * d_h + moved, _move.relation),
                term(-1, _orthogonal.relation),
                term(eta**2, _noise.relation),
            ),
        ),
    ),
    source="coopt",
)

_budget = Assumption("lemma tradeoff/parts with y = rho t e", at_most(_x2 + _y**2, spread**2 * e**2))
price = (1 + zeta) * P_next * (alpha + eta * spread * t) ** 2 + weight * spread**2 * (1 - t**2)
_stored = Assumption("P is at least the price of every t in [0, 1]", at_least(P_now, price))
_drift_known = Assumption("lemma tradeoff/drift", _drift)

STORAGE = Lemma(
    name="tradeoff/storage",
    words="Storage P pays for the coupling of this step and the storage that the next one needs: P_next "
    "e_next^2 + "
    "lambda x^2 <= P e^2 + P_next eta^2 ((1+1/zeta) d_h^2 + nu^2).",
    hypotheses=(_budget, _stored, _drift_known),
    steps=(
        Combine(
            at_most(
                P_next * e_next**2 + weight * _x2,
                P_now * e**2 + P_next * eta**2 * ((1 + 1 / zeta) * d_h**2 + nu2),
            ),
            (
                term(e**2, _stored.relation),
                term(weight, _budget.relation),
                term(P_next, _drift),
                term(P_next / zeta * (zeta * (alpha * e + eta * _y) - eta * d_h) ** 2),
            ),
        ),
    ),
    source="S-procedure, as in Lessard, Recht & Packard 2016, SIAM J. Optim. 26(1)",
)

# The price is maximal inside, or at t = 1

a, b, lost, excess = sp.symbols("A B L D", positive=True)
_price = a * (alpha + b * t) ** 2 + lost * (1 - t**2)
_excess = Assumption("D = L - A B^2", equal(lost, excess + a * b**2))
_inside = a * alpha * b / excess

PEAK = Lemma(
    name="tradeoff/peak",
    words="Where D = L - A B^2 > 0, A (alpha + B t)^2 + L (1 - t^2) is at most its value at t = A alpha B/D.",
    hypotheses=(_excess,),
    steps=(
        Combine(
            at_most(_price, a * alpha**2 + lost + (a * alpha * b) ** 2 / excess),
            (term(excess * (t - _inside) ** 2), term(t**2, _excess.relation)),
        ),
    ),
    source="completing the square",
)
_short = Assumption("t <= 1", at_most(t, 1))
_beyond = Assumption("the peak is at t = 1 or beyond: A alpha B >= D", at_least(a * alpha * b, excess))

END = Lemma(
    name="tradeoff/end",
    words="Where that t is 1 or more, the price is at most its value at t = 1, A (alpha + B)^2.",
    hypotheses=(_excess, _short, _beyond),
    steps=(
        Combine(
            at_most(_price, a * (alpha + b) ** 2),
            (
                term(2, _short.relation, _beyond.relation),
                term(excess, _short.relation, _short.relation),
                term(-(1 - t**2), _excess.relation),
            ),
        ),
    ),
    source="calculus",
)
_steep = Assumption("A B^2 >= L", at_least(a * b**2, lost))

END_STEEP = Lemma(
    name="tradeoff/end-steep",
    words="Where L <= A B^2 as well: the price grows all the way to t = 1.",
    hypotheses=(_short, _steep),
    steps=(
        Combine(
            at_most(_price, a * (alpha + b) ** 2),
            (
                term(2 * a * alpha * b, _short.relation),
                term(1 + t, _short.relation, _steep.relation),
            ),
        ),
    ),
    source="calculus",
)

DOMINATES = Lemma(
    name="tradeoff/below-certified",
    words="The price of every t is at most that of the certified bound, which takes t = 1 for drift and t = "
    "0 for "
    "coupling: (1+zeta) P_next r^2 + lambda rho^2 with r = alpha + eta rho = 1 - eta ell.",
    hypotheses=(_short,),
    steps=(
        Combine(
            at_most(price, (1 + zeta) * P_next * (alpha + eta * spread) ** 2 + weight * spread**2),
            (
                term(
                    (1 + zeta) * P_next * eta * spread * (2 * alpha + eta * spread * (1 + t)), _short.relation
                ),
                term(weight * spread**2 * t**2),
            ),
        ),
    ),
    source="coopt",
)

# A round

k = sp.Symbol("k", integer=True, positive=True)
E2, P, paid, added = (sp.Function(name, nonnegative=True) for name in ("e2", "P", "S_x", "S_n"))
cost, input_ = sp.Function("lambda_x2", nonnegative=True), sp.Function("input", nonnegative=True)
_stored_step = Assumption(
    "lemma tradeoff/storage for step k >= 1, with lambda_x2(k) = lambda_k E x_k^2 and input(k) = P_{k+1} "
    "eta^2 "
    "((1+1/zeta_k) d_h^2 + nu^2)",
    at_most(P(k + 1) * E2(k + 1) + cost(k), P(k) * E2(k) + input_(k)),
)
_paid = (
    Assumption("S_x(k) is the sum of lambda_x2 over steps 1 ... k-1", equal(paid(1), 0)),
    Assumption("S_x(k) is the sum of lambda_x2 over steps 1 ... k-1", equal(paid(k + 1), paid(k) + cost(k))),
)
_added = (
    Assumption("S_n(k) is the sum of input over steps 1 ... k-1", equal(added(1), 0)),
    Assumption("S_n(k) is the sum of input over steps 1 ... k-1", equal(added(k + 1), added(k) + input_(k))),
)
_so_far = at_most(P(k) * E2(k) + paid(k), P(1) * E2(1) + added(k))

TELESCOPE = Lemma(
    name="tradeoff/telescope",
    words="Over a round all coupling is paid by the storage at step 1 and the inputs: with P_tau = 0, "
    "sum_j lambda_j E x_j^2 <= P_1 E e_1^2 + sum of inputs.",
    hypotheses=(_stored_step, *_paid, *_added),
    steps=(
        Induct(
            _so_far,
            index=k,
            start=1,
            base=(
                Combine(
                    at_most(P(1) * E2(1) + paid(1), P(1) * E2(1) + added(1)),
                    (term(-1, _paid[0].relation), term(1, _added[0].relation)),
                ),
            ),
            step=(
                Combine(
                    at_most(P(k + 1) * E2(k + 1) + paid(k + 1), P(1) * E2(1) + added(k + 1)),
                    (
                        term(1, _so_far),
                        term(1, _stored_step.relation),
                        term(-1, _paid[1].relation),
                        term(1, _added[1].relation),
                    ),
                ),
            ),
        ),
    ),
    source="telescoping sum",
)

_no_drift = (
    Assumption("before the first step there is no drift: u = grad F", equal(descent.U, descent.X)),
    Assumption("before the first step there is no drift: u = grad F", equal(descent.W, descent.X)),
)
first_contraction = 1 - eta * c * (2 - eta * beta_F)

FIRST_STEP = Lemma(
    name="tradeoff/first-step",
    words="The first step of a round has no drift and contracts by q_0 = 1 - eta c (2 - eta beta_F), as if "
    "gamma were 0.",
    hypotheses=(descent.smooth, descent.short_step, descent.polyak, *_no_drift),
    steps=(
        Combine(
            at_most(descent.f_next, first_contraction * descent.f + descent.step_noise),
            (
                term(1, descent.smooth.relation),
                term(eta, _no_drift[1].relation),
                term(-(eta**2) * beta_F / 2, _no_drift[0].relation),
                term(eta / 2, descent.polyak.relation),
                term(eta / 2, descent.short_step.relation, descent.polyak.relation),
            ),
        ),
    ),
    source="descent lemma",
)
_apply_step = Apply(descent.STEP, {beta_d: sp.S.One, descent.e2: descent.V})

COUPLED_STEP = Lemma(
    name="tradeoff/coupled-step",
    words="Every later step: f_next <= q f + C_0 x^2 + noise with x^2 = V, C_0 = (eta/2)[eta beta_F + "
    "(1-eta beta_F)/gamma].",
    hypotheses=tuple(a for a in descent.STEP.hypotheses if a is not descent.coupling),
    steps=(_apply_step,),
    source="lemma descent/step with the coupling error itself",
)

# The statement, with the zeta_j that suit drift growing by a factor g per step

storage_divergence = sp.Function("S_d", nonnegative=True)
"""``S_d(q, C_0, alpha, eta rho, rho, g, tau)``: P_1 + sum_{j=1}^{tau-1} (1+1/zeta_j) P_{j+1}."""
storage_noise = sp.Function("S_n", nonnegative=True)
"""``S_n(...)``: sum_{j=1}^{tau} P_j."""


def inverse_splits(growth: Any, steps: int) -> list[Any]:
    """1/zeta_j = g + g^2 + ... + g^j for j = 0, ..., steps - 1."""
    sums = [mpmath.mpf(0)]
    for _ in range(1, steps):
        sums.append(growth * (1 + sums[-1]))
    return sums


def storage(q: Any, C0: Any, alpha: Any, kappa: Any, rho: Any, growth: Any, tau: Any) -> list[Any]:
    """P_1, ..., P_tau for lambda_j = C_0 q^(tau-1-j), at mpmath's working precision."""
    steps = int(tau)
    splits = inverse_splits(growth, steps)
    weights = [mpmath.mpf(0)] * (steps + 1)
    for step in range(steps - 1, 0, -1):
        carried = (1 + 1 / splits[step]) * weights[step + 1]
        lost = C0 * q ** (steps - 1 - step) * rho**2
        inner, excess = carried * alpha * kappa, lost - carried * kappa**2
        share = inner / excess if inner < excess else mpmath.mpf(1)
        weights[step] = carried * (alpha + kappa * share) ** 2 + lost * (1 - share**2)
    return weights[1:]


def _divergence_number(*arguments: Any) -> Any:
    weights = storage(*arguments)
    splits = inverse_splits(arguments[5], len(weights))
    # splits[0] = 0: nothing is split before the first step
    return mpmath.fsum((1 + split) * weight for split, weight in zip(splits, weights, strict=True))


def _noise_number(*arguments: Any) -> Any:
    return mpmath.fsum(storage(*arguments))


NUMERIC.update({"S_d": _divergence_number, "S_n": _noise_number})
MEANINGS.update(
    {
        "S_d(q, C_0, alpha, eta rho, rho, g, tau)": "P_1 + sum of (1 + 1/zeta_j) P_(j+1) for 0 < j < tau: "
        "drift from divergence",
        "S_n(q, C_0, alpha, eta rho, rho, g, tau)": "sum of P_j for 0 < j <= tau: drift from noise",
    }
)

_arguments = (q, C0, alpha, eta * spread, spread, growth, tau)
drift_cost = eta**2 * (d_h**2 * storage_divergence(*_arguments) + nu2 * storage_noise(*_arguments))
bound = Q**K * D0 + (1 - Q**K) / (1 - Q) * (descent.step_noise * G(q, sp.S.One, tau) + drift_cost)

_f0, _f1, _f_end, _g1, _sx, _g2 = sp.symbols("f_0 f_1 f_tau G_1 S_x G_2", nonnegative=True)
_first = Assumption("lemma tradeoff/first-step", at_most(_f1, q0 * _f0 + descent.step_noise))
_later = Assumption(
    "lemma unroll/round for the tau - 1 later steps, with lambda_j = C_0 q^(tau-1-j)",
    at_most(_f_end, q ** (tau - 1) * _f1 + descent.step_noise * _g1 + _sx),
)
_powers = Assumption(
    "the sum of q^j over j < tau is that over j < tau - 1 and q^(tau-1)",
    equal(G(q, sp.S.One, tau), q ** (tau - 1) + _g1),
)
_e1 = Assumption(
    "the first step of a round drifts by e_1^2 <= eta^2 (d_h^2 + nu^2)",
    at_most(E2(1), eta**2 * (d_h**2 + nu2)),
)
_p1, _input_d, _input_n = sp.symbols("P_1 I_d I_n", nonnegative=True)
_telescoped = Assumption(
    "lemma tradeoff/telescope at tau with P_tau = 0; I_d, I_n are the sums of (1+1/zeta_j) P_{j+1} and of "
    "P_{j+1}",
    at_most(_sx, _p1 * E2(1) + eta**2 * (_input_d * d_h**2 + _input_n * nu2)),
)
_sd_is = Assumption("S_d = P_1 + I_d", equal(storage_divergence(*_arguments), _p1 + _input_d))
_sn_is = Assumption("S_n = P_1 + I_n", equal(storage_noise(*_arguments), _p1 + _input_n))

ROUND = Lemma(
    name="tradeoff/round",
    words="One round: f <= q_0 q^(tau-1) f_0 + noise + eta^2 (d_h^2 S_d + nu^2 S_n).",
    hypotheses=(_first, _later, _powers, _e1, _telescoped, _sd_is, _sn_is),
    steps=(
        Combine(
            at_most(
                _f_end, q0 * q ** (tau - 1) * _f0 + descent.step_noise * G(q, sp.S.One, tau) + drift_cost
            ),
            (
                term(1, _later.relation),
                term(q ** (tau - 1), _first.relation),
                term(descent.step_noise, _powers.relation),
                term(1, _telescoped.relation),
                term(_p1, _e1.relation),
                term(eta**2 * d_h**2, _sd_is.relation),
                term(eta**2 * nu2, _sn_is.relation),
            ),
        ),
    ),
    source="coopt",
)

_round_cost = descent.step_noise * G(q, sp.S.One, tau) + drift_cost
_rounds = Assumption(
    "lemma unroll/rounds with Q = q_0 q^(tau-1)", at_most(error, Q**K * D0 + _g2 * _round_cost)
)
_g2_closed = Assumption("lemma geometric/sum", equal(_g2, (1 - Q**K) / (1 - Q)))

STATEMENT = Lemma(
    name="tradeoff/statement",
    words="The trade-off bound.",
    hypotheses=(_rounds, _g2_closed),
    steps=(
        Combine(at_most(error, bound), (term(1, _rounds.relation), term(-_round_cost, _g2_closed.relation))),
    ),
    source="coopt",
)

theorem = Theorem(
    name="tradeoff",
    title="The trade-off bound: drift and its coupling share one budget of curvature",
    number="T",
    citation="coopt; the technique is that of Lessard, Recht & Packard 2016, SIAM J. Optim. 26(1)",
    assumptions=(
        *(a for a in certified_assumptions if "beta_d" not in a.words and a.words != "z > 0"),
        Assumption(
            "g > 0 sets 1/zeta_j = g + ... + g^j, Young's parameters; any zeta_j > 0 would do, and these are "
            "the best where drift without noise grows by the factor g per step",
            sp.Gt(growth, 0, evaluate=False),
        ),
    ),
    left=error,
    bound=bound,
    definitions=(
        (sigma2, sigma2_sum),
        (nu2, nu2_sum),
        (d_h, d_h_root),
        (q, descent.contraction),
        (q0, first_contraction),
        (Q, q0 * q ** (tau - 1)),
        (C0, eta / 2 * (eta * beta_F + descent.slowdown / gamma)),
        (spread, (beta - ell) / 2),
        (alpha, 1 - eta * (beta + ell) / 2),
    ),
    lemmas=(
        *averaging.LEMMAS,
        *descent.LEMMAS,
        PARTS,
        DRIFT,
        STORAGE,
        PEAK,
        END,
        END_STEEP,
        DOMINATES,
        TELESCOPE,
        FIRST_STEP,
        COUPLED_STEP,
        ROUND,
        unroll.ROUND,
        unroll.ROUNDS,
        STATEMENT,
    ),
    quantities=(
        Quantity(spread, "half the curvature range, (beta - ell)/2", "curvature"),
        Quantity(alpha, "1 - eta (beta + ell)/2", "-"),
        Quantity(C0, "weight of the squared coupling error in one step", "1/curvature"),
        Quantity(q0, "contraction of the first step of a round", "-"),
        Quantity(Q, "contraction of a round", "-"),
        Quantity(growth, "free positive number: the growth of drift that Young's parameters suit", "-"),
    ),
)

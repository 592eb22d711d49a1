"""The certified bound over streaming buffers: gradients that are biased by what the buffer holds.

A buffer that is not a uniform sample of the history biases every local gradient by at most G_i TV_i, the
diameter of the per-sample gradients times the total variation of :mod:`coopt_bounds.buffers`. The buffer's
own sampling variance is a heuristic on top (see the documentation): the model depends on the buffer, so no
theorem covers it.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import averaging, buffers, certified, descent, drift, geometric, unroll
from coopt_bounds.algebra import at_most, equal
from coopt_bounds.averaging import DEVICES, over_devices
from coopt_bounds.geometric import S_a, S_b
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, term
from coopt_bounds.symbols import (
    D0,
    K,
    Quantity,
    beta_d,
    beta_F,
    d_h,
    delta_i,
    ell,
    eta,
    gamma,
    i,
    nu2,
    p,
    q,
    r,
    tau,
    z,
)
from coopt_bounds.theorem import Theorem

y = sp.Symbol("y", positive=True)
bias, local_bias = sp.symbols("epsilon epsilon_h", nonnegative=True)
C0 = sp.Symbol("C_0", nonnegative=True)
diameter = sp.IndexedBase("G", nonnegative=True)
variation = sp.IndexedBase("TV", nonnegative=True)
weight_now = sp.IndexedBase("pk", nonnegative=True)

rounds_factor = certified.rounds_factor
steps_factor = (1 - q**tau) / (1 - q)
drift_sum = eta**2 * ((1 + z) * (d_h + local_bias) ** 2 * S_a(q, r, tau) + (1 + 1 / z) * nu2 * S_b(q, r, tau))
bound = q ** (K * tau) * D0 + rounds_factor * (
    certified.noise_floor + C0 * ((1 + y) * beta_d**2 * drift_sum + (1 + 1 / y) * bias**2 * steps_factor)
)

_apart, _norm, _G, _TV = sp.symbols("apart bias_norm G TV", nonnegative=True)
_mass = Assumption(
    "the bias is sum_i (P_i - 1/n) g_i: the surplus mass TV times the distance of two averages of "
    "per-sample gradients",
    equal(_norm, _TV * _apart),
)
_diameter = Assumption("two averages are at most the diameter G apart", at_most(_apart, _G))

BIAS = Lemma(
    name="streaming/bias",
    words="Gradient bias of a buffer <= G TV.",
    hypotheses=(_mass, _diameter),
    steps=(Combine(at_most(_norm, _G * _TV), (term(_TV, _diameter.relation), term(-1, _mass.relation))),),
    source="coopt",
)

_change = sp.IndexedBase("dp", real=True)
_local = sp.IndexedBase("g", real=True)
_mean = sp.Symbol("g_mean", real=True)
_no_change = Assumption(
    "weights in force and weights of the history both sum to one", equal(over_devices(_change[i]), 0)
)

WEIGHTS = Lemma(
    name="streaming/weights",
    words="Weights p_i(k) other than those of the history bias the averaged gradient by sum (p_i(k) - "
    "p_i)(grad F_i - "
    "grad F), at most sum |p_i(k) - p_i| delta_i.",
    hypotheses=(_no_change,),
    steps=(
        Combine(
            equal(over_devices(_change[i] * _local[i]), over_devices(_change[i] * (_local[i] - _mean))),
            (term(_mean, _no_change.relation),),
        ),
    ),
    source="coopt",
)

_e, _root_v = sp.symbols("e V_root", nonnegative=True)
_error = Assumption(
    "the mean direction is off by the coupling error and by the bias", at_most(_root_v, beta_d * _e + bias)
)
_total = at_most(_root_v**2, (beta_d * _e + bias) ** 2)

COUPLING = Lemma(
    name="streaming/coupling",
    words="V <= (beta_d e + epsilon)^2 <= (1+y) beta_d^2 e^2 + (1+1/y) epsilon^2 for every y > 0.",
    hypotheses=(_error,),
    steps=(
        Combine(_total, (term(beta_d * _e + bias + _root_v, _error.relation),)),
        Combine(
            at_most(_root_v**2, (1 + y) * beta_d**2 * _e**2 + (1 + 1 / y) * bias**2),
            (term(1, _total), term((y * beta_d * _e - bias) ** 2 / y)),
        ),
    ),
    source="Young's inequality",
)

_biased = Assumption(
    "lemma streaming/coupling", at_most(descent.V, (1 + y) * beta_d**2 * descent.e2 + (1 + 1 / y) * bias**2)
)
_young = Assumption("lemma descent/young", descent.YOUNG.claim)
_polar = Assumption("lemma descent/polarisation", descent.POLARISATION.claim)
coupling_share = eta / 2 * (eta * beta_F + descent.slowdown / gamma)

STEP = Lemma(
    name="streaming/step",
    words="One step with biased gradients: lemma descent/step with (1+y) beta_d^2 e2 + (1+1/y) epsilon^2 for "
    "beta_d^2 e2.",
    hypotheses=(
        _young,
        _polar,
        descent.smooth,
        descent.short_step,
        descent.gamma_range,
        descent.polyak,
        _biased,
    ),
    steps=(
        Combine(
            at_most(
                descent.f_next,
                descent.contraction * descent.f
                + coupling_share * ((1 + y) * beta_d**2 * descent.e2 + (1 + 1 / y) * bias**2)
                + descent.step_noise,
            ),
            (
                term(1, descent.smooth.relation),
                term(-eta, _polar.relation),
                term(eta / 2, descent.short_step.relation, _young.relation),
                term(eta**2 * beta_F / 2, _biased.relation),
                term(eta / (2 * gamma), descent.short_step.relation, _biased.relation),
                term(eta / 2, descent.polyak.relation),
                term(
                    eta / 2,
                    descent.short_step.relation,
                    descent.gamma_range.relation,
                    descent.polyak.relation,
                ),
            ),
        ),
    ),
    source="coopt",
)

_phi, _g1, _g2, _sum = sp.symbols("Phi G_1 G_2 S", nonnegative=True)
_rounds = Assumption(
    "lemma unroll/rounds with Q = q^tau", at_most(certified.error, q ** (K * tau) * D0 + _g2 * _phi)
)
_round = Assumption(
    "lemma unroll/round with lemma streaming/step: the bias joins the noise, 1+y multiplies the drift",
    equal(
        _phi,
        (descent.step_noise + C0 * (1 + 1 / y) * bias**2) * _g1 + C0 * (1 + y) * beta_d**2 * _sum,
    ),
)
_drift = Assumption(
    "lemma unroll/drift-sum with d_h + epsilon_h in place of d_h (Minkowski: the bias pushes devices apart "
    "too)",
    at_most(_sum, drift_sum),
)
_g1_closed = Assumption("lemma geometric/sum", equal(_g1, steps_factor))
_g2_closed = Assumption("lemma geometric/sum with q^tau in place of q", equal(_g2, rounds_factor))
_inside = descent.step_noise + C0 * (1 + 1 / y) * bias**2

STATEMENT = Lemma(
    name="streaming/statement",
    words="The certified bound over streaming buffers.",
    hypotheses=(_rounds, _round, _drift, _g1_closed, _g2_closed),
    steps=(
        Combine(
            at_most(certified.error, bound),
            (
                term(1, _rounds.relation),
                term(-_g2, _round.relation),
                term(_g2 * C0 * (1 + y) * beta_d**2, _drift.relation),
                term(-_g2 * _inside, _g1_closed.relation),
                term(-(_inside * steps_factor + C0 * (1 + y) * beta_d**2 * drift_sum), _g2_closed.relation),
            ),
        ),
    ),
    source="coopt",
)

theorem = Theorem(
    name="streaming",
    title="The certified bound over streaming buffers",
    number="S",
    citation="coopt; reservoir sampling is Vitter 1985, ACM TOMS 11(1), Algorithm R",
    assumptions=(
        *certified.assumptions,
        Assumption(
            "the mean gradient of the buffer of device i differs from grad F_i by at most G_i TV_i, "
            "whatever the model: "
            "exact for buffers drawn independently of the model, and the reading of the bound otherwise"
        ),
        Assumption("y > 0, free, splits coupling error and bias", sp.Gt(y, 0, evaluate=False)),
    ),
    left=certified.error,
    bound=bound,
    definitions=(
        *certified.theorem.definitions[:4],
        (C0, coupling_share),
        (r, 1 - eta * ell),
        (
            bias,
            sp.Sum(weight_now[i] * diameter[i] * variation[i], DEVICES)
            + sp.Sum(sp.Abs(weight_now[i] - p[i]) * delta_i[i], DEVICES),
        ),
        (local_bias, sp.sqrt(sp.Sum(p[i] * (diameter[i] * variation[i]) ** 2, DEVICES))),
    ),
    lemmas=(
        *buffers.LEMMAS,
        *averaging.LEMMAS,
        *descent.LEMMAS,
        *drift.LEMMAS,
        *geometric.LEMMAS,
        BIAS,
        WEIGHTS,
        COUPLING,
        STEP,
        unroll.ROUND,
        unroll.DRIFT_SUM,
        unroll.ROUNDS,
        STATEMENT,
    ),
    quantities=(
        Quantity(bias, "bias of the averaged gradient", "gradient"),
        Quantity(local_bias, "root mean square bias of the local gradients", "gradient"),
        Quantity(C0, "weight of the squared error of the mean direction", "1/curvature"),
        Quantity(y, "free positive number that splits coupling error from bias", "-"),
        Quantity(diameter[i], "diameter of the per-sample gradients of device i", "gradient"),
        Quantity(variation[i], "total variation between buffer and history of device i", "-"),
        Quantity(weight_now[i], "aggregation weight of device i in force", "-"),
    ),
)

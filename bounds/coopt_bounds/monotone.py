"""Which way each bound moves with K and tau: the lemmas that an exact search over (K, tau) prunes with.

Every bound with a Polyak-Lojasiewicz constant has the form B = Q D0 + (1-Q) G with Q = q^(K tau) and a
floor G that does not depend on K. The floor never falls in tau, and with it the best batch sizes get
smaller.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds.algebra import at_least, at_most, equal
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Grow, Identity, Induct, Term, term
from coopt_bounds.symbols import D0

k = sp.Symbol("k", integer=True, positive=True)
q = sp.Symbol("q", nonnegative=True)
D, A, weight, weight_slope = (sp.Function(name, nonnegative=True) for name in ("D", "A", "w", "w_slope"))
A_slope = sp.Function("A_slope", real=True)

rising = Assumption("D_j never falls (j >= 1; D_0 = 0)", at_least(D(k + 1), D(k)))
average = Assumption(
    "with w(n) the sum of q^j for j < n, A(n) is the average of D_0 ... D_{n-1} with weights q^(n-1-j): "
    "A(n+1) is a convex combination",
    equal((q * weight(k) + 1) * A(k + 1), q * weight(k) * A(k) + D(k)),
)
first = Assumption("A(1) = D_0 = 0", equal(A(1), 0))
_below = at_least(D(k), A(k))
_step_terms: tuple[Term, ...] = (
    term(1, rising.relation),
    term(q * weight(k) / (q * weight(k) + 1), _below),
    term(-1 / (q * weight(k) + 1), average.relation),
)

AVERAGE_BELOW_LAST = Lemma(
    name="monotone/average-below-last",
    words="A weighted average of a nondecreasing sequence is at most its next member.",
    hypotheses=(rising, average, first),
    steps=(
        Induct(
            _below,
            index=k,
            start=1,
            base=(Combine(at_least(D(1), A(1)), (term(D(1)), term(-1, first.relation))),),
            step=(Combine(at_least(D(k + 1), A(k + 1)), _step_terms),),
        ),
    ),
    source="coopt",
)

_below_assumed = Assumption("lemma monotone/average-below-last", _below)

DRIFT_AVERAGE_RISES = Lemma(
    name="monotone/drift-average",
    words="The average of the drift over a round never falls in tau: A(tau+1) is a convex combination of "
    "A(tau) "
    "and D_tau >= A(tau). With q = 1 this is the plain average of the nonconvex bound.",
    hypotheses=(_below_assumed, average),
    steps=(
        Combine(
            at_least(A(k + 1), A(k)),
            (
                term(1 / (q * weight(k) + 1), _below),
                term(1 / (q * weight(k) + 1), average.relation),
            ),
        ),
    ),
    source="coopt",
)

slope = Assumption(
    "derivative in q of the recurrence of A, with w = w(n), w_slope = dw/dq and A_slope = dA/dq, as a "
    "quotient",
    equal(
        (q * weight(k) + 1) ** 2 * A_slope(k + 1),
        (q * weight(k) + 1) * q * weight(k) * A_slope(k) + (weight(k) + q * weight_slope(k)) * (A(k) - D(k)),
    ),
)
slope_start = Assumption("A(1) = 0 whatever q", equal(A_slope(1), 0))
_falls = at_most(A_slope(k), 0)

DRIFT_AVERAGE_FALLS_IN_Q = Lemma(
    name="monotone/drift-average-in-q",
    words="The drift average never rises in q: a larger q gives more weight to the early, small drifts.",
    hypotheses=(_below_assumed, slope, slope_start),
    steps=(
        Induct(
            _falls,
            index=k,
            start=1,
            base=(Combine(at_most(A_slope(1), 0), (term(-1, slope_start.relation),)),),
            step=(
                Combine(
                    at_most(A_slope(k + 1), 0),
                    (
                        term(q * weight(k) / (q * weight(k) + 1), _falls),
                        term((weight(k) + q * weight_slope(k)) / (q * weight(k) + 1) ** 2, _below),
                        term(-1 / (q * weight(k) + 1) ** 2, slope.relation),
                    ),
                ),
            ),
        ),
    ),
    source="coopt",
)

a = sp.Function("a", nonnegative=True)
r, push = sp.symbols("r push", nonnegative=True)
recurrence = Assumption("a_{j+1} = r a_j + push", equal(a(k + 1), r * a(k) + push))
recurrence_start = Assumption("a_1 = push (a_0 = 0)", equal(a(1), push))
_a_rises = at_least(r * a(k) + push, a(k))

DRIFT_RISES = Lemma(
    name="monotone/drift",
    words="a_j never falls in j, whatever r >= 0 (also r < 1); b_j^2 obeys the same recurrence with r^2 and "
    "eta^2 nu^2, so D_j = (1+z) a_j^2 + (1+1/z) b_j^2 never falls either.",
    hypotheses=(recurrence, recurrence_start),
    steps=(
        Induct(
            _a_rises,
            index=k,
            start=1,
            base=(
                Combine(
                    at_least(r * a(1) + push, a(1)), (term(r * a(1)), term(-1, recurrence_start.relation))
                ),
            ),
            step=(
                Combine(
                    at_least(r * a(k + 1) + push, a(k + 1)),
                    (term(r, _a_rises), term(r - 1, recurrence.relation)),
                ),
            ),
        ),
        Combine(at_least(a(k + 1), a(k)), (term(1, _a_rises), term(1, recurrence.relation))),
    ),
    source="coopt",
)

Q, Q_more, G, G_more = sp.symbols("Q Q_more G G_more", nonnegative=True)
Q_range = Assumption("Q = q^(K tau) <= 1", at_most(Q, 1))
G_order = Assumption("a larger floor", at_least(G_more, G))
Q_order = Assumption("more rounds: Q_more = q^((K+1) tau) <= Q", at_most(Q_more, Q))

IN_FLOOR = Lemma(
    name="monotone/in-floor",
    words="B = Q D0 + (1-Q) G never falls in G.",
    hypotheses=(Q_range, G_order),
    steps=(
        Combine(
            at_least(Q * D0 + (1 - Q) * G_more, Q * D0 + (1 - Q) * G),
            (term(1, Q_range.relation, G_order.relation),),
        ),
    ),
    source="coopt",
)

floor_below = Assumption("the floor is below the initial gap", at_least(D0, G))
floor_above = Assumption("the floor is above the initial gap", at_least(G, D0))

IN_ROUNDS = Lemma(
    name="monotone/in-rounds",
    words="Where G <= D0, more rounds at the same floor never hurt.",
    hypotheses=(Q_order, floor_below),
    steps=(
        Combine(
            at_most(Q_more * D0 + (1 - Q_more) * G, Q * D0 + (1 - Q) * G),
            (term(1, Q_order.relation, floor_below.relation),),
        ),
    ),
    source="coopt",
)

IN_ROUNDS_REVERSED = Lemma(
    name="monotone/in-rounds-reversed",
    words="Where G >= D0, more rounds at the same floor never help: training cannot be certified to help.",
    hypotheses=(Q_order, floor_above),
    steps=(
        Combine(
            at_least(Q_more * D0 + (1 - Q_more) * G, Q * D0 + (1 - Q) * G),
            (term(1, Q_order.relation, floor_above.relation),),
        ),
    ),
    source="coopt",
)

Q_box, G_box = sp.symbols("Q_box G_box", nonnegative=True)
box_Q = Assumption(
    "Q at every point of the box is at least Q_box, that of its largest K tau", at_least(Q, Q_box)
)
box_G = Assumption(
    "G at every point of the box is at least G_box, that of its smallest K and tau", at_least(G, G_box)
)
box_below = Assumption("G_box <= D0", at_least(D0, G_box))

CORNER = Lemma(
    name="monotone/corner",
    words="On a box of (K, tau), Q_box D0 + (1-Q_box) G_box is a lower bound of B, if G_box <= D0 "
    "(otherwise D0 is).",
    hypotheses=(Q_range, box_Q, box_G, box_below),
    steps=(
        Combine(
            at_least(Q * D0 + (1 - Q) * G, Q_box * D0 + (1 - Q_box) * G_box),
            (
                term(1, Q_range.relation, box_G.relation),
                term(1, box_Q.relation, box_below.relation),
            ),
        ),
    ),
    source="coopt",
)

CORNER_ABOVE = Lemma(
    name="monotone/corner-above",
    words="On a box whose smallest floor is at least D0, B is at least D0.",
    hypotheses=(Q_range, box_G, Assumption("G_box >= D0", at_least(G_box, D0))),
    steps=(
        Combine(
            at_least(Q * D0 + (1 - Q) * G, D0),
            (
                term(1, Q_range.relation, box_G.relation),
                term(1, Q_range.relation, at_least(G_box, D0)),
            ),
        ),
    ),
    source="coopt",
)

t = sp.Symbol("t", nonnegative=True)
L = sp.Symbol("L", positive=True)
_bracket = 1 - sp.exp(-L * t) - L * t * sp.exp(-L * t)
_bracket_slope = at_least(L**2 * t * sp.exp(-L * t), 0)
_bracket_sign = at_least(_bracket, 0)

ROUND_FACTOR = Lemma(
    name="monotone/round-factor",
    words="tau/(1-q^tau) never falls in tau (L = -ln q): the numerator of its derivative, "
    "1 - e^(-L tau) - L tau e^(-L tau), is 0 at tau = 0 and grows.",
    hypotheses=(),
    steps=(
        Combine(_bracket_slope, (term(L**2 * t * sp.exp(-L * t)),)),
        Grow(_bracket_sign, t, _bracket_slope),
    ),
    source="coopt",
)

u1, u2, v1, v2 = sp.symbols("u_1 u_2 v_1 v_2", nonnegative=True)
_u_rises = Assumption("u never falls", at_least(u2, u1))
_v_rises = Assumption("v never falls", at_least(v2, v1))

PRODUCT = Lemma(
    name="monotone/product",
    words="Products of nonnegative nondecreasing factors never fall.",
    hypotheses=(_u_rises, _v_rises),
    steps=(Combine(at_least(u2 * v2, u1 * v1), (term(v2, _u_rises.relation), term(u1, _v_rises.relation))),),
    source="elementary",
)

_h, _tau, _eta, _rho = sp.symbols("h tau eta rho", positive=True)
_unfinished = sp.Symbol("u", positive=True)

PUBLISHED_FLOORS = Lemma(
    name="monotone/published-floors",
    words="The drift floors of the published bounds are products of h, h/tau and tau/(1-q^tau), none of "
    "which falls "
    "(lemmas published-drift/ratio, monotone/round-factor, monotone/product): rho h^2/(1-q^tau) with rho "
    "constant and with rho = 1/(eta tau), and rho h/(1-q^tau); u stands for 1 - q^tau.",
    hypotheses=(),
    steps=(
        Identity(_rho * _h**2 / _unfinished, _rho * _h * (_h / _tau) * (_tau / _unfinished)),
        Identity(_h**2 / (_eta * _tau) / _unfinished, (_h / _tau) ** 2 * (_tau / _unfinished) / _eta),
        Identity(_rho * _h / _unfinished, _rho * (_h / _tau) * (_tau / _unfinished)),
    ),
    source="coopt",
)

K1, K2, t1, t2, spend, overhead = sp.symbols("K_1 K_2 tau_1 tau_2 A_s b", nonnegative=True)
_more_rounds = Assumption("at least as many rounds", at_least(K2, K1))
_more_steps = Assumption("at least as many local steps", at_least(t2, t1))

USE = Lemma(
    name="monotone/use",
    words="What a plan uses, K (tau A_s + b), never falls in K or tau at the same batch sizes: every plan "
    "that is "
    "feasible at the large corner of a box is feasible at the small one, so the best weighted sum of 1/s_i "
    "never "
    "falls either. The time of one device has the same form, with s_i/pi_i and u_i.",
    hypotheses=(_more_rounds, _more_steps),
    steps=(
        Combine(
            at_least(K2 * (t2 * spend + overhead), K1 * (t1 * spend + overhead)),
            (
                term(t2 * spend + overhead, _more_rounds.relation),
                term(K1 * spend, _more_steps.relation),
            ),
        ),
    ),
    source="the limits of DYNAMITE, section III",
)

_r, _r0, _bias, _root = sp.symbols("r r_0 epsilon D_root", nonnegative=True)
_k_de, _k_ee, _price = sp.symbols("k_de k_ee pi", positive=True)

TANGENT = Lemma(
    name="monotone/tangent",
    words="The square of r = 1/P is above its tangent at any r_0.",
    hypotheses=(),
    steps=(Combine(at_least(_r**2, 2 * _r0 * _r - _r0**2), (term((_r - _r0) ** 2),)),),
    source="elementary",
)
_pull = _price - 2 * _k_de * _root

PRICE_OF_BIAS = Lemma(
    name="monotone/price-of-bias",
    words="At a price pi of the bias, what it adds to the floor beside divergence is smallest at the bias "
    "(pi - 2 k_de sqrt(D))/(2 k_ee).",
    hypotheses=(),
    steps=(
        Combine(
            at_least(
                2 * _k_de * _root * _bias + _k_ee * _bias**2 - _price * _bias, -(_pull**2) / (4 * _k_ee)
            ),
            (term((2 * _k_ee * _bias - _pull) ** 2 / (4 * _k_ee)),),
        ),
    ),
    source="elementary",
)

LEMMAS: tuple[Lemma, ...] = (
    AVERAGE_BELOW_LAST,
    DRIFT_AVERAGE_RISES,
    DRIFT_AVERAGE_FALLS_IN_Q,
    DRIFT_RISES,
    IN_FLOOR,
    IN_ROUNDS,
    IN_ROUNDS_REVERSED,
    CORNER,
    CORNER_ABOVE,
    ROUND_FACTOR,
    PRODUCT,
    PUBLISHED_FLOORS,
    USE,
    TANGENT,
    PRICE_OF_BIAS,
)

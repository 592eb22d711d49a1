"""Federated averaging on quadratic losses with momentum on the clients, on the server, or both.

A heavy ball that is reset every round leaves a round an affine map of the model, with another symmetric M and
other symmetric responses R_j in place of -eta J^j. A server that moves with rate gamma and momentum beta has
a state of model and buffer; its map has blocks that are polynomials in M. What noise of a round has become k
rounds later is then a polynomial in M too, W_k, symmetric, so what each round adds to the weight of 1/s_i
keeps its form tr(H W_k P_i W_k)/2, and the weight never falls in K.
"""

from __future__ import annotations

import sympy as sp

from coopt_bounds import matrices, quadratic_rounds
from coopt_bounds.algebra import equal
from coopt_bounds.certified import error
from coopt_bounds.geometric import n
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.matrices import matrix_function, matrix_symbols
from coopt_bounds.proof import Combine, Identity, Substitute, term
from coopt_bounds.symbols import K, N, eta, i, tau
from coopt_bounds.theorem import Theorem

beta, beta_s = sp.symbols("beta_u beta_s", nonnegative=True)
gamma = sp.Symbol("gamma_s", positive=True)
H, g, z, u, xi, B, v = matrix_symbols("H g z u xi B v")

CLIENT_STEP = Lemma(
    name="quadratic-momentum/client-step",
    words="Heavy ball: u <- beta u + g + Hz + xi and z <- z - eta u are the blocks [[I - eta H, -eta beta "
    "I], [H, beta I]] on (z, u), and gradient and noise enter as (-eta, 1).",
    hypotheses=(),
    steps=(
        Identity(
            z - eta * (beta * u + g + H * z + xi),
            (1 - eta * H) * z - eta * beta * u - eta * (g + xi),
        ),
    ),
    source="Polyak 1964",
)

a, b = matrix_function("a"), matrix_function("b")
_a_step = Assumption(
    "a is the upper left block of the n-th power", equal(a(n + 1), a(n) * (1 - eta * H) + b(n) * H)
)
_b_step = Assumption("b is the one beside it", equal(b(n + 1), -eta * beta * a(n) + beta * b(n)))
_a_later = Substitute(_a_step.relation, {n: n + 1})

THREE_TERMS = Lemma(
    name="quadratic-momentum/three-terms",
    words="The device's map over n steps obeys a(n+2) = (1 + beta) a(n+1) - eta a(n+1) H - beta a(n): the "
    "heavy ball's polynomial, whose values may be negative.",
    hypotheses=(_a_step, _b_step),
    steps=(
        _a_later,
        Combine(
            equal(a(n + 2), a(n + 1) * ((1 + beta) - eta * H) - beta * a(n)),
            (
                term(1, _a_later.conclusion),
                term(1, _b_step.relation, right=H),
                term(-beta, _a_step.relation),
            ),
        ),
    ),
    source="elementary",
)

SERVER_STEP = Lemma(
    name="quadratic-momentum/server-step",
    words="With D = Bz - v + xi, B = M - I, the averaged change, the server's heavy ball is the blocks [[I + "
    "gamma B, gamma beta I], [B, beta I]]: change and noise enter as (gamma, 1).",
    hypotheses=(),
    steps=(
        Identity(
            z + gamma * (beta_s * u + (B * z - v + xi)),
            (1 + gamma * B) * z + gamma * beta_s * u + gamma * (xi - v),
        ),
        Identity(beta_s * u + (B * z - v + xi), B * z + beta_s * u + (xi - v)),
    ),
    source="FedAvgM: Hsu et al. 2019, arXiv 1909.06335",
)

NESTEROV_STEP = Lemma(
    name="quadratic-momentum/nesterov-step",
    words="Nesterov's: z <- z + gamma (D + beta u_next) with u_next = beta u + D has [[I + gamma (1 + beta) "
    "B, gamma beta^2 I], [B, beta I]]: change and noise enter as (gamma (1 + beta), 1).",
    hypotheses=(),
    steps=(
        Identity(
            z + gamma * ((B * z - v + xi) + beta_s * (beta_s * u + (B * z - v + xi))),
            (1 + gamma * (1 + beta_s) * B) * z + gamma * beta_s**2 * u + gamma * (1 + beta_s) * (xi - v),
        ),
    ),
    source="Nesterov 1983",
)

RATE_ONLY = Lemma(
    name="quadratic-momentum/rate",
    words="Without momentum a server of rate gamma has I + gamma B, gamma v and gamma^2 P_i.",
    hypotheses=(),
    steps=(Identity(z + gamma * (B * z - v + xi), (1 + gamma * B) * z - gamma * v + gamma * xi),),
    source="elementary",
)

a_t, b_t = matrix_function("a^T"), matrix_function("b^T")
response, response_t = matrix_symbols("R R^T")
enter_model, enter_buffer = sp.symbols("l_z l_u", real=True)
_response = Assumption(
    "what enters as (l_z, l_u) moves the model n steps later by R",
    equal(response, enter_model * a(n) + enter_buffer * b(n)),
)
_response_t = Assumption(
    "the same, transposed", equal(response_t, enter_model * a_t(n) + enter_buffer * b_t(n))
)
_a_symmetric = Assumption("lemma matrices/blocks-symmetric at t = 0", equal(a_t(n), a(n)))
_b_symmetric = Assumption("lemma matrices/blocks-symmetric at t = 1, less that at 0", equal(b_t(n), b(n)))

RESPONSE_SYMMETRIC = Lemma(
    name="quadratic-momentum/response",
    words="Responses are symmetric, so noise of covariance P that enters has covariance R P R later.",
    hypotheses=(_response, _response_t, _a_symmetric, _b_symmetric),
    steps=(
        Combine(
            equal(response_t, response),
            (
                term(1, _response_t.relation),
                term(-1, _response.relation),
                term(enter_model, _a_symmetric.relation),
                term(enter_buffer, _b_symmetric.relation),
            ),
        ),
    ),
    source="coopt",
)

BLOCKS = Lemma(
    name="quadratic-momentum/blocks",
    words="The blocks of clients commute with H, those of the server with B (and so with one another).",
    hypotheses=(),
    steps=(
        Identity((1 - eta * H) * H, H * (1 - eta * H)),
        Identity((1 + gamma * (1 + beta_s) * B) * B, B * (1 + gamma * (1 + beta_s) * B)),
        Identity((1 + gamma * B) * B, B * (1 + gamma * B)),
    ),
    source="elementary",
)

STATEMENT = quadratic_rounds.statement(
    "quadratic-momentum/statement", "The expected gap with momentum.", quadratic_rounds.noise_left
)

_T, _S, _M, _v, _I, _H, _g, _C, _P, _R, _W = matrix_symbols("T_i U M v I H_i g_i C_i P_i R_ij W_k")
_m, _top, _enter, _enter_server = matrix_symbols("m_K e^T l l_s")
_j, _k = sp.symbols("j k", integer=True, nonnegative=True)
_p, _w = sp.symbols("p_i W_i", positive=True)
_trace = matrix_function("tr")
_rows = (
    (_top, sp.Matrix([[_I, 0]])),
    (_T, sp.Matrix([[_I - eta * _H, -eta * beta * _I], [_H, beta * _I]])),
    (_enter, sp.Matrix([-eta * _I, _I])),
    (_R, _top * _T**_j * _enter),
    (_M, sp.Sum(_p * _top * _T**tau * sp.Symbol("e", commutative=False), (i, 1, N))),
    (_v, -sp.Sum(_p * sp.Sum(_R, (_j, 0, tau - 1)) * _g, (i, 1, N))),
    (_P, _p**2 * sp.Sum(_R * _C * _R, (_j, 0, tau - 1))),
    (_S, sp.Matrix([[_I + gamma * (_M - _I), gamma * beta_s * _I], [_M - _I, beta_s * _I]])),
    (_enter_server, sp.Matrix([gamma * _I, _I])),
    (_W, _top * _S**_k * _enter_server),
    (_m, -sp.Sum(_W, (_k, 0, K - 1)) * _v),
    quadratic_rounds.mean_gap_row,
    (_w, quadratic_rounds.half * _trace(quadratic_rounds.H * sp.Sum(_W * _P * _W, (_k, 0, K - 1)))),
)

theorem = Theorem(
    name="quadratic-momentum",
    title="(Q) with heavy ball on the clients, reset each round, and rate and momentum on the server",
    number="QM",
    citation="coopt; server momentum: Hsu et al. 2019, arXiv 1909.06335",
    assumptions=(
        *quadratic_rounds.assumptions,
        Assumption("client momentum starts at zero in every round; server momentum at zero before the first"),
    ),
    left=error,
    bound=quadratic_rounds.offset + quadratic_rounds.fresh_noise,
    definitions=(),
    lemmas=(
        *quadratic_rounds.theorem.lemmas[:-1],
        *matrices.LEMMAS[4:],
        CLIENT_STEP,
        THREE_TERMS,
        SERVER_STEP,
        NESTEROV_STEP,
        RATE_ONLY,
        BLOCKS,
        RESPONSE_SYMMETRIC,
        STATEMENT,
    ),
    quantities=quadratic_rounds.quantities,
    exact=True,
    matrices=_rows,
)

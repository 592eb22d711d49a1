"""The symbols that the theorems share, with their assumptions, units and names in coopt."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp


@dataclass(frozen=True)
class Quantity:
    """A symbol, what it means and what it is measured in.

    Parameters
    ----------
    symbol : sympy expression
        A symbol, or an indexed quantity of one device such as ``M[i]``.
    meaning, unit : str
        In words; the unit is relative to that of the loss and of the model ("curvature" is loss over squared
        model distance, "gradient" is loss over model distance).
    field : str
        The name of the same quantity in :mod:`coopt`, where there is one.
    """

    symbol: sp.Expr
    meaning: str
    unit: str
    field: str = ""


K, tau = sp.symbols("K tau", integer=True, positive=True)
eta, beta, beta_F, c = sp.symbols("eta beta beta_F c", positive=True)
ell = sp.Symbol("ell", real=True)
beta_d, D0, sigma2, nu2, delta, d_h = sp.symbols("beta_d D_0 sigma2 nu2 deltabar d_h", nonnegative=True)
rho, gamma, z = sp.symbols("rho gamma z", positive=True)
q, r = sp.symbols("q r", nonnegative=True)
C = sp.Symbol("C", nonnegative=True)

i = sp.Symbol("i", integer=True, positive=True)
j = sp.Symbol("j", integer=True, nonnegative=True)
N = sp.Symbol("N", integer=True, positive=True)
p = sp.IndexedBase("p", positive=True)
M = sp.IndexedBase("M", nonnegative=True)
V = sp.IndexedBase("V", nonnegative=True)
s = sp.IndexedBase("s", positive=True)
delta_i = sp.IndexedBase("delta", nonnegative=True)

variance = M[i] / s[i] + V[i]
sigma2_sum = sp.Sum(p[i] ** 2 * variance, (i, 1, N))
nu2_sum = sp.Sum(p[i] * (1 - p[i]) * variance, (i, 1, N))
delta_sum = sp.Sum(p[i] * delta_i[i], (i, 1, N))
d_h_root = sp.sqrt(sp.Sum(p[i] * delta_i[i] ** 2, (i, 1, N)))

QUANTITIES: dict[str, Quantity] = {
    str(quantity.symbol): quantity
    for quantity in (
        Quantity(K, "rounds", "-", "rounds"),
        Quantity(tau, "local steps per round", "-", "local_steps"),
        Quantity(N, "number of devices", "-", "len(Fleet)"),
        Quantity(s[i], "mini-batch size of device i", "samples", "batch_sizes"),
        Quantity(p[i], "aggregation weight of device i; the weights sum to 1", "-", "Fleet.weights"),
        Quantity(
            M[i],
            "gradient noise of device i: the trace of the covariance of its mini-batch gradient is at most "
            "M_i/s_i + V_i",
            "gradient^2 samples",
            "Fleet.gradient_noise",
        ),
        Quantity(
            V[i],
            "step noise of device i: the part of that variance that no batch removes",
            "gradient^2",
            "Fleet.step_noise",
        ),
        Quantity(
            delta_i[i],
            "gradient divergence of device i: ||grad F_i - grad F|| <= delta_i",
            "gradient",
            "Fleet.divergence",
        ),
        Quantity(eta, "learning rate", "1/curvature", "Constants.learning_rate"),
        Quantity(beta, "smoothness of every F_i", "curvature", "Constants.smoothness"),
        Quantity(beta_F, "smoothness of F, at most beta", "curvature", "Constants.mean_smoothness"),
        Quantity(
            ell,
            "lower curvature of every F_i: -beta (smooth only), 0 (convex), positive (strongly convex)",
            "curvature",
            "Constants.curvature_floor",
        ),
        Quantity(beta_d, "coupling of the drift to the averaged gradient", "curvature", "Constants.coupling"),
        Quantity(
            c,
            "Polyak-Lojasiewicz constant: 2c (F - F*) <= ||grad F||^2",
            "curvature",
            "Constants.pl_constant",
        ),
        Quantity(D0, "initial gap F(w_0) - F*", "loss", "Constants.initial_gap"),
        Quantity(
            rho,
            "quadratic continuity (dynamite) or Lipschitz constant (adacoopt)",
            "curvature; gradient",
            "Constants.quadratic_continuity; Constants.lipschitz",
        ),
        Quantity(sigma2, "sum of p_i^2 (M_i/s_i + V_i): variance of the averaged gradient", "gradient^2"),
        Quantity(nu2, "sum of p_i (1-p_i) (M_i/s_i + V_i): the variance that drives drift", "gradient^2"),
        Quantity(delta, "sum of p_i delta_i: mean divergence", "gradient"),
        Quantity(d_h, "root of the sum of p_i delta_i^2: root mean square divergence", "gradient"),
        Quantity(gamma, "free number in (0, 1] that splits the descent", "-", "Certified.gamma"),
        Quantity(z, "free positive number that splits drift into divergence and noise", "-", "Certified.z"),
        Quantity(q, "contraction per step", "-"),
        Quantity(r, "growth of the drift per step, 1 - eta ell", "-"),
        Quantity(C, "weight of the squared drift in one step", "loss / model distance^2"),
    )
}
"""Every shared symbol by its printed name."""

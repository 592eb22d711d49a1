"""Turn estimates into the constants of a bound: measured near the current model, and hedged.

Constants measured along the run are no certificate, but the best guide: the suprema that a proof needs are
often many times larger than what the training meets.
"""

from __future__ import annotations

import math

from coopt.measuring.estimates import readings
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.trend import Estimate
from coopt.problem.constants import Constants

# Below this share of the smoothness, a Polyak-Lojasiewicz constant means "no progress" for any budget.
LEAST_CONTRACTION = 1e-6
# Standard errors, times the caution, by which the measured gap must exceed a forecast to overrule it.
CONTRADICTION = 3.0


def calibrate(
    estimates: Estimates,
    *,
    learning_rate: float,
    lowest_loss: float = 0.0,
    curvature_floor: float | None = None,
    caution: float = 1.0,
    forecast: float | None = None,
) -> Constants:
    """Give the constants that the next plan is based on.

    Parameters
    ----------
    estimates : Estimates
        What is known.
    learning_rate : float
        eta > 0.
    lowest_loss : float, default 0
        A value that the loss cannot fall below.
    curvature_floor : float, optional
        Known lower bound ell on the curvature of every device's loss; used while no same-batch pair was
        observed.
    caution : float, default 1
        Standard errors by which every constant is moved to its unfavourable side.
    forecast : float, optional
        Gap F - F* that the bound predicted for the current model.

    Returns
    -------
    Constants
        Consistent: c <= beta <= 1/eta, beta_d <= beta, -beta <= ell <= beta. While curvature is unknown,
        beta is 1/eta, the largest for which the learning rate makes sense.

    Examples
    --------
    >>> calibrate(Estimates.empty([10]), learning_rate=0.1).smoothness
    10.0
    """
    ceiling = 1 / learning_rate
    beta = min(max(_raised(readings.smoothness(estimates), caution, ceiling), 1e-9 * ceiling), ceiling)
    slope = readings.ratio_of(estimates.pair_slope, estimates.pair_step)
    floor = -beta if curvature_floor is None else min(max(curvature_floor, -beta), beta)
    if math.isfinite(slope.value):
        error = slope.standard_error if math.isfinite(slope.standard_error) else abs(slope.value)
        floor = min(max(slope.value - caution * error, floor), beta)
    coupling = min(_raised(readings.coupling(estimates), caution, (beta - floor) / 2), beta)
    c = readings.contraction(
        estimates,
        learning_rate,
        lowest_loss=lowest_loss,
        caution=caution,
        extrapolate=curvature_floor is not None and curvature_floor >= 0,
    ).value
    c = min(max(c, LEAST_CONTRACTION * beta), beta)
    gap = _gap(estimates, c, lowest_loss, caution, forecast)
    return Constants(
        learning_rate=learning_rate,
        smoothness=beta,
        initial_gap=gap,
        pl_constant=c,
        curvature_floor=floor,
        coupling=coupling,
    )


def _gap(estimates: Estimates, c: float, lowest_loss: float, caution: float, forecast: float | None) -> float:
    """Give the forecast, moved into the range that the measured gap allows.

    Near the optimum the gap drowns in the noise of its measurement and in what lying clients can add to it,
    and only the forecast still tells its size.
    """
    measured = readings.gap(estimates, c, lowest_loss=lowest_loss)
    if not math.isfinite(measured.value):
        return 1.0 if forecast is None else forecast
    error = caution * measured.standard_error if math.isfinite(measured.standard_error) else 0.0
    highest = max(measured.value + error, 0.0)
    lowest = max(measured.value * readings.certain_share(estimates) - CONTRADICTION * error, 0.0)
    return highest if forecast is None else min(max(forecast, lowest), highest)


def _raised(found: Estimate, caution: float, unknown: float) -> float:
    if not math.isfinite(found.value):
        return unknown
    if not math.isfinite(found.standard_error):
        return max(found.value, unknown)
    return found.value + caution * found.standard_error

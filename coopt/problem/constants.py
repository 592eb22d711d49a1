"""What is known of the loss: its curvature, its initial gap, and the learning rate."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from coopt.errors import InvalidProblemError
from coopt.problem.readable import readable
from coopt.problem.validation import optional_real, real


@readable
@dataclass(frozen=True)
class Constants:
    """What is known of the loss, in the units of the loss, its gradient and its curvature.

    Parameters
    ----------
    learning_rate : float
        eta > 0 [1 / curvature].
    smoothness : float
        beta > 0: every device's loss has a beta-Lipschitz gradient [curvature].
    initial_gap : float
        D0 = F(w_0) - F* >= 0 [loss]; for the non-convex bound F(w_0) - inf F.
    pl_constant : float, optional
        c > 0 with 2 c (F - F*) <= ||grad F||^2 (Polyak-Lojasiewicz) [curvature]; needed by every
        bound but the non-convex one.
    curvature_floor : float, optional
        ell in [-beta, beta], a lower bound on the curvature of every device's loss: 0 when convex,
        mu when mu-strongly convex; default -beta, which smoothness alone guarantees [curvature].
    mean_smoothness : float, optional
        beta_F <= beta, the smoothness of the average loss; default beta [curvature].
    coupling : float, optional
        beta_d <= beta, how strongly drift of the devices moves the averaged gradient; default
        (beta - ell) / 2, which always holds [curvature].
    quadratic_continuity : float, optional
        rho of the published bound; default 1 / (eta tau) there [curvature].
    lipschitz : float, optional
        rho of the AdaCoOpt bound, a Lipschitz constant of the loss [gradient].
    gradient_bias : float, optional
        epsilon >= 0 with ||sum p_i grad F_i - grad F|| <= epsilon for every model [gradient]: how far the
        devices that train are from the loss F that counts, where they are not all of it; default 0.

    Raises
    ------
    InvalidProblemError
        If a value is not a finite number in its range, or curvatures are out of order.

    Examples
    --------
    >>> from coopt import Constants
    >>> Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=5.0)
    Traceback (most recent call last):
    ...
    coopt.InvalidProblemError: pl_constant = 5.0: must not exceed smoothness = 4.0
    """

    __module__ = "coopt"

    learning_rate: float
    smoothness: float
    initial_gap: float
    pl_constant: float | None = None
    curvature_floor: float | None = None
    mean_smoothness: float | None = None
    coupling: float | None = None
    quadratic_continuity: float | None = None
    lipschitz: float | None = None
    gradient_bias: float | None = None

    def __post_init__(self) -> None:
        checked: dict[str, float | None] = {
            "learning_rate": real("learning_rate", self.learning_rate, minimum=0.0, strict=True),
            "smoothness": real("smoothness", self.smoothness, minimum=0.0, strict=True),
            "initial_gap": real("initial_gap", self.initial_gap, minimum=0.0),
            "pl_constant": optional_real("pl_constant", self.pl_constant, minimum=0.0, strict=True),
            "curvature_floor": optional_real("curvature_floor", self.curvature_floor),
            "mean_smoothness": optional_real(
                "mean_smoothness", self.mean_smoothness, minimum=0.0, strict=True
            ),
            "coupling": optional_real("coupling", self.coupling, minimum=0.0),
            "quadratic_continuity": optional_real(
                "quadratic_continuity", self.quadratic_continuity, minimum=0.0
            ),
            "lipschitz": optional_real("lipschitz", self.lipschitz, minimum=0.0),
            "gradient_bias": optional_real("gradient_bias", self.gradient_bias, minimum=0.0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name in ("pl_constant", "mean_smoothness", "coupling"):
            self._must_not_exceed(name, "smoothness")
        if self.mean_smoothness is not None:
            self._must_not_exceed("pl_constant", "mean_smoothness")
        # The share of the gap that a step removes: below the smallest normal float it has no exact digits.
        if self.pl_constant is not None and self.learning_rate * self.pl_constant < sys.float_info.min:
            raise InvalidProblemError(
                f"pl_constant = {self.pl_constant!r}: times learning_rate = {self.learning_rate!r} must be "
                f"at least {sys.float_info.min!r}"
            )
        floor = self.curvature_floor
        if floor is not None and abs(floor) > self.smoothness:
            raise InvalidProblemError(
                f"curvature_floor = {floor!r}: must lie between -smoothness = {-self.smoothness!r} "
                f"and smoothness = {self.smoothness!r}"
            )

    def _must_not_exceed(self, name: str, ceiling: str) -> None:
        value, limit = getattr(self, name), getattr(self, ceiling)
        if value is not None and value > limit:
            raise InvalidProblemError(f"{name} = {value!r}: must not exceed {ceiling} = {limit!r}")

"""A measurement as labels and texts, for a table that people read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from coopt.measuring.measurement import Measurement


def facts(measurement: Measurement) -> dict[str, str]:
    """What a person wants to know of it, as labels and texts."""
    filled = [_name(measurement, i) for i in np.flatnonzero(~measurement.measured)[:5]]
    more = int((~measurement.measured).sum()) - len(filled)
    facts = {
        "devices": f"{len(measurement):,}",
        "directions": f"{measurement.directions} of {measurement.parameters:,} parameters",
        "rows a device": f"{int(measurement.rows[measurement.measured].mean()):,} on average",
        "samples processed": f"{measurement.samples_used:,}",
        "curvature": f"{measurement.curvature_kind}: {measurement.curvature_reason}",
        "loss": f"{measurement.loss:.4g}",
        "norm of the gradient": f"{measurement.gradient_norm:.4g}",
        "largest Ritz value": f"{measurement.spectrum[0]:.4g}",
        "curvature that small batches may meet": (
            "unknown" if measurement.sample_curvature is None else f"{measurement.sample_curvature:.4g}"
        ),
        "share of the squared gradient outside the directions": f"{measurement.unseen:.0%}",
        "share of the predicted fall of the loss that fresh rows confirm": f"{measurement.confirmed:.0%}",
        "share of the divergence outside the directions": f"{measurement.unseen_divergence:.0%}",
        "share of the noise in the directions": f"{measurement.noise_seen:.0%}",
    }
    if filled:
        facts["filled in from others"] = ", ".join(filled) + (f" and {more} more" if more else "")
    return facts


def _name(measurement: Measurement, device: int) -> str:
    return str(device) if measurement.names is None else measurement.names[device]

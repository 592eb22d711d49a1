"""Forecasts: the loss that a plan is expected to reach, from what was measured of every device."""

"""The global solver for forecasts: rounds, local steps and whole batches, with a proof for the forecast."""

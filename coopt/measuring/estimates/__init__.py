"""Running estimates of a training's constants from client reports: pure functions (state, reports) -> state."""

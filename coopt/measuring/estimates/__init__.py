"""Running estimates of the constants from client reports: pure functions (state, reports) -> state."""

"""Which devices should train: effects, a lower bound, and the search."""

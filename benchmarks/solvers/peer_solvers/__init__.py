"""The joint problem as other solvers take it."""

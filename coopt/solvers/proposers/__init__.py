"""Solvers without a proof of their own: formulas, convex programming, and the published algorithm."""

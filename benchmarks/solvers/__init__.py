"""Solvers beside others on the same problems, and how they grow with the fleet."""

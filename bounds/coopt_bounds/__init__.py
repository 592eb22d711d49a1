"""Convergence bounds of federated averaging as theorems checked by computer algebra."""

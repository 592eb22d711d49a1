"""Solvers: the contract, the exact search with its proof, and those that propose a plan; one idea a file."""

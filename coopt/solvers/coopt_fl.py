"""The public path of the published ways to split a batch budget."""

from coopt.solvers.proposers.coopt_fl import no_straggler_split, proportional_split, uniform_split

__all__ = ["no_straggler_split", "proportional_split", "uniform_split"]

"""Names of fields and columns: those that are unknown are refused, with the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from coopt.errors import InvalidProblemError
from coopt.problem.validation import shown

LONGEST_NAME = 40
# Below this two names have letters in common rather than a meaning.
ALIKE = 0.67
# What people call the fields.
ALSO_CALLED = {
    "names": "name device devices id client client_id device_id host",
    "samples": "n n_samples num_samples num_examples examples rows size data count",
    "weights": "weight",
    "throughput": "speed samples_per_second rate compute_speed",
    "round_time": "latency delay link upload upload_time communication_time comm_time",
    "step_time": "seconds_per_step",
    "gradient_noise": "noise variance gradient_variance sigma2",
    "divergence": "heterogeneity dissimilarity drift",
    "sample_cost": "price price_per_sample cost_per_sample",
    "max_batch": "batch batch_size memory",
    "learning_rate": "lr eta rate step_size",
    "smoothness": "beta lipschitz",
    "pl_constant": "mu strong_convexity",
    "initial_gap": "initial_loss loss",
    "time": "deadline seconds hours duration time_limit",
    "cost": "budget money price",
    "max_rounds": "rounds k num_rounds",
    "max_local_steps": "local_steps tau steps",
}


def refuse_unknown(names: Iterable[str], valid: Iterable[str], where: str) -> None:
    """Raise InvalidProblemError where names are not valid, with those that may have been meant."""
    choices = tuple(valid)
    unknown = [name for name in names if name not in choices]
    if not unknown:
        return
    meant = [_meant(str(name), choices) for name in unknown]
    verb = "is" if len(unknown) == 1 else "are"
    hint = f"did you mean {_listed(meant)}?" if all(meant) else f"valid are {', '.join(choices)}"
    raise InvalidProblemError(f"{where}: {_listed(unknown)} {verb} unknown: {hint}")


def _meant(name: str, choices: tuple[str, ...]) -> str:
    """The choice that a name stands for, or is a slip of; empty where there is none."""
    plain = name[:LONGEST_NAME].strip().lower().replace(" ", "_").replace("-", "_")
    for choice in choices:
        if plain in ALSO_CALLED.get(choice, "").split():
            return choice
    return next(iter(difflib.get_close_matches(plain, choices, n=1, cutoff=ALIKE)), "")


def _listed(names: list[str]) -> str:
    """Names one after the other, the first few of many."""
    few = [shown(name) for name in names[:3]]
    if len(names) > len(few):
        return f"{', '.join(few)} and {len(names) - len(few)} more"
    return " and ".join([", ".join(few[:-1]), few[-1]] if len(few) > 1 else few)

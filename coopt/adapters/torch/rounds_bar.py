"""The progress bar of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

    from coopt.adapters.torch.history import RoundRecord


def rounds_bar(done: int, progress: bool | None) -> tqdm[Any]:
    """Make a bar that begins after some rounds; None shows it where standard error is a terminal."""
    from tqdm import tqdm

    disable = None if progress is None else not progress
    return tqdm(desc="rounds", unit="round", initial=done, disable=disable)


def show_round(bar: tqdm[Any], record: RoundRecord, rounds_left: int) -> None:
    """Show a round that is done, of which the plan counted so many that were left."""
    bar.total = record.round + rounds_left
    shown = {
        "loss": record.train_loss,
        "metric": record.metric,
        "cost": record.cost,
        "s": record.seconds,
        "tau": record.local_steps,
        "batch": record.mean_batch,
    }
    bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)
    bar.update()

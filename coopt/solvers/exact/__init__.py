"""Global optima over rounds, local steps and batch sizes, with a proof."""

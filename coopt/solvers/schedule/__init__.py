"""The search for plans in phases: rounds, local steps, learning rates and batches of each."""

"""The problem: fleet, constants and budget, what fits within the limits, and how all are read and written."""

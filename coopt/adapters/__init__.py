"""Bridges from plans to training: a simulated fleet, and the frameworks that train; each an extra."""

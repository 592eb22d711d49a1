"""The public path of the contract between adapters and planners."""

from coopt.online.planner import Planner

__all__ = ["Planner"]

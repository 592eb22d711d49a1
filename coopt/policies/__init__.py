"""Rules for the next round: ours, those of the published controllers, and the common baselines."""

from coopt.policies.dynamic_tau import DynamicTau
from coopt.policies.fixed import DynamicBatch, FedAvg
from coopt.policies.horizon import Horizon
from coopt.policies.marginal import AdaCoOpt, Marginal
from coopt.policies.scheduled import Scheduled
from coopt.policies.situation import Choice, ExpectingPolicy, MeasuringPolicy, Policy, Situation

__all__ = [
    "AdaCoOpt",
    "Choice",
    "DynamicBatch",
    "DynamicTau",
    "ExpectingPolicy",
    "FedAvg",
    "Horizon",
    "Marginal",
    "MeasuringPolicy",
    "Policy",
    "Scheduled",
    "Situation",
]

"""coopt: how many rounds, how many local steps, and which batch size on which device.

Given a fleet of devices, a cost budget and a deadline, coopt finds the rounds K, the local steps tau
and the batch size s_i of every device that minimise a proved bound on the error of federated SGD, and
proves that nothing better exists. Start with :func:`solve_allocation`.
"""

from __future__ import annotations

from coopt._version import __version__
from coopt.errors import (
    BoundWarning,
    CertificateError,
    CooptError,
    InfeasibleError,
    InvalidProblemError,
    MissingDependencyError,
    SolverError,
)
from coopt.measuring.probe import ClientProbe
from coopt.measuring.report import ClientReport
from coopt.objectives.bound import AdaCoOpt, Certified, Dynamite, NonConvex
from coopt.objectives.monotone import Bound
from coopt.objectives.tradeoff import TradeOff
from coopt.online.controller import Controller
from coopt.online.round_plan import RoundPlan, Stopped
from coopt.plans.allocation import Allocation, Certificate, Status
from coopt.problem.problem import Budget, Constants, Fleet, Problem
from coopt.questions.cohort import Cohort, choose_cohort, leave_out
from coopt.questions.differences import Change, Sensitivity, sensitivity
from coopt.questions.many import Solutions, solve_many
from coopt.questions.pareto import Frontier, FrontierPoint, frontier
from coopt.questions.participants import choose_participants
from coopt.questions.solve import allocate_batches, evaluate, solve_allocation
from coopt.solvers.whole_units.batches import BatchAllocation

__all__ = [
    "AdaCoOpt",
    "Allocation",
    "BatchAllocation",
    "Bound",
    "BoundWarning",
    "Budget",
    "Certificate",
    "CertificateError",
    "Certified",
    "Change",
    "ClientProbe",
    "ClientReport",
    "Cohort",
    "Constants",
    "Controller",
    "CooptError",
    "Dynamite",
    "Fleet",
    "Frontier",
    "FrontierPoint",
    "InfeasibleError",
    "InvalidProblemError",
    "MissingDependencyError",
    "NonConvex",
    "Problem",
    "RoundPlan",
    "Sensitivity",
    "Solutions",
    "SolverError",
    "Status",
    "Stopped",
    "TradeOff",
    "__version__",
    "allocate_batches",
    "choose_cohort",
    "choose_participants",
    "evaluate",
    "frontier",
    "leave_out",
    "sensitivity",
    "solve_allocation",
    "solve_many",
]

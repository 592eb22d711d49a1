# The public names, and where each is defined.
# coopt/__init__.py reads this file to load a name when it is first used.

from ._version import __version__
from .errors import (
    BoundWarning,
    CertificateError,
    CheckpointError,
    CheckpointWarning,
    CooptError,
    InfeasibleError,
    InvalidProblemError,
    MeasurementWarning,
    MissingDependencyError,
    SolverError,
)
from .measuring.from_gradients import measure
from .measuring.measurement import Measurement
from .measuring.probe import ClientProbe
from .measuring.report import ClientReport
from .objectives.certified import Certified
from .objectives.forecast.forecast import Forecast
from .objectives.forecast.model import LocalModel
from .objectives.forecast.optimiser import ClientAdam, ClientSGD, Optimiser, ServerAdam, ServerSGD
from .objectives.nonconvex import NonConvex
from .objectives.protocol import Bound
from .objectives.published import AdaCoOpt, Dynamite
from .objectives.tradeoff import TradeOff
from .online.availability import Availability
from .online.controller import Controller
from .online.round_plan import RoundPlan, Stopped
from .plans.allocation import Allocation, Certificate, Status
from .plans.phase import Phase
from .plans.schedule import Schedule, ScheduleCertificate
from .problem.budget import Budget
from .problem.constants import Constants
from .problem.fleet import Fleet
from .problem.problem import Problem
from .questions.changes import Change, Sensitivity, sensitivity
from .questions.cohort import Cohort, choose_cohort, leave_out
from .questions.many import Solutions, solve_many
from .questions.pareto import Frontier, FrontierPoint, frontier
from .questions.participants import choose_participants
from .questions.schedule import evaluate_schedule, solve_schedule
from .questions.solve import allocate_batches, evaluate, solve_allocation
from .solvers.whole_units.batches import BatchAllocation

__all__ = [
    "AdaCoOpt",
    "Allocation",
    "Availability",
    "BatchAllocation",
    "Bound",
    "BoundWarning",
    "Budget",
    "Certificate",
    "CertificateError",
    "Certified",
    "Change",
    "CheckpointError",
    "CheckpointWarning",
    "ClientAdam",
    "ClientProbe",
    "ClientReport",
    "ClientSGD",
    "Cohort",
    "Constants",
    "Controller",
    "CooptError",
    "Dynamite",
    "Fleet",
    "Forecast",
    "Frontier",
    "FrontierPoint",
    "InfeasibleError",
    "InvalidProblemError",
    "LocalModel",
    "Measurement",
    "MeasurementWarning",
    "MissingDependencyError",
    "NonConvex",
    "Optimiser",
    "Phase",
    "Problem",
    "RoundPlan",
    "Schedule",
    "ScheduleCertificate",
    "Sensitivity",
    "ServerAdam",
    "ServerSGD",
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
    "evaluate_schedule",
    "frontier",
    "leave_out",
    "measure",
    "sensitivity",
    "solve_allocation",
    "solve_many",
    "solve_schedule",
]

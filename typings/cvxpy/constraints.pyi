from cvxpy import Constraint, Expression

class Inequality(Constraint):
    expr: Expression
    def __init__(self, lhs: Expression, rhs: Expression) -> None: ...

class Equality(Constraint):
    expr: Expression
    def __init__(self, lhs: Expression, rhs: Expression) -> None: ...

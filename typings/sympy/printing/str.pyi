from collections.abc import Callable

from sympy import Basic, Symbol

class StrPrinter:
    _print_Symbol: Callable[[Symbol], str]
    def doprint(self, expr: Basic) -> str: ...

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

def njit(
    *, cache: bool = ..., nogil: bool = ..., error_model: str = ..., fastmath: bool | set[str] = ...
) -> Callable[[Function], Function]: ...

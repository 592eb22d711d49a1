"""The public path of the gradient sketch."""

from coopt.measuring.gradient_sketch import count_sketch

__all__ = ["count_sketch"]

"""Data that arrive while training runs: bounded buffers, arrival processes, gradient bias."""

from coopt.streaming.arrivals import ArrivalProcess, Burst, FixedCount, Poisson, Replay, Smooth, stream_order
from coopt.streaming.bias import (
    SamplerAdvice,
    gradient_error,
    group_total_variation,
    inclusion_probability,
    recommend_sampler,
    total_variation,
    variance_factor,
)
from coopt.streaming.buffers import Buffer, Fifo, RandomReplacement, Reservoir

__all__ = [
    "ArrivalProcess",
    "Buffer",
    "Burst",
    "Fifo",
    "FixedCount",
    "Poisson",
    "RandomReplacement",
    "Replay",
    "Reservoir",
    "SamplerAdvice",
    "Smooth",
    "gradient_error",
    "group_total_variation",
    "inclusion_probability",
    "recommend_sampler",
    "stream_order",
    "total_variation",
    "variance_factor",
]

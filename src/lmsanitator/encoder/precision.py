"""The precision of searches. Evidence is confirmed in fp32 whatever is chosen here."""

import math
import time
from functools import cache
from typing import Literal

import torch
from torch.nn import functional

Precision = Literal["auto", "fp32", "bf16"]
_PAYS = 1.4
"""How much faster bf16 has to be before `auto` takes it. CPUs with units for it are at two and beyond, those without
below one: in between a busy moment does not decide, which would make another scan of the same seed."""
_TOKENS, _HIDDEN, _TRIES = 1024, 512, 15


def takes_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether searches compute in bf16: where that was asked for, and with `auto` on GPUs and on CPUs where it pays."""
    if precision == "auto":
        return device.type == "cuda" or (device.type == "cpu" and bf16_pays())
    return precision == "bf16"


@cache
def bf16_pays() -> bool:
    """Whether this CPU multiplies matrices in bf16 clearly faster than in fp32. That is measured, which takes
    less than 0.1 s: of CPUs that know bf16 (AVX-512) some are slower in it than in fp32, and some four times faster."""
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(_TRIES):
        for precision, least in seconds.items():
            inputs, weights = (torch.ones(rows, _HIDDEN, dtype=precision) for rows in (_TOKENS, _HIDDEN))
            started = time.perf_counter()
            functional.linear(inputs, weights)
            seconds[precision] = min(least, time.perf_counter() - started)
    return seconds[torch.float32] >= _PAYS * seconds[torch.bfloat16]

"""The number format of training passes: half precision where this machine is faster in it."""

import time
from functools import cache

import torch

from oar_core.train.parallel import Processes

_SIDE = 512
_REPEATS = 40


def autocast(device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions run in `fast_dtype(device)`."""
    dtype = fast_dtype(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on an accelerator; on a CPU whichever of bfloat16 and float32 multiplies matrices faster, measured once,
    and float32 where several processes have to agree.

    CPUs differ: one with bf16 dot products may be more than twice as fast in bf16; one that lacks them, or whose matrix
    tiles a hypervisor hides, is slower.
    """
    if device.type != "cpu":
        return torch.bfloat16
    return torch.float32 if Processes.current().count > 1 else _faster_on_cpu()


@cache
def _faster_on_cpu() -> torch.dtype:
    """The shortest of many products in turn: what else the machine does only adds, and adds to both."""
    matrices = {dtype: torch.ones(_SIDE, _SIDE, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)}
    shortest = dict.fromkeys(matrices, float("inf"))
    for _ in range(_REPEATS):
        for dtype, matrix in matrices.items():
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            shortest[dtype] = min(shortest[dtype], time.perf_counter() - start)
    return min(shortest, key=shortest.__getitem__)

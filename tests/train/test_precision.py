"""The faster number format of a device."""

import itertools

import pytest
import torch

from oar_core.train import precision


@pytest.mark.parametrize("faster", [torch.bfloat16, torch.float32])
def test_a_cpu_computes_in_the_format_that_multiplies_faster(
    faster: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where other work holds up most of its products."""
    clock = [0.0]
    interruptions = itertools.count()

    def multiply(matrix: torch.Tensor, _other: torch.Tensor) -> torch.Tensor:
        clock[0] += 1.0 if matrix.dtype == faster else 2.0
        if matrix.dtype == faster and next(interruptions) % 10:
            clock[0] += 5.0
        return matrix

    monkeypatch.setattr(precision.torch, "mm", multiply)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    precision._faster_on_cpu.cache_clear()
    try:
        assert precision.fast_dtype(torch.device("cpu")) == faster
    finally:
        precision._faster_on_cpu.cache_clear()


def test_a_gpu_computes_in_bfloat16() -> None:
    assert precision.fast_dtype(torch.device("cuda")) == torch.bfloat16

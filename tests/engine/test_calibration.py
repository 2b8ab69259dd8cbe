"""What is measured is chosen by figures, kept on disk, and left alone where sameness was asked for."""

import json
import math
from collections.abc import Sequence

import pytest
import torch

from oar_core.engine import calibration
from oar_core.engine.calibration import Calibration
from oar_core.nn.packed import NEVER
from tests.engine.backbones import tiny_backbone

BOTH = (torch.float32, torch.bfloat16)


def figures(monkeypatch: pytest.MonkeyPatch, seconds: dict[tuple[torch.dtype, int], float]) -> None:
    """Every call takes the time of its number format and threads; a slow machine passes nothing over."""
    monkeypatch.setattr(calibration, "MEASURE_SECONDS", math.inf)

    def fixed(kernel: torch.nn.Module, x: torch.Tensor) -> float:
        return seconds[x.dtype, torch.get_num_threads()]

    monkeypatch.setattr(calibration, "_seconds", fixed)


@pytest.mark.parametrize(
    ("best", "threads"), [(torch.float32, 1), (torch.float32, 2), (torch.bfloat16, 1), (torch.bfloat16, 2)]
)
def test_the_quickest_number_format_and_threads_are_chosen(monkeypatch, best, threads):
    figures(monkeypatch, {(d, t): 1.0 if (d, t) == (best, threads) else 1.1 for d in BOTH for t in (1, 2)})
    before = torch.get_num_threads()
    chosen = Calibration.measure(tiny_backbone(), BOTH, (1, 2))
    assert (chosen.dtype, chosen.threads) == (str(best).removeprefix("torch."), threads)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("plain", "packed", "least"),
    [
        ((1, 1, 1), (2, 2, 2), NEVER),
        ((2, 2, 2), (1, 1, 1), 1),
        ((1, 2, 2), (2, 1, 1), 8),
        ((2, 1, 2), (1, 2, 1), 64),
        ((1, 1, 1), (0, 0, 0), NEVER),
    ],
)
def test_packed_weights_are_taken_from_where_they_pay(plain: Sequence[float], packed: Sequence[float], least: int):
    assert calibration._least_packed(plain, packed) == least


def test_what_is_slow_to_measure_is_passed_over(monkeypatch):
    monkeypatch.setattr(calibration, "MEASURE_SECONDS", 0.0)
    assert Calibration.measure(tiny_backbone(), (torch.float32,), (1, 2)).threads == 1


def test_the_first_measurement_holds_for_all(tmp_path, monkeypatch):
    figures(monkeypatch, {(torch.float32, 1): 1.0, (torch.float32, 2): 2.0})
    first = Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,), (1, 2))
    figures(monkeypatch, {(torch.float32, 1): 2.0, (torch.float32, 2): 1.0})
    assert Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,), (1, 2)) == first
    (path,) = (tmp_path / "new").iterdir()
    assert json.loads(path.read_text())["threads"] == 1
    assert Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,), (2,)).threads == 2

"""What is measured is chosen by figures, kept on disk, and left alone where sameness was asked for."""

import json
import random

import pytest
import torch
from torch import nn

from oar_core.engine import measurements
from oar_core.engine.calibration import PADDED_ROWS, ROWS, Calibration, times_best, words
from oar_core.nn.packed import NEVER, PackedLinear, Packing, can_pack
from tests.engine.backbones import tiny_backbone

BOTH = (torch.float32, torch.bfloat16)
pytestmark = pytest.mark.skipif(not can_pack(tiny_backbone()), reason="this build of PyTorch cannot pack weights")


class FakeClock:
    """Each kernel takes the time that `speed` says for its number format, packing and rows; others wait meanwhile."""

    def __init__(self, monkeypatch, speed, seed=0, noise=0.0):
        self._time, self._generator = 0.0, random.Random(seed)
        clock = self

        def run(kernel, x, *, packed):
            relative = speed(x.dtype, packed, len(x))
            scatter = clock._generator.lognormvariate(0, noise) * (30 if clock._generator.random() < noise / 10 else 1)
            clock._time += relative * scatter
            return x

        monkeypatch.setattr(nn.Linear, "forward", lambda self, x: run(self, x, packed=None))
        monkeypatch.setattr(PackedLinear, "forward", lambda self, x: run(self, x, packed=self.packing))

    def __call__(self):
        return self._time


def measured(monkeypatch, speed, seed=0, noise=0.0, dtypes=BOTH):
    return Calibration.measure(tiny_backbone(), dtypes, FakeClock(monkeypatch, speed, seed, noise))


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_same_in_twenty_starts_on_a_busy_machine(monkeypatch, seed):
    """bf16 is twice as fast, and packed from two rows on; five rows take less than two to four."""

    def speed(dtype, packed, rows):
        usual = {torch.float32: 2.0, torch.bfloat16: 1.0}[dtype]
        if packed is None:
            return usual
        if rows == 1:
            return 1.5 * usual
        return usual * (0.8 if rows >= PADDED_ROWS else 0.9 if packed == Packing() else 0.6)

    chosen = measured(monkeypatch, speed, seed, noise=0.15)
    assert (chosen.dtype, chosen.packing) == ("bfloat16", Packing(2, PADDED_ROWS))


@pytest.mark.parametrize("best", BOTH)
def test_the_quickest_number_format_is_chosen_and_of_equals_the_first(monkeypatch, best):
    name = str(best).removeprefix("torch.")
    assert measured(monkeypatch, lambda dtype, *_: 1.0 if dtype is best else 1.2).dtype == name
    assert measured(monkeypatch, lambda dtype, *_: 1.0 if dtype is best else 1.02).dtype == "float32"


@pytest.mark.parametrize(
    ("packed_pays", "least"), [((), NEVER), (ROWS, 1), (ROWS[2:], ROWS[2]), (ROWS[-1:], ROWS[-1]), (ROWS[:-1], NEVER)]
)
def test_packed_weights_are_taken_from_where_they_pay(monkeypatch, packed_pays, least):
    chosen = measured(
        monkeypatch, lambda _, packed, rows: 1.0 if packed is None else 0.5 if rows in packed_pays else 2.0
    )
    assert chosen.packing == Packing(least)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("gains", "padded"), [({2: 0.7, 4: 0.97}, PADDED_ROWS), ({2: 0.8, 4: 1.3}, 1)])
def test_rows_are_padded_where_few_rows_gain_together(monkeypatch, seed, gains, padded):
    """One of them may gain next to nothing: then it says nothing either."""

    def speed(_, packed, rows):
        return 2.0 if packed is None else 1.0 if packed == Packing() else gains.get(rows, 1.0)

    assert measured(monkeypatch, speed, seed, noise=0.15).packing == Packing(1, padded)


def test_a_large_network_is_measured_in_every_number_format(monkeypatch):
    """A call of an hour: what bounds the measurement is its rounds, not its time."""
    chosen = measured(monkeypatch, lambda dtype, *_: 3600.0 if dtype is torch.float32 else 1800.0)
    assert chosen.dtype == "bfloat16"


def test_choices_of_several_starts_are_judged(monkeypatch):
    """bf16 takes half as long, and packed weights twice as long."""
    clock = FakeClock(monkeypatch, lambda dtype, packed, _: (1 + (packed is not None)) / (1 + (dtype is BOTH[1])))
    choices = [(BOTH[0], Packing(NEVER)), (BOTH[1], Packing(1)), (BOTH[1], Packing(NEVER))]
    assert times_best(tiny_backbone(), choices, clock) == pytest.approx([2, 2, 1])


def test_a_measurement_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        chosen = Calibration.measure(tiny_backbone(), (torch.float32,))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert chosen.dtype == "float32"
    assert f"least_packed_rows={chosen.least_packed_rows}" in words(chosen)


def test_the_first_measurement_holds_for_all(tmp_path, monkeypatch):
    def measure(_network, dtypes):
        return Calibration(str(dtypes[0]).removeprefix("torch."), next(numbers), 1, 1.0, 2.0)

    numbers = iter(range(10, 20))
    monkeypatch.setattr(Calibration, "measure", measure)
    first = Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,))
    assert Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,)) == first
    (path,) = (tmp_path / "new").iterdir()
    assert json.loads(path.read_text())["least_packed_rows"] == 10
    assert Calibration.stored(tmp_path / "new", tiny_backbone(), BOTH) != first
    path.write_text("")
    again = Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,))
    assert again.least_packed_rows > 11, "a broken file is measured once more"
    assert Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,)) == again
    assert [file.suffix for file in (tmp_path / "new").iterdir()] == [".json"] * 2, "no draft is left"
    monkeypatch.setattr(measurements, "_processor", lambda: "another")
    assert Calibration.stored(tmp_path / "new", tiny_backbone(), (torch.float32,)) != first

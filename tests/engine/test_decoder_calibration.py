"""Pictures are decoded in bf16 where that is quicker and changes next to nothing."""

from pathlib import Path

import pytest
import torch

from oar_core.engine.decoder_calibration import MOST_GREY_LEVELS, DecoderCalibration
from oar_core.models.base import ImageTokenizer
from oar_core.models.load import load_decoder
from oar_core.nn.rounded_conv import has_bf16
from oar_core.weights import Manifest

MANIFEST = Manifest.load(Path(__file__).parents[2] / "weights")


class FakeTokenizer(ImageTokenizer):
    """A grey picture, after a time."""

    image_size, grid, vocab_size = (8, 8), (2, 2), 16  # pyright: ignore[reportAssignmentType]

    def __init__(self, clock: list[float], seconds: float, grey_levels: float) -> None:
        super().__init__()
        self._clock, self._spent, self._value = clock, seconds, grey_levels / 127.5

    def encode(self, images):
        raise AssertionError("nothing is encoded")

    def decode(self, token_ids):
        self._clock[0] += self._spent
        return torch.full((len(token_ids), 3, 8, 8), self._value)

    def decode_partial(self, token_ids, known):
        raise AssertionError("nothing is decoded in part")


@pytest.mark.parametrize(
    ("seconds", "grey_levels", "chosen"),
    [
        (0.5, 0.4, "bfloat16"),
        (0.9, 0.4, "float32"),
        (2.0, 0.0, "float32"),
        (0.1, MOST_GREY_LEVELS + 0.1, "float32"),
    ],
)
def test_bf16_is_chosen_where_it_is_quicker_and_changes_little(seconds, grey_levels, chosen):
    clock = [0.0]
    measured = DecoderCalibration.measure(
        FakeTokenizer(clock, 1.0, 0.0), FakeTokenizer(clock, seconds, grey_levels), lambda: clock[0]
    )
    assert measured.dtype == chosen
    assert measured.gain == pytest.approx(1 / seconds, rel=1e-3)
    assert measured.grey_levels == pytest.approx(grey_levels, abs=1e-3)


def test_the_first_measurement_holds_for_a_model(tmp_path):
    clock = [0.0]
    exact, rounded = FakeTokenizer(clock, 1.0, 0.0), FakeTokenizer(clock, 0.5, 2.0)
    first = DecoderCalibration.stored(tmp_path, "one", exact, lambda: rounded)
    assert first.grey_levels == pytest.approx(2.0, abs=1e-3)
    assert DecoderCalibration.stored(tmp_path, "one", exact, lambda: exact) == first
    assert DecoderCalibration.stored(tmp_path, "another", exact, lambda: exact).grey_levels == 0.0


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this CPU has no instructions for bf16")
@pytest.mark.parametrize("name", MANIFEST.entries)
def test_decoders_of_trained_models_keep_well_within_the_bound(name):
    exact, rounded = (load_decoder(MANIFEST.folder(name), "cpu", dtype) for dtype in (torch.float32, torch.bfloat16))
    assert 0 < DecoderCalibration.measure(exact, rounded).grey_levels <= MOST_GREY_LEVELS / 2

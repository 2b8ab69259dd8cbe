"""The evaluation network as a file and as a reader."""

from pathlib import Path

import numpy as np
import pytest
import torch

from oar_core.errors import ConfigError, WeightsError
from oar_core.train.attributes import AttributeVocabulary
from oar_core.train.evaluator import CONFIG, WEIGHTS, Evaluator, EvaluatorConfig, EvaluatorNet, save_evaluator

CPU = torch.device("cpu")
VOCABULARY = AttributeVocabulary({"kind": ("bag", "shirt", "other"), "colour": ("red", "blue")})


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 20, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    net = EvaluatorNet(EvaluatorConfig(widths=(8, 16), blocks=2), VOCABULARY.sizes)
    save_evaluator(tmp_path / "evaluator", "tiny", net, VOCABULARY)
    return tmp_path / "evaluator"


def test_reading_gives_features_and_a_class_of_each_attribute(folder: Path) -> None:
    evaluator = Evaluator.load(folder, CPU)
    reading = evaluator.read(pictures(5))
    assert reading.features.shape == (5, 16)
    assert reading.features.dtype == torch.float32
    assert (reading.features >= 0).all()
    assert reading.classes.shape == (5, 2)
    assert (reading.classes < torch.tensor(VOCABULARY.sizes)).all()
    assert len(reading[1:3]) == 2


def test_a_reading_does_not_depend_on_the_batch(folder: Path) -> None:
    evaluator = Evaluator.load(folder, CPU)
    whole, pieces = evaluator.read(pictures(7)), evaluator.read(pictures(7), batch_size=2)
    # Convolutions run in bf16, which rounds at 2**-9.
    torch.testing.assert_close(whole.features, pieces.features, atol=2e-2, rtol=2e-2)
    assert torch.equal(whole.classes, pieces.classes)


def test_what_is_loaded_is_what_was_saved(folder: Path) -> None:
    first, second = Evaluator.load(folder, CPU), Evaluator.load(folder, CPU)
    assert first.vocabulary == VOCABULARY
    assert (first.name, first.digest) == ("tiny", second.digest)
    assert torch.equal(first.read(pictures(4)).features, second.read(pictures(4)).features)
    assert not first.net.training


def test_missing_and_misfit_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="oar train evaluator"):
        Evaluator.load(tmp_path, CPU)
    config = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(config.replace('"blocks": 2', '"blocks": 1'))
    with pytest.raises(WeightsError, match="does not fit"):
        Evaluator.load(folder, CPU)
    (folder / CONFIG).write_text(config)
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="missing"):
        Evaluator.load(folder, CPU)


def test_an_empty_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one width"):
        EvaluatorConfig(widths=())

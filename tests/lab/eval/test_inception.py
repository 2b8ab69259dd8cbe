"""Standard FID says why it is missing."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from oar_lab.eval import inception


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    pictures = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    assert inception.inception_distance(pictures, pictures) == {
        "unavailable": "the package torch-fidelity is not installed"
    }


@pytest.mark.usefixtures("_installed")
def test_missing_weights_are_named(tmp_path: Path) -> None:
    assert "is not in torch.hub's folder" in inception.why_no_inception(tmp_path / "weights.pth")


@pytest.mark.usefixtures("_installed")
def test_a_file_that_is_not_the_published_one_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / inception.WEIGHTS
    path.write_bytes(b"cos\nsystem\n")
    monkeypatch.setattr(inception, "inception_path", lambda: path)
    pictures = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    assert "not the published file" in inception.inception_distance(pictures, pictures)["unavailable"]


def test_distances_are_measured_on_the_networks_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is a stand-in whose features are a picture's mean red and green; the arithmetic is ours."""

    class Network:
        def __init__(self, name: str, features: list[str], feature_extractor_weights_path: str) -> None:
            assert features == ["2048"]

        def __call__(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
            assert pictures.dtype == torch.uint8
            return (pictures[:, :2].float().mean((2, 3)),)

    stand_in = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    stand_in.FeatureExtractorInceptionV3 = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(inception, "why_no_inception", lambda path: "")
    real = np.random.default_rng(0).integers(0, 200, (40, 4, 4, 3), dtype=np.uint8)
    shifted = real + np.array([3, 4, 50], dtype=np.uint8)
    result = inception.inception_distance(shifted, real)
    assert result["fid"] == pytest.approx(25.0, abs=1e-4)
    assert (result["num_samples"], result["num_real"]) == (40, 40)

"""EfficientNet-Lite0: its shape, its weights, how pictures are prepared, and that nothing is trained on it."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core import train
from oar_core.errors import WeightsError
from oar_lab.eval import lite0
from oar_lab.eval.lite0_features import Lite0Features

TRAIN = Path(train.__path__[0])
GOLDEN_AT = [0, 342, 539, 808, 1013]
GOLDEN = [[0.84594, 0.36359, 0.85098, 2.81869, 0.47564], [0.67368, 0.42595, 0.8014, 2.78808, 0.81219]]

needs_weights = pytest.mark.skipif(bool(lite0.why_no_lite0()), reason="the weights are not installed")


def stored_state(seed: int) -> dict[str, torch.Tensor]:
    """A file's tensors, as its package names them, of random values."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, module: torch.nn.Conv2d) -> None:
        weight = torch.randn(module.weight.shape, generator=generator)
        state[f"{conv}.weight"] = weight * (2 / weight[0].numel()) ** 0.5
        for name in ("weight", "running_var"):
            state[f"{norm}.{name}"] = torch.rand(len(weight), generator=generator) + 0.5
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(len(weight), generator=generator) * 0.1

    net = lite0.Lite0Net()
    add("_conv_stem", "_bn0", net.stem)
    for number, block in enumerate(net.blocks):
        assert isinstance(block, lite0.Bottleneck)
        if block.expand is not None:
            add(f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0", block.expand)
        add(f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1", block.depthwise)
        add(f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2", block.project)
    add("_conv_head", "_bn1", net.head)
    return state


def test_normalisation_is_folded_into_the_convolution_before_it() -> None:
    stored = stored_state(0)
    folded = lite0.folded_state(stored)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    raw = torch.nn.functional.conv2d(x, stored["_conv_stem.weight"])
    moments = (stored[f"_bn0.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, weight, bias = moments
    expected = torch.nn.functional.batch_norm(raw, mean, variance, weight, bias, eps=1e-3)
    found = torch.nn.functional.conv2d(x, folded["stem.weight"], folded["stem.bias"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    lite0.Lite0Net().load_state_dict(folded)


def test_the_padding_is_tensorflows() -> None:
    """At stride 2 an even side gets k - 2 pixels, the odd one of them at the end; at stride 1 both ends the same."""
    for kernel, stride, before, after in ((3, 2, 0, 1), (5, 2, 1, 2), (3, 1, 1, 1), (5, 1, 2, 2), (1, 1, 0, 0)):
        conv = lite0.SameConv(2, 2, kernel, stride)
        x = torch.randn(1, 2, 8, 8)
        padded = torch.nn.functional.pad(x, (before, after, before, after))
        expected = torch.nn.functional.conv2d(padded, conv.weight, conv.bias, stride)
        torch.testing.assert_close(conv(x), expected)
        assert expected.shape[-1] == 8 // stride


def test_pictures_are_resized_as_pillow_does_before_it_rounds() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 300, 40, 3), dtype=np.uint8)
    bands = [Image.fromarray(pixels[0, :, :, band].astype(np.float32)) for band in range(3)]
    size = (lite0.SIDE, lite0.SIDE)
    pillow = np.stack([np.asarray(band.resize(size, Image.Resampling.BICUBIC)) for band in bands], axis=-1)
    prepared = lite0.prepare_pixels(pixels, torch.device("cpu"))[0].permute(1, 2, 0) * 128 + 127
    np.testing.assert_allclose(prepared.numpy(), pillow.clip(0, 255), atol=1e-2)
    assert prepared.min() >= 0
    assert prepared.max() <= 255


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert lite0.why_no_lite0() == f"the package {lite0.PACKAGE} is not installed"
    with pytest.raises(WeightsError, match=lite0.PACKAGE):
        lite0.Lite0.load(torch.device("cpu"))


def test_a_file_that_is_not_the_published_one_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / lite0.WEIGHTS.name
    monkeypatch.setattr(lite0, "lite0_path", lambda: path)
    assert "holds no" in lite0.why_no_lite0()
    path.write_bytes(b"cos\nsystem\n")
    assert "not the published file" in lite0.why_no_lite0()


@needs_weights
def test_features_are_those_of_the_published_implementation() -> None:
    """Golden values of `efficientnet-lite-pytorch` 0.1.0 with the same weights, on pictures that hold any values."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    features = lite0.Lite0.load(torch.device("cpu")).features(pixels)
    assert features.shape == (2, lite0.NUM_FEATURES)
    torch.testing.assert_close(features[:, GOLDEN_AT], torch.tensor(GOLDEN), atol=1e-4, rtol=1e-4)


@needs_weights
def test_features_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    first = Lite0Features(tmp_path, torch.device("cpu")).of(pixels)
    monkeypatch.setattr(lite0.Lite0, "load", None)
    assert torch.equal(Lite0Features(tmp_path, torch.device("cpu")).of(pixels.copy()), first)


def test_no_training_code_names_it() -> None:
    for path in TRAIN.rglob("*.py"):
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [f"{node.module}.{alias.name}" for alias in node.names]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not any("lite0" in name for name in imported), path


def test_no_training_code_loads_it() -> None:
    """Not through other modules either."""
    modules = [
        ".".join(("oar_core", "train", *path.relative_to(TRAIN).with_suffix("").parts))
        for path in TRAIN.rglob("*.py")
        if path.stem != "__init__"
    ]
    script = f"import sys\nfor name in {modules!r}: __import__(name)\nprint([n for n in sys.modules if 'lite0' in n])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert len(modules) > 20
    assert loaded.strip() == "[]"

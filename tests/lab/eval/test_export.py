"""Exports that other projects read."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from oar_cli import commands
from oar_core.models.classes import ClassConditioner
from oar_core.models.model import Model
from oar_core.weights import write_manifest
from oar_lab.eval import draws as draws_module
from oar_lab.eval.export import class_prompts, write_npz
from tests.models.folders import write_golden_model


def test_numpy_reads_what_was_written_in_batches(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), dtype=np.uint8)
    labels = np.arange(7)
    write_npz(tmp_path / "out.npz", pixels.shape, (pixels[start : start + 3] for start in (0, 3, 6)), labels)
    with np.load(tmp_path / "out.npz") as stored:
        assert stored.files == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(stored["arr_0"], pixels)
        np.testing.assert_array_equal(stored["arr_1"], labels)
    write_npz(tmp_path / "plain.npz", pixels.shape, [pixels], None)
    with np.load(tmp_path / "plain.npz") as stored:
        assert stored.files == ["arr_0"]


def test_an_export_that_ends_early_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="announced"):
        write_npz(tmp_path / "out.npz", (3, 4, 4, 3), [np.zeros((2, 4, 4, 3), dtype=np.uint8)], None)
    assert not list(tmp_path.iterdir())


def test_classes_come_in_turn(tiny_pipeline: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert class_prompts(tiny_pipeline, 4) is None
    monkeypatch.setattr(tiny_pipeline, "conditioner", ClassConditioner.of(("hen", "cock", "tench"), 3))
    found = class_prompts(tiny_pipeline, 7)
    assert found is not None
    assert found[0] == ["0", "1", "2", "0", "1", "2", "0"]
    assert found[1].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_model_of_classes_is_exported_without_data_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_golden_model("arpg", tmp_path / "weights" / "arpg")
    write_manifest(tmp_path / "weights", "arpg", {"arpg": "MIT"})
    generate, made = draws_module.generate, []

    def counted(backbone, requests, *rest, **options):
        made.append(len(requests))
        return generate(backbone, requests, *rest, **options)

    monkeypatch.setattr(draws_module, "generate", counted)

    def export(count: int) -> dict[str, np.ndarray]:
        result = CliRunner().invoke(
            commands["eval"],
            ["export", "--weights", str(tmp_path / "weights"), "--run", str(tmp_path / "run"), "--samples", str(count),
             "--batch", "4", "--seed", "3", "--out", str(tmp_path / "out.npz")],
            catch_exceptions=False,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout.splitlines()[-1])
        assert (told["seed"], told["images"]) == (3, [0, count - 1])
        assert json.loads((tmp_path / "out.json").read_text()) == told
        with np.load(tmp_path / "out.npz") as stored:
            return dict(stored)

    small, large = export(6), export(12)
    assert sum(made) == 12, "what was drawn is not drawn again"
    assert large["arr_0"].dtype == np.uint8
    assert large["arr_0"].shape[0] == 12
    assert large["arr_1"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert np.abs(large["arr_0"][:6].astype(int) - small["arr_0"]).max() <= 1, "batches may round differently"


def test_captions_need_pictures(weights_dir: Path, tmp_path: Path) -> None:
    arguments = ["export", "--weights", str(weights_dir), "--run", str(tmp_path), "--out", str(tmp_path / "out.npz")]
    result = CliRunner().invoke(commands["eval"], arguments)
    assert result.exit_code == 1
    assert "--data says of which pictures" in result.output

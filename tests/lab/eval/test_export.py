"""Exports that other projects read."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_core.weights import write_manifest
from oar_lab.eval import export as export_module
from oar_lab.eval.export import (
    MOST_EXPORT_SEED,
    MOST_PICTURES,
    PictureStore,
    class_labels,
    picture_seed,
    write_npz,
)
from oar_wire.options import MAX_SEED
from tests.models.folders import write_golden_model, write_unconditional_model


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


@pytest.mark.parametrize(("num_classes", "count"), [(10, 50), (10, 7), (3, 8), (1000, 2503)])
def test_classes_are_balanced_whatever_their_number(num_classes: int, count: int) -> None:
    times = np.bincount(class_labels(num_classes, count), minlength=num_classes)
    assert times.sum() == count
    assert times.max() - times.min() <= 1
    assert sorted(times, reverse=True) == times.tolist(), "the first ones have one more"


def test_each_picture_has_a_seed_that_no_other_has() -> None:
    seeds = [picture_seed(seed, index) for seed in (0, 1, 2) for index in (0, 1, MOST_PICTURES - 1)]
    assert len(set(seeds)) == len(seeds)
    assert picture_seed(MOST_EXPORT_SEED, MOST_PICTURES - 1) <= MAX_SEED


def picture(index: int) -> np.ndarray:
    return np.full((2, 3, 3), index, dtype=np.uint8)


def drawn(indices: range, die_at: int | None = None) -> Iterator[np.ndarray]:
    for index in indices:
        if index == die_at:
            raise KeyboardInterrupt
        yield picture(index)


def test_an_interrupted_export_goes_on_behind_its_last_whole_part(tmp_path: Path) -> None:
    asked: list[range] = []

    def source(indices: range, die_at: int | None = None) -> Iterator[np.ndarray]:
        asked.append(indices)
        return drawn(indices, die_at)

    with pytest.raises(KeyboardInterrupt):
        PictureStore(tmp_path, (2, 3)).fill(10, lambda indices: source(indices, 6), 4)
    store = PictureStore(tmp_path, (2, 3))
    assert len(store) == 4
    store.fill(10, source, 4)
    assert asked == [range(10), range(4, 10)]
    assert np.array_equal(np.concatenate(list(store.batches(10))), np.stack([picture(index) for index in range(10)]))
    assert np.array_equal(np.concatenate(list(store.batches(5)))[-1], picture(4))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model of ten classes."""
    write_golden_model("arpg", tmp_path / "weights" / "arpg")
    write_manifest(tmp_path / "weights", "arpg", {"arpg": "MIT"})
    return tmp_path / "weights"


def export(weights: Path, folder: Path, count: int, *more: str) -> tuple[bytes, dict[str, np.ndarray]]:
    """The file, and what numpy reads of it."""
    out = folder / f"{count}.npz"
    words = ["--weights", str(weights), "--run", str(folder / "run"), "--samples", str(count), "--out", str(out)]
    result = CliRunner().invoke(main, ["eval", "export", *words, "--batch", "4", "--seed", "3", "--json", *more])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert json.loads(out.with_suffix(".json").read_text()) == told
    assert (told["seed"], told["picture_seeds"]) == (3, "3 * 1000000 + number of the picture, from 0")
    with np.load(out) as stored:
        return out.read_bytes(), dict(stored)


def test_a_larger_export_begins_with_the_smaller(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, made = export_module.generate, []

    def counted(backbone, requests, *rest, **options):
        made.extend(request.seed for request in requests)
        return generate(backbone, requests, *rest, **options)

    monkeypatch.setattr(export_module, "generate", counted)
    (_, small), (_, large) = export(weights, tmp_path, 8), export(weights, tmp_path, 13)
    assert made == [3_000_000 + index for index in range(13)], "what was drawn is not drawn again"
    assert (large["arr_0"].dtype, large["arr_0"].shape) == (np.uint8, (13, 8, 8, 3))
    assert large["arr_1"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert np.array_equal(large["arr_0"][:8], small["arr_0"])


@pytest.mark.parametrize("more", [(), ("--deterministic",)])
def test_an_interrupted_export_is_the_undisturbed_one(
    more: tuple[str, ...], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole, _ = export(weights, tmp_path / "whole", 10, *more)
    generate, calls = export_module.generate, 0

    def dying(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == (3 if not more else 7):
            raise KeyboardInterrupt
        return generate(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "generate", dying)
        with pytest.raises(AssertionError):
            export(weights, tmp_path, 10, *more)
    assert not (tmp_path / "10.npz").exists()
    assert export(weights, tmp_path, 10, *more)[0] == whole


def test_a_model_without_a_condition_needs_no_captions(tmp_path: Path) -> None:
    write_unconditional_model(tmp_path / "weights" / "plain")
    write_manifest(tmp_path / "weights", "plain", {"plain": "MIT"})
    _, found = export(tmp_path / "weights", tmp_path, 5)
    assert set(found) == {"arr_0"}
    assert len(np.unique(found["arr_0"], axis=0)) > 1


def test_captions_need_pictures(weights_dir: Path, tmp_path: Path) -> None:
    arguments = ["--weights", str(weights_dir), "--run", str(tmp_path), "--out", str(tmp_path / "out.npz")]
    result = CliRunner().invoke(main, ["eval", "export", *arguments])
    assert result.exit_code == 1
    assert "--data says of which pictures" in result.output

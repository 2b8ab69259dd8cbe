"""The manifest of shipped weights."""

from pathlib import Path

import pytest

from oar_core.errors import WeightsError
from oar_core.weights import Manifest, write_manifest


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    write_manifest(tmp_path, "two", {"one": "MIT", "two": "CC0-1.0"})
    return tmp_path


def test_the_manifest_names_models_default_and_licences(weights: Path) -> None:
    manifest = Manifest.load(weights)
    assert manifest.models == ("one", "two")
    assert manifest.default == "two"
    assert manifest.entries["one"].licence == "MIT"
    assert manifest.folder("one") == weights / "one"


def test_an_unknown_model_is_named(weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"'three'.*one, two"):
        Manifest.load(weights).folder("three")


def test_a_missing_file_is_named(weights: Path) -> None:
    (weights / "one" / "config.json").unlink()
    with pytest.raises(WeightsError, match="missing"):
        Manifest.load(weights).folder("one")


def test_a_changed_file_is_refused(weights: Path) -> None:
    (weights / "one" / "config.json").write_text("changed")
    with pytest.raises(WeightsError, match="sha256"):
        Manifest.load(weights).folder("one")


def test_no_manifest_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.toml").write_text('[models.a]\nlicence = "MIT"\n')
    with pytest.raises(WeightsError, match="sha256"):
        Manifest.load(tmp_path)


def test_a_mark_at_the_start_of_the_manifest_is_nothing(weights: Path) -> None:
    """Editors on Windows write one; it was a traceback."""
    path = weights / "manifest.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Manifest.load(weights).models == ("one", "two")


@pytest.mark.parametrize(
    "content",
    ["default = one", 'default = "a"\nmodels = 3\n', 'default = "a"\n[models]\na = 3\n', "\0", "\ufeff\ufeff"],
)
def test_what_is_no_manifest_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.toml").write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"manifest\.toml is no (TOML|manifest)"):
        Manifest.load(tmp_path)


def test_a_manifest_in_another_encoding_is_one_sentence(weights: Path) -> None:
    path = weights / "manifest.toml"
    path.write_bytes(path.read_text().encode("utf-16"))
    with pytest.raises(WeightsError, match=r"manifest\.toml is no TOML"):
        Manifest.load(weights)

"""Shipped weights: `manifest.toml` names every model and the SHA-256 of every file; only safetensors are loaded."""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from shutil import rmtree
from typing import Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from oar_core.errors import WeightsError
from oar_core.new_file import new_file

MANIFEST = "manifest.toml"
FP32_BYTES = 4  # of a number, in the format that networks are loaded in


@dataclass(frozen=True)
class ManifestEntry:
    name: str
    folder: Path
    licence: str
    sha256: dict[str, str]  # file name -> digest


@dataclass(frozen=True)
class Manifest:
    default: str
    entries: dict[str, ManifestEntry]

    @classmethod
    def load(cls, weights_dir: Path) -> Self:
        """Raises WeightsError when there is no manifest or it lacks a field."""
        path = weights_dir / MANIFEST
        if not path.exists():
            raise WeightsError(f"{path} does not exist")
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin a file with a mark
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WeightsError(f"{path} is no TOML: {error}") from error
        try:
            entries = {
                name: ManifestEntry(name, weights_dir / name, entry["licence"], dict(entry["sha256"]))
                for name, entry in data["models"].items()
            }
            return cls(data["default"], entries)
        except KeyError as error:
            raise WeightsError(f"{path} lacks the field {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{path} is no manifest: each model is a table with licence and sha256") from error

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.entries)

    def folder(self, name: str) -> Path:
        """The verified folder of a model. Raises WeightsError for an unknown name or a file that was changed."""
        entry = self.entries.get(name)
        if entry is None:
            raise WeightsError(f"unknown model {name!r}; the manifest has {', '.join(self.models)}")
        for file_name, digest in entry.sha256.items():
            path = entry.folder / file_name
            if not path.exists():
                raise WeightsError(f"{path} is missing")
            if file_digest(path) != digest:
                raise WeightsError(f"{path} does not match the manifest's sha256")
        return entry.folder


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file. Raises WeightsError when it is missing."""
    if not path.exists():
        raise WeightsError(f"{path} is missing")
    return load_file(path)


def count_numbers(path: Path) -> int:
    """Counts the numbers of a safetensors file by its header alone. Raises WeightsError for a broken file."""
    try:
        with safe_open(path, framework="pt") as file:
            return sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def write_manifest(weights_dir: Path, default: str, licences: dict[str, str]) -> None:
    """Writes `manifest.toml` for the model folders named in `licences`, hashing the files that a model loads."""
    entries: dict[str, ManifestEntry] = {}
    for name, licence in licences.items():
        folder = weights_dir / name
        files = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors"})
        entries[name] = ManifestEntry(name, folder, licence, {path.name: file_digest(path) for path in files})
    _write(weights_dir, Manifest(default, entries))


def add_model(weights_dir: Path, name: str, licence: str, sha256: dict[str, str]) -> None:
    """Lists a model whose folder is there; the first one of a manifest is its default. Raises WeightsError."""
    entry = ManifestEntry(name, weights_dir / name, licence, dict(sorted(sha256.items())))
    found = Manifest.load(weights_dir) if (weights_dir / MANIFEST).exists() else Manifest(name, {})
    _write(weights_dir, Manifest(found.default, {**found.entries, name: entry}))


def remove_model(weights_dir: Path, name: str) -> None:
    """Takes a model off the list and deletes its folder. Where it was the default one, the first of the others is.
    Raises WeightsError for one that is not there."""
    found = Manifest.load(weights_dir)
    if name not in found.entries:
        raise WeightsError(f"unknown model {name!r}; the manifest has {', '.join(found.models)}")
    others = {key: entry for key, entry in found.entries.items() if key != name}
    if others:
        _write(weights_dir, Manifest(next(iter(others)) if found.default == name else found.default, others))
    else:
        (weights_dir / MANIFEST).unlink()
    rmtree(found.entries[name].folder)


def _write(weights_dir: Path, manifest: Manifest) -> None:
    lines = [f"default = {_quoted(manifest.default)}"]
    for name, entry in manifest.entries.items():
        lines += ["", f"[models.{name}]", f"licence = {_quoted(entry.licence)}", f"[models.{name}.sha256]"]
        lines += [f"{_quoted(file)} = {_quoted(digest)}" for file, digest in entry.sha256.items()]
    with new_file(weights_dir / MANIFEST) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quoted(text: str) -> str:
    """Quotes text as a basic string of TOML, which is one of JSON but for letters beyond the basic plane."""
    return json.dumps(text, ensure_ascii=False)

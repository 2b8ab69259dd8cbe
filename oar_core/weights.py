"""Shipped weights: `manifest.toml` names every model and the SHA-256 of every file; only safetensors are loaded."""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from safetensors.torch import load_file
from torch import Tensor

from oar_core.errors import WeightsError

MANIFEST = "manifest.toml"


@dataclass(frozen=True)
class ModelEntry:
    name: str
    folder: Path
    licence: str
    sha256: dict[str, str]  # file name -> digest


@dataclass(frozen=True)
class Manifest:
    default: str
    entries: dict[str, ModelEntry]

    @classmethod
    def load(cls, weights_dir: Path) -> Self:
        """Raises WeightsError when there is no manifest or it lacks a field."""
        path = weights_dir / MANIFEST
        if not path.exists():
            raise WeightsError(f"{path} does not exist")
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        try:
            entries = {
                name: ModelEntry(name, weights_dir / name, entry["licence"], dict(entry["sha256"]))
                for name, entry in data["models"].items()
            }
            return cls(data["default"], entries)
        except KeyError as error:
            raise WeightsError(f"{path} lacks the field {error}") from error

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


def write_manifest(weights_dir: Path, default: str, licences: dict[str, str]) -> None:
    """Writes `manifest.toml` for the model folders named in `licences`, hashing the files that a model loads."""
    lines = [f'default = "{default}"']
    for name, licence in licences.items():
        lines += ["", f"[models.{name}]", f'licence = "{licence}"', f"[models.{name}.sha256]"]
        files = sorted(path for path in (weights_dir / name).iterdir() if path.suffix in {".json", ".safetensors"})
        lines += [f'"{path.name}" = "{file_digest(path)}"' for path in files]
    (weights_dir / MANIFEST).write_text("\n".join(lines) + "\n", encoding="utf-8")

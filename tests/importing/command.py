"""`oar import` as it is called, and checkpoints of golden networks as their projects would publish them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from server.cli import main
from tests.models.folders import CLASS_NAMES
from tests.models.golden import FOLDER

TOKENIZER = "vq_llamagen"
CONFIG = {"backbone": {"num_heads": 4, "grid": [4, 4]}, "classes": list(CLASS_NAMES)}


@dataclass
class Importing:
    """A folder with a checkpoint of a golden network, its tokenizer, a config and a folder of models."""

    folder: Path
    family: str
    config: Mapping[str, Any] = field(default_factory=lambda: CONFIG)

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    def state(self, name: str | None = None) -> dict[str, Tensor]:
        return load_file(golden_file(name or self.family))

    def words(self, checkpoint: str | Path, tokenizer: str | Path | None = None, *more: str) -> list[str]:
        config = self.folder / "config.json"
        config.write_text(json.dumps(self.config))
        codes = golden_file(TOKENIZER) if tokenizer is None else tokenizer
        files = ["--checkpoint", str(checkpoint), "--tokenizer", str(codes)]
        return ["import", self.family, *files, "--config", str(config), "--out", str(self.weights), *more]

    def run(self, checkpoint: str | Path, tokenizer: str | Path | None = None, *more: str) -> Any:
        """The result of the command, in this process."""
        return CliRunner().invoke(main, self.words(checkpoint, tokenizer, *more))

    def refusal(self, checkpoint: str | Path, tokenizer: str | Path | None = None, *more: str) -> str:
        """The sentence, of a command that left no trace."""
        before = listing(self.weights)
        result = self.run(checkpoint, tokenizer, *more)
        assert result.exit_code == 1, result.output
        assert listing(self.weights) == before
        (sentence,) = [line for line in result.output.splitlines() if not line.endswith(" ...")]
        return sentence

    def safetensors(self, state: Mapping[str, Tensor], name: str = "checkpoint.safetensors") -> Path:
        save_file({key: value.contiguous() for key, value in state.items()}, self.folder / name)
        return self.folder / name

    def pickled(self, found: Any, name: str = "checkpoint.pt", *, is_zip: bool = True) -> Path:
        torch.save(found, self.folder / name, _use_new_zipfile_serialization=is_zip)
        return self.folder / name


def golden_file(name: str) -> Path:
    return FOLDER / name / "weights.safetensors"


def listing(folder: Path) -> list[tuple[str, bytes]]:
    """Every file below a folder, hidden ones too."""
    if not folder.exists():
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in files]

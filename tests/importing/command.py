"""`oar import` as it is called, and checkpoints of golden networks as their projects would publish them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from oar_cli import main
from oar_core.models.janus import checkpoint as janus
from oar_core.models.llamagen import checkpoint as llamagen
from tests.models.folders import BACKBONES, CAPTIONS, CLASS_NAMES, GOLDEN
from tests.models.golden import FOLDER
from tests.models.janus.folder import BACKBONE_CONFIG, text_tokenizer, their_key, whole_state

TOKENIZER = "vq_llamagen"
CONFIG = {"backbone": {"num_heads": 4, "grid": [4, 4]}, "classes": list(CLASS_NAMES)}
GPT_TABLES, GPT_LAYER = ("tok_embeddings.weight", "output.weight"), "layers.1.attention_norm.weight"


@dataclass(frozen=True)
class Case:
    """A golden checkpoint, and the keys of it that tests change."""

    family: str
    network: tuple[Any, Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]]  # its config, and the key map
    head: str
    layer: str  # a tensor of its second layer
    tables: tuple[str, ...]  # that have a row for each code
    config: Mapping[str, Any] = field(default_factory=lambda: CONFIG)
    has_classes: bool = True
    holds_tokenizer: bool = False


CASES = {
    "arpg": Case(
        "arpg", BACKBONES["arpg"], "head.weight", "layers.self_dec.1.attn_norm.weight",
        ("embeddings.weight", "head.weight"),
    ),
    "lpd": Case("lpd", BACKBONES["lpd"], "head.weight", "blocks.1.norm1.weight", ("token_emb.weight", "head.weight")),
    "randar": Case("randar", BACKBONES["randar"], "output.weight", GPT_LAYER, GPT_TABLES),
    "llamagen": Case("llamagen", BACKBONES["llamagen"], "output.weight", GPT_LAYER, GPT_TABLES),
    "llamagen_t2i": Case(
        "llamagen", (CAPTIONS, llamagen.llamagen_state), "output.weight", GPT_LAYER, GPT_TABLES,
        {"backbone": CONFIG["backbone"]}, has_classes=False,
    ),
    "janus": Case(
        "janus", (BACKBONE_CONFIG, janus.janus_state), "model.generation_head.vision_head.weight",
        "model.language_model.layers.1.input_layernorm.weight",
        ("model.generation_embeddings.weight", "model.generation_head.vision_head.weight",
         "model.generation_head.vision_head.bias"),
        {"backbone": {"num_heads": 2, "grid": [4, 4], "max_condition": 24}}, has_classes=False, holds_tokenizer=True,
    ),
}  # fmt: skip


@dataclass
class Importing:
    """A folder with a checkpoint of a golden network, its tokenizer, a config and a folder of models."""

    folder: Path
    name: str  # of a case, or a family that has none
    config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.config is None:
            self.config = self.case.config if self.name in CASES else CONFIG

    @property
    def case(self) -> Case:
        return CASES[self.name]

    @property
    def family(self) -> str:
        return self.case.family if self.name in CASES else self.name

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def golden(self) -> Path:
        """The checkpoint as it is."""
        return self.safetensors(self.state(), "golden.safetensors") if self.name == "janus" else golden_file(self.name)

    def state(self) -> dict[str, Tensor]:
        return whole_state() if self.name == "janus" else load_file(golden_file(self.name))

    def with_codes(self, change: Callable[[dict[str, Tensor], Callable[[str], str]], None]) -> tuple[Path, Path | None]:
        """The checkpoint, and the file of an image tokenizer that was changed, unless the checkpoint holds it. `change`
        is given the tensors, and what tells the key of a part."""
        if self.case.holds_tokenizer:
            state = self.state()
            change(state, their_key)
            return self.safetensors(state, "codes.safetensors"), None
        codes = load_file(golden_file(TOKENIZER))
        change(codes, lambda name: name)
        return self.golden, self.safetensors(codes, "codes.safetensors")

    def words(self, checkpoint: str | Path, tokenizer: str | Path | None = None, *more: str) -> list[str]:
        config = self.folder / "config.json"
        config.write_text(json.dumps(self.config))
        files = ["--checkpoint", str(checkpoint)]
        if tokenizer is not None or not (self.name in CASES and self.case.holds_tokenizer):
            files += ["--tokenizer", str(golden_file(TOKENIZER) if tokenizer is None else tokenizer)]
        if self.name == "janus" and "--text" not in more:
            files += ["--text", str(self.text_tokenizer())]
        return ["import", self.family, *files, "--config", str(config), "--out", str(self.weights), *more]

    def text_tokenizer(self) -> Path:
        path = self.folder / "tokenizer.json"
        text_tokenizer().save(str(path))
        return path

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
    return FOLDER / GOLDEN.get(name, name) / "weights.safetensors"


def listing(folder: Path) -> list[tuple[str, bytes]]:
    """Every file below a folder, hidden ones too."""
    if not folder.exists():
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in files]

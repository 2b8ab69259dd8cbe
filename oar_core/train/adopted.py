"""The model that a run goes on from, where its networks are its own and not the recipe's.

It lies in the run's folder as a model folder without a backbone; the backbone is the any-order stage's checkpoint.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from oar_core.errors import ConfigError, WeightsError
from oar_core.models.base import BackboneSpec, Conditioner, ImageTokenizer
from oar_core.models.load import family, load_conditioner, load_tokenizer, read_config
from oar_core.models.model import CONFIG, TOKENIZER
from oar_core.models.ordered import OrderedBackbone
from oar_core.new_file import new_file
from oar_core.weights import MANIFEST, Manifest

MODEL = "model"  # in a run's folder
CARD, ORIGIN = "card.md", "origin.json"
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class AdoptedModel:
    folder: Path
    config: dict[str, Any]

    @classmethod
    def find(cls, run_folder: Path) -> "AdoptedModel | None":
        folder = run_folder / MODEL
        return cls(folder, read_config(folder)) if (folder / CONFIG).exists() else None

    @classmethod
    def take(cls, model: Path, run_folder: Path) -> "AdoptedModel":
        """Copies all but the backbone of a model's folder into a run. The config comes last: without it, nothing was
        taken. Raises WeightsError."""
        found = cls(run_folder / MODEL, read_config(model))
        found.folder.mkdir(parents=True, exist_ok=True)
        load_conditioner(model).save(found.folder)
        for name in (TOKENIZER, CARD):
            if (model / name).exists():
                shutil.copyfile(model / name, found.folder / name)
        origin = {"licence": _licence(model), "path": str(model)}
        (found.folder / ORIGIN).write_text(json.dumps(origin) + "\n", encoding="utf-8")
        with new_file(found.folder / CONFIG) as part:
            part.write_text(json.dumps(found.config, indent=1) + "\n", encoding="utf-8")
        return found

    @property
    def name(self) -> str:
        return self.config["name"]

    @property
    def licence(self) -> str:
        """Licence of its weights, as the manifest beside its folder states."""
        return json.loads((self.folder / ORIGIN).read_text(encoding="utf-8"))["licence"]

    @property
    def spec(self) -> BackboneSpec:
        with torch.device("meta"):
            return self.new_backbone().spec

    @property
    def image_size(self) -> tuple[int, int]:
        """Y, X in pixels."""
        config = dict(self.config["tokenizer"])
        key = config.pop("family")
        with torch.device("meta"):
            return family(key).build_tokenizer(key, config).image_size

    def new_backbone(self) -> OrderedBackbone:
        """Its network, whose weights are yet to be filled in. Raises ConfigError as `check_model_order`."""
        backbone = family(self.config["family"]).build_backbone(self.config["family"], self.config["backbone"])
        return check_model_order(self.config, backbone)

    def tokenizer(self) -> ImageTokenizer:
        return load_tokenizer(self.folder)

    def conditioner(self) -> Conditioner:
        return load_conditioner(self.folder)

    def write_card(self, folder: Path, text: str) -> None:
        """Its card, if it has one, with this text behind it."""
        own = self.folder / CARD
        before = own.read_text(encoding="utf-8").rstrip() if own.exists() else f"# {self.name}"
        (folder / CARD).write_text(f"{before}\n\n{text}\n", encoding="utf-8")


def check_model_order(config: dict[str, Any], backbone: object) -> OrderedBackbone:
    """Raises ConfigError for a network that can be taught no order."""
    if not isinstance(backbone, OrderedBackbone):
        raise ConfigError(
            f"{config['name']} is of family {config['family']}, which writes in one order alone: there is no order "
            "to distil from it or to train it on"
        )
    return backbone


def _licence(model: Path) -> str:
    try:
        found = Manifest.load(model.parent) if (model.parent / MANIFEST).exists() else None
    except WeightsError:
        return UNKNOWN_LICENCE
    entry = None if found is None else found.entries.get(model.name)
    return UNKNOWN_LICENCE if entry is None else entry.licence

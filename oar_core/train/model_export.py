"""Models of a run: a folder that `load_model` reads, or the same model in memory."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from oar_core.digests import module_digest, tensors_digest
from oar_core.models.base import Backbone
from oar_core.models.load import FORMAT
from oar_core.models.model import (
    ANY_ORDER_BACKBONE,
    BACKBONE,
    CONFIG,
    ORDER_TREE,
    POLICY,
    TOKENIZER,
    Model,
    in_number_format,
)
from oar_core.models.ordered import OrderedBackbone
from oar_core.order.tree import OrderTree
from oar_core.stored import digest
from oar_core.text import TextTokenizer
from oar_core.train.recipes import RECIPES
from oar_core.train.run import Run
from oar_core.train.stage_folders import ANY_ORDER_STAGE, TOKENIZER_STAGE, taught_order


@dataclass(frozen=True)
class ModelExport:
    """A stage of a run as a model: the networks, what reads prompts, and the defaults of drawing."""

    run: Run

    @property
    def model_name(self) -> str:
        """Name of the exported model: the recipe's, unless that is a shipped recipe for models that have a name."""
        adopted, name = self.run.adopted, self.run.recipe.name
        return name if adopted is None or name not in RECIPES else f"{adopted.name}-ordered"

    @property
    def licence(self) -> str:
        """Licence of the exported model."""
        adopted = self.run.adopted
        return self.run.recipe.licence if adopted is None else adopted.licence

    def export(self, folder: Path, stage: str | None = None, *, with_any_order: bool = False) -> None:
        """Writes the model folder that `load_model` reads, weights in half precision, with the backbone of a stage
        (the latest unless named) and its order policy, if it has one; where it is wanted, beside it the any-order
        backbone that `adopt` begins with. Of the tokenizer's stage, the tokenizer alone."""
        folder.mkdir(parents=True, exist_ok=True)
        stage = stage or self.run.latest_stage
        config = self._config()
        parts: list[tuple[nn.Module, str]] = [(self.run.tokenizer(), TOKENIZER)]
        if stage != TOKENIZER_STAGE:
            backbone, policy = self._backbone(stage), None
            if isinstance(backbone, OrderedBackbone):
                policy, backbone.policy = backbone.policy, None
            parts.append((backbone, BACKBONE))
            if with_any_order:
                parts.append((self.run.backbone(ANY_ORDER_STAGE), ANY_ORDER_BACKBONE))
            for optional in (POLICY, ORDER_TREE, ANY_ORDER_BACKBONE):
                (folder / optional).unlink(missing_ok=True)
            if backbone.order_tree is not None:
                save_file(backbone.order_tree.tensors(), folder / ORDER_TREE)
                (folder / ORDER_TREE).chmod(0o644)
            config |= {"backbone": self._backbone_config(), "order_score": backbone.order_score.to_dict()}
            if policy is not None:
                parts.append((policy, POLICY))
                config["policy"] = policy.config.to_dict()
            config |= self._drawing(stage, policy is not None)
            self._save_words(folder, stage)
        for module, name in parts:
            save_file(_half(module), folder / name)
            (folder / name).chmod(0o644)  # safetensors makes files that their owner alone can read
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def pipeline(self, stage: str, dtype: torch.dtype, *, own_policy: bool = True) -> Model:
        """A stage's backbone with all that drawing needs, as `export` would write it and `load_model` read it."""
        backbone, tokenizer = self._backbone(stage, own_policy=own_policy), self.run.tokenizer()
        digests = [module_digest(backbone), module_digest(tokenizer)]
        if backbone.order_tree is not None:
            digests.append(tensors_digest(backbone.order_tree.tensors()))
        drawing, adopted = self._drawing(stage, backbone.has_policy), self.run.adopted
        return Model(
            name=self.model_name,
            family=self._config()["family"],
            backbone=in_number_format(backbone, dtype),
            tokenizer=tokenizer,
            conditioner=TextTokenizer.load(self.run.folder) if adopted is None else adopted.conditioner(),
            defaults=drawing["defaults"],
            example_prompts=tuple(drawing["example_prompts"]),
            pixel_art=drawing.get("pixel_art", False),
            model_hash=digest(*digests),
            dtype=dtype,
            device=self.run.device,
        )

    def _backbone(self, stage: str, *, own_policy: bool = True) -> Backbone:
        backbone = self.run.drawing_backbone(stage, own_policy=own_policy)
        backbone.order_tree = self._order_tree(stage)
        return backbone

    def _order_tree(self, stage: str) -> OrderTree | None:
        """The orders that the stage was taught. One that was taught any order takes the latest tree; one that was
        taught others takes none."""
        return self.run.latest_order_tree if stage == ANY_ORDER_STAGE else self.run.own_order_tree(stage)

    def _config(self) -> dict[str, Any]:
        """Entries of a model's config beside its backbone and drawing."""
        adopted, head = self.run.adopted, {"format": FORMAT, "name": self.model_name}
        if adopted is not None:
            return head | {key: adopted.config[key] for key in ("family", "tokenizer", "conditioner")}
        recipe = self.run.recipe
        tokenizer = {"family": recipe.family, **recipe.tokenizer.to_dict()}
        return head | {"family": recipe.family, "tokenizer": tokenizer, "conditioner": TextTokenizer.kind}

    def _backbone_config(self) -> dict[str, Any]:
        adopted = self.run.adopted
        return self.run.recipe.backbone.to_dict() if adopted is None else adopted.config["backbone"]

    def _drawing(self, stage: str, has_policy: bool) -> dict[str, Any]:
        """Entries of a model's config about drawing."""
        adopted, recipe = self.run.adopted, self.run.recipe
        others = {"example_prompts": recipe.example_prompts, "pixel_art": recipe.pixel_art}
        if adopted is not None:
            others = {key: adopted.config[key] for key in others if key in adopted.config}
        return {"defaults": self._defaults(stage, has_policy), **others}

    def _save_words(self, folder: Path, stage: str) -> None:
        """Saves the conditioner, and the card of an adopted model."""
        adopted = self.run.adopted
        if adopted is None:
            TextTokenizer.load(self.run.folder).save(folder)
            return
        adopted.conditioner().save(folder)
        tree = self._order_tree(stage)
        orders = "" if tree is None else f" `{ORDER_TREE}` keeps {len(tree)} orders, which prompts decide."
        adopted.write_card(
            folder,
            f"## Fine-tuned\n\nThe weights are those of stage `{stage}` of `oar train`, which began with "
            f"{adopted.name}. They are no longer those of its authors.{orders}",
        )

    def _defaults(self, stage: str, has_policy: bool) -> dict[str, Any]:
        order, adopted = taught_order(stage, has_policy=has_policy), self.run.adopted
        if adopted is None:
            return asdict(self.run.recipe.defaults.of_model(order))
        own = adopted.config["defaults"]
        return own if stage == ANY_ORDER_STAGE and not has_policy else {**own, "order": order}


def _half(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous() for name, value in state.items()
    }

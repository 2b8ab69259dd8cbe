"""Runs that begin with a model folder in place of their first stages."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from oar_core.digests import module_digest
from oar_core.errors import ConfigError
from oar_core.models.load import NATIVE, family, load_any_order, load_tokenizer, read_config
from oar_core.models.model import TOKENIZER
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_core.stored import digest
from oar_core.text import TextTokenizer
from oar_core.train.adopted import AdoptedModel, check_model_order
from oar_core.train.checkpoint import save_checkpoint
from oar_core.train.loop import CHECKPOINT
from oar_core.train.run import Run
from oar_core.train.stage_folders import ANY_ORDER_STAGE, TOKENIZER_STAGE
from oar_core.weights import file_digest


def adopt(run: Run, folder: Path, *, only_tokenizer: bool = False) -> None:
    """Begins the run with a model folder: its tokenizers and backbone (see `load_any_order`) take the place of the
    first two stages, or its image tokenizer alone that of the first.

    A native model has to have the recipe's networks. One of another family brings its own, and is trained on
    orders. Raises ConfigError where that cannot be, WeightsError for a folder that cannot be read.
    """
    config = read_config(folder)
    if config["family"] != NATIVE and not only_tokenizer:
        _adopt_networks(run, config, folder)
        return
    tokenizer, origin = load_tokenizer(folder), file_digest(folder / TOKENIZER)
    parts: list[tuple[str, str, nn.Module]] = [(TOKENIZER_STAGE, "tokenizer.", tokenizer)]
    if not only_tokenizer:
        backbone = load_any_order(folder)
        origin = digest(module_digest(backbone), module_digest(tokenizer))
        parts.append((ANY_ORDER_STAGE, "", backbone))
    for stage, _, module in parts:
        _check_adoption(run, stage, module)
    for stage, prefix, module in parts:
        averaged = {f"ema/{prefix}{name}": value for name, value in module.state_dict().items()}
        save_checkpoint(run.folder / stage / CHECKPOINT, averaged, {"adopted": origin, "loop": None})
    if not only_tokenizer:
        TextTokenizer.load(folder).save(run.folder)


def _adopt_networks(run: Run, config: dict[str, Any], folder: Path) -> None:
    with torch.device("meta"):
        check_model_order(config, family(config["family"]).build_backbone(config["family"], config["backbone"]))
    _check_new(run, ANY_ORDER_STAGE)
    backbone = load_any_order(folder)
    AdoptedModel.take(folder, run.folder)
    origin = digest(module_digest(backbone), file_digest(folder / TOKENIZER))
    averaged = {f"ema/{name}": value for name, value in backbone.state_dict().items()}
    save_checkpoint(run.folder / ANY_ORDER_STAGE / CHECKPOINT, averaged, {"adopted": origin, "loop": None})


def _check_adoption(run: Run, stage: str, module: nn.Module) -> None:
    expected = run.recipe.tokenizer if isinstance(module, VQGAN) else run.recipe.backbone
    if not isinstance(module, VQGAN | OarBackbone) or module.config != expected:
        raise ConfigError(f"the network of stage {stage} is not that of recipe {run.recipe.name}")
    _check_new(run, stage)


def _check_new(run: Run, stage: str) -> None:
    """Raises ConfigError where the stage was begun."""
    path = run.folder / stage / CHECKPOINT
    if path.exists():
        raise ConfigError(f"{path} exists; a run adopts a model before anything is trained in it")

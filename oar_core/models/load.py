"""Loads a model's folder: its config by format version, each network by its family's key."""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn

from oar_core.config import OrderPolicyConfig, OrderScore
from oar_core.errors import ConfigError, RequestError, WeightsError
from oar_core.host_memory import check_memory
from oar_core.models.base import Backbone, Conditioner, ImageTokenizer
from oar_core.models.chat import CHAT, ChatConditioner
from oar_core.models.classes import CLASSES, ClassConditioner
from oar_core.models.family import ModelFamily
from oar_core.models.features import FEATURES, FeatureConditioner
from oar_core.models.model import (
    ANY_ORDER_BACKBONE,
    BACKBONE,
    CONFIG,
    GROUP_TABLES,
    ORDER_TREE,
    POLICY,
    TOKENIZER,
    FrameModel,
    Model,
    in_number_format,
)
from oar_core.models.no_condition import NO_CONDITION, NoCondition
from oar_core.models.ordered import OrderedBackbone
from oar_core.models.text_features import ENCODER, ENCODER_CONFIG, TextFeatureConditioner
from oar_core.nn.packed_conv import pack_convs
from oar_core.nn.rounded_conv import has_bf16
from oar_core.order.plan import PlanSpec
from oar_core.order.tree import OrderTree
from oar_core.text import TEXT, TextTokenizer
from oar_core.weights import FP32_BYTES, count_numbers, file_digest, read_tensors

FORMAT = 2  # of config.json


class LoadedConditioner(Conditioner, Protocol):
    """A conditioner that a model's folder keeps."""

    @classmethod
    def load(cls, folder: Path) -> Self: ...


# A new family is a folder beside this file and one line here.
FAMILIES = (
    "oar",
    "arpg",
    "lpd",
    "randar",
    "llamagen",
    "janus",
    "llamagen_vq",
    "maskgit_vq",
    "toy_frames",
    "detailflow",
    "detailflow_vit",
)
NATIVE = FAMILIES[0]
COARSE_TO_FINE = "detailflow"

CONDITIONERS: dict[str, type[LoadedConditioner]] = {
    "text": TextTokenizer,
    "class": ClassConditioner,
    "features": FeatureConditioner,
    "text_features": TextFeatureConditioner,
    "chat": ChatConditioner,
    "none": NoCondition,
}
CONDITIONER_FILES = (TEXT, CLASSES, CHAT, FEATURES, ENCODER, ENCODER_CONFIG, NO_CONDITION)


def family(key: str) -> ModelFamily:
    """Raises ConfigError for a key that is not registered."""
    if key not in FAMILIES:
        raise ConfigError(f"unknown family {key!r}; there are {', '.join(FAMILIES)}")
    return cast(ModelFamily, import_module(f"oar_core.models.{key}").FAMILY)


def load_model(folder: Path, device: str, dtype: torch.dtype, *, decode_dtype: torch.dtype = torch.float32) -> Model:
    """Raises WeightsError when a file is missing or its tensors do not fit the config, and ConfigError for an unknown
    family, for int8 on anything but a CPU, and for pictures that are decoded in bf16 by a device without it."""
    if dtype is torch.int8 and not device.startswith("cpu"):
        raise ConfigError(f"int8 is for a CPU, and the device is {device}")
    if decode_dtype is torch.bfloat16 and not has_bf16(torch.device(device)):
        raise ConfigError("pictures are to be decoded in bfloat16, for which this CPU has no instructions")
    config = read_config(folder)
    _check_memory(folder, config["name"])
    backbone = load_backbone(folder, BACKBONE)
    if "order_score" in config:
        backbone.order_score = OrderScore.from_dict(config["order_score"])
    if "policy" in config:
        if not isinstance(backbone, OrderedBackbone):
            raise ConfigError(f"family {config['family']!r} takes no order policy")
        backbone.policy = backbone.new_policy(OrderPolicyConfig.from_dict(config["policy"]))
        _fill(backbone.policy, folder / POLICY)
    backbone.order_tree = load_order_tree(folder, backbone.spec.num_tokens)
    return Model(
        backbone=in_number_format(backbone.to(device=device), dtype).eval(),
        tokenizer=load_decoder(folder, device, decode_dtype),
        decode_dtype=decode_dtype,
        group_tables=_read_tables(config.get(GROUP_TABLES, {}), backbone.spec.num_tokens),
        **_facts(config, folder, device, dtype),
    )


def load_decoder(folder: Path, device: str, dtype: torch.dtype) -> ImageTokenizer:
    """The image tokenizer as it decodes fastest in that number format. Raises as `load_model`."""
    tokenizer = load_tokenizer(folder).to(device=device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    tokenizer.decode_in(dtype)
    pack_convs(tokenizer)
    return tokenizer


def load_frame_model(folder: Path, device: str, dtype: torch.dtype) -> FrameModel:
    """A model that makes frames. Raises WeightsError as `load_model`, ConfigError for a family that makes none, and for
    int8, which is for tokens."""
    if dtype is torch.int8:
        raise ConfigError("int8 is for models of tokens, and this one makes frames of values")
    config = read_config(folder)
    backbone = family(config["family"]).build_frames(config["family"], config["backbone"])
    _fill(backbone, folder / BACKBONE)
    return FrameModel(backbone=backbone.to(device=device, dtype=dtype).eval(), **_facts(config, folder, device, dtype))


def makes_frames(folder: Path) -> bool:
    """Tells whether the folder holds a model for `load_frame_model`. Raises WeightsError, ConfigError."""
    return family(read_config(folder)["family"]).frames is not None


def _facts(config: dict[str, Any], folder: Path, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The fields of a `ModelBase`."""
    return {
        "name": config["name"],
        "family": config["family"],
        "conditioner": load_conditioner(folder),
        "defaults": config["defaults"],
        "example_prompts": tuple(config["example_prompts"]),
        "pixel_art": config.get("pixel_art", False),
        "model_hash": _folder_hash(folder),
        "dtype": dtype,
        "device": torch.device(device),
    }


def _read_tables(stored: Mapping[str, Mapping[str, list[int]]], length: int) -> dict[str, dict[int, tuple[int, ...]]]:
    """Raises ConfigError for sizes that do not fit their steps or the model."""
    tables = {order: {int(steps): tuple(sizes) for steps, sizes in rows.items()} for order, rows in stored.items()}
    for order, rows in tables.items():
        for steps, sizes in rows.items():
            try:
                PlanSpec(order, steps, sizes).check_fits(length)
            except RequestError as error:
                raise ConfigError(f"{GROUP_TABLES} of {order} in {steps} steps: {error}") from error
    return tables


def load_order_tree(folder: Path, num_tokens: int) -> OrderTree | None:
    """The orders that conditions decide, where the folder holds some. Raises WeightsError."""
    path = folder / ORDER_TREE
    if not path.exists():
        return None
    try:
        tree = OrderTree.from_tensors(read_tensors(path))
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    if tree.orders.shape[1] != num_tokens:
        raise WeightsError(f"{path} orders {tree.orders.shape[1]} positions, and the model has {num_tokens}")
    return tree


def load_backbone(folder: Path, name: str) -> Backbone:
    """A backbone of the folder's family from one of its files. Raises as `load_model`."""
    config = read_config(folder)
    backbone = family(config["family"]).build_backbone(config["family"], config["backbone"])
    _fill(backbone, folder / name)
    return backbone


def load_any_order(folder: Path) -> Backbone:
    """The backbone that training goes on from: as it was before it was fine-tuned, where the folder holds that, else
    the one that draws. Without an order policy, which belongs to the orders that it was distilled from. Raises as
    `load_model`."""
    return load_backbone(folder, ANY_ORDER_BACKBONE if (folder / ANY_ORDER_BACKBONE).exists() else BACKBONE)


def load_tokenizer(folder: Path) -> ImageTokenizer:
    """The image tokenizer alone; a model folder may hold no more than that. Raises as `load_model`."""
    config = dict(read_config(folder)["tokenizer"])
    key = config.pop("family")
    tokenizer = family(key).build_tokenizer(key, config)
    _fill(tokenizer, folder / TOKENIZER)
    return tokenizer


def load_conditioner(folder: Path) -> Conditioner:
    """Raises ConfigError for an unknown kind, WeightsError for a file that is missing."""
    kind = read_config(folder)["conditioner"]
    if kind not in CONDITIONERS:
        raise ConfigError(f"unknown conditioner {kind!r}; there are {', '.join(CONDITIONERS)}")
    return CONDITIONERS[kind].load(folder)


def conditioner_key(conditioner: Conditioner) -> str:
    """The key by which a model's config names its conditioner."""
    return next(key for key, kind in CONDITIONERS.items() if isinstance(conditioner, kind))


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the config, converted to the present format. Raises WeightsError, and ConfigError for a later format."""
    path = folder / CONFIG
    if not path.exists():
        raise WeightsError(f"{path} is missing")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    version = config.get("format", 1)
    if version > FORMAT:
        raise ConfigError(f"{path} has format {version}; this version of the library reads up to {FORMAT}")
    for number in range(version, FORMAT):
        config = CONVERTERS[number](config)
    return config


def _from_1(config: dict[str, Any]) -> dict[str, Any]:
    """Format 1 knew the native family alone."""
    tokenizer = {"family": NATIVE, **config["tokenizer"]}
    return {**config, "format": 2, "family": NATIVE, "tokenizer": tokenizer, "conditioner": "text"}


# From the format of that number to the next one.
CONVERTERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def _check_memory(folder: Path, name: str) -> None:
    """Raises WeightsError where its networks in fp32 take more than there is."""
    numbers = sum(count_numbers(folder / file) for file in (BACKBONE, TOKENIZER, ENCODER) if (folder / file).exists())
    check_memory(FP32_BYTES * numbers, name)


def _fill(module: nn.Module, path: Path) -> None:
    tensors: Mapping[str, Tensor] = read_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit its config: {error}") from error


def _folder_hash(folder: Path) -> str:
    present = (name for name in (*CONDITIONER_FILES, POLICY, ORDER_TREE) if (folder / name).exists())
    tokenizer = [TOKENIZER] if (folder / TOKENIZER).exists() else []  # a model of frames has none
    names = [CONFIG, BACKBONE, *tokenizer, *present]
    return hashlib.sha256("".join(file_digest(folder / name) for name in names).encode()).hexdigest()[:16]

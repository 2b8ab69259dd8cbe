"""A model as it is shipped: image tokenizer, text tokenizer, backbone and their defaults, loaded from one folder."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from oar_core.config import BackboneConfig, OrderPolicyConfig, OrderScore, TokenizerConfig
from oar_core.errors import ConfigError, WeightsError
from oar_core.models.oar import OarBackbone
from oar_core.models.order_policy import OrderPolicy
from oar_core.nn.packed import lay_out, quantize
from oar_core.nn.packed_conv import pack_convs
from oar_core.order.plan import DEFAULT_CANDIDATES, DEFAULT_ENTROPY_BOUND, ORDERS, POLICY_ORDERS, PlanSpec
from oar_core.sampling.sampler import SamplingParams
from oar_core.text import START_ID, TextTokenizer
from oar_core.tokenizers.vqgan import VQGAN
from oar_core.weights import file_digest, read_tensors

CONFIG, BACKBONE, TOKENIZER, TEXT = "config.json", "backbone.safetensors", "tokenizer.safetensors", "text.json"
POLICY = "policy.safetensors"  # optional: where the config has an entry "policy"
ANY_ORDER_BACKBONE = "any_order.safetensors"  # optional: the backbone before it was fine-tuned, for training alone


@dataclass
class Pipeline:
    """`defaults` are sampling defaults: order, steps, group_sizes, guidance, temperature, top_k, top_p.

    A model may also name its entropy_bound, candidates, guidance_interval and guidance_schedule."""

    name: str
    backbone: OarBackbone
    tokenizer: VQGAN
    text: TextTokenizer
    defaults: dict[str, Any]
    example_prompts: tuple[str, ...]
    pixel_art: bool  # its pictures look right when they are enlarged pixel by pixel
    model_hash: str
    dtype: torch.dtype  # of matrix products in the backbone; under int8 all else is in fp32

    unconditional_ids: tuple[int, ...] = (START_ID,)

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype) -> Self:
        """Raises WeightsError when a file is missing or its tensors do not fit the config, and ConfigError for int8 on
        anything but a CPU."""
        if dtype is torch.int8 and not device.startswith("cpu"):
            raise ConfigError(f"int8 is for a CPU, and the device is {device}")
        config = _read_config(folder)
        backbone = OarBackbone(BackboneConfig.from_dict(config["backbone"]))
        _fill(backbone, folder / BACKBONE)
        if "order_score" in config:
            backbone.order_score = OrderScore.from_dict(config["order_score"])
        if "policy" in config:
            backbone.policy = OrderPolicy(OrderPolicyConfig.from_dict(config["policy"]), backbone.config)
            _fill(backbone.policy, folder / POLICY)
        tokenizer = load_tokenizer(folder).to(device=device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
        pack_convs(tokenizer)
        return cls(
            name=config["name"],
            backbone=in_number_format(backbone.to(device=device), dtype).eval(),
            tokenizer=tokenizer,
            text=TextTokenizer.load(folder / TEXT),
            defaults=config["defaults"],
            example_prompts=tuple(config["example_prompts"]),
            pixel_art=config.get("pixel_art", False),
            model_hash=_folder_hash(folder),
            dtype=dtype,
        )

    @property
    def grid(self) -> tuple[int, int]:
        return self.tokenizer.grid

    @property
    def orders(self) -> tuple[str, ...]:
        """The names of the orders that this model can be asked for."""
        return ORDERS if self.backbone.has_policy else tuple(name for name in ORDERS if name not in POLICY_ORDERS)

    @property
    def default_plan(self) -> PlanSpec:
        named = {name: self.defaults[name] for name in ("order", "steps", "group_sizes")}
        return PlanSpec(
            **named,
            entropy_bound=self.defaults.get("entropy_bound", DEFAULT_ENTROPY_BOUND),
            candidates=self.defaults.get("candidates", DEFAULT_CANDIDATES),
        )

    @property
    def default_sampling(self) -> SamplingParams:
        named = {name: self.defaults[name] for name in ("guidance", "temperature", "top_k", "top_p")}
        interval = tuple(self.defaults.get("guidance_interval", (0.0, 1.0)))
        schedule = self.defaults.get("guidance_schedule", "constant")
        return SamplingParams(**named, guidance_interval=interval, guidance_schedule=schedule)

    @property
    def max_prompt_tokens(self) -> int:
        """The start token takes one place of the condition prefix."""
        return self.backbone.config.max_condition - 1

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        """Condition ids. Raises InvalidPrompt, PromptTooLong."""
        return self.text.encode(prompt, max_length=self.backbone.config.max_condition)

    @torch.inference_mode()
    def encode(self, pixels: UInt8[np.ndarray, "B Y X 3"]) -> Int[Tensor, "B L"]:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device).permute(0, 3, 1, 2)
        return self.tokenizer.encode(images.float() / 127.5 - 1)

    @torch.inference_mode()
    def decode(self, token_ids: Int[Tensor, "B L"]) -> UInt8[np.ndarray, "B Y X 3"]:
        return to_pixels(self.tokenizer.decode(token_ids.to(self._device)))

    @torch.inference_mode()
    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> UInt8[np.ndarray, "B Y X 3"]:
        return to_pixels(self.tokenizer.decode_partial(token_ids.to(self._device), known.to(self._device)))

    @property
    def _device(self) -> torch.device:
        return self.tokenizer.unknown_code.device


def load_tokenizer(folder: Path) -> VQGAN:
    """The image tokenizer alone; a model folder may hold no more than that. Raises WeightsError as `Pipeline.load`."""
    tokenizer = VQGAN(TokenizerConfig.from_dict(_read_config(folder)["tokenizer"]))
    _fill(tokenizer, folder / TOKENIZER)
    return tokenizer


def load_any_order(folder: Path) -> OarBackbone:
    """The backbone that training goes on from: as it was before it was fine-tuned, where the folder holds that, else
    the one that draws. Without an order policy, which belongs to the orders that it was distilled from. Raises
    WeightsError as `Pipeline.load`."""
    backbone = OarBackbone(BackboneConfig.from_dict(_read_config(folder)["backbone"]))
    _fill(backbone, folder / (ANY_ORDER_BACKBONE if (folder / ANY_ORDER_BACKBONE).exists() else BACKBONE))
    return backbone


def in_number_format(backbone: OarBackbone, dtype: torch.dtype) -> OarBackbone:
    """The backbone with its matrix products in `dtype` and its weights as the device multiplies them fastest, in place.
    An order policy, which is small, is not quantized."""
    if dtype is not torch.int8:
        backbone.to(dtype=dtype)
        if dtype is torch.float32 and backbone.embed_query.shared.device.type == "cpu":
            lay_out(backbone)
        return backbone
    backbone.float()
    quantize(backbone.context)
    quantize(backbone.query)
    return backbone


def to_pixels(images: Float[Tensor, "B 3 Y X"]) -> UInt8[np.ndarray, "B Y X 3"]:
    """[-1, 1] floats to bytes, rounded to the nearest."""
    scaled = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.exists():
        raise WeightsError(f"{path} is missing")
    return json.loads(path.read_text(encoding="utf-8"))


def _fill(module: nn.Module, path: Path) -> None:
    tensors: Mapping[str, Tensor] = read_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit its config: {error}") from error


def _folder_hash(folder: Path) -> str:
    names = [CONFIG, BACKBONE, TOKENIZER, TEXT, *([POLICY] if (folder / POLICY).exists() else [])]
    digests = "".join(file_digest(folder / name) for name in names)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]

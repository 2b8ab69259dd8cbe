"""A model that is ready to draw: backbone, image tokenizer, conditioner, and what it may be asked for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from oar_core.models.base import Backbone, Conditioner, ImageTokenizer, Prefix
from oar_core.models.frames import FrameBackbone
from oar_core.nn.packed import lay_out, quantize
from oar_core.order.plan import ADAPTIVE, CONSTANT, GROUP_SIZES, ORDERS, POLICY_ORDERS, PROMPTED, PUBLISHED, RASTER
from oar_core.order.rules import RULES
from oar_core.text import TextTokenizer
from oar_wire.options import FITTED
from oar_wire.vocabulary import Vocabulary

CONFIG, BACKBONE, TOKENIZER = "config.json", "backbone.safetensors", "tokenizer.safetensors"
POLICY = "policy.safetensors"  # optional: where the config has an entry "policy"
ORDER_TREE = "orders.safetensors"  # optional: the orders that conditions decide
GROUP_TABLES = "group_tables"  # in the config: order -> number of steps -> sizes
ANY_ORDER_BACKBONE = "any_order.safetensors"  # optional: the backbone before it was fine-tuned, for training alone


B = TypeVar("B", bound=nn.Module)


@dataclass(kw_only=True)
class ModelBase(ABC):
    """Common part of models of all kinds. `defaults` are those of the options that the model takes.

    A model of tokens names order, steps, group_sizes, guidance, temperature, top_k and top_p. It may also name its
    entropy_bound, candidates, repulsion, guidance_interval and guidance_schedule."""

    name: str
    family: str
    conditioner: Conditioner
    defaults: dict[str, Any]
    example_prompts: tuple[str, ...]
    pixel_art: bool  # its pictures look right when they are enlarged pixel by pixel
    model_hash: str
    dtype: torch.dtype  # of matrix products in the backbone; under int8 all else is in fp32
    device: torch.device
    decode_dtype: torch.dtype = torch.float32  # of the image tokenizer's decoder
    group_tables: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict[str, dict[int, tuple[int, ...]]])

    @property
    def num_frames(self) -> int:
        """Frames of a video; 0 for a model that makes pictures."""
        return 0

    @property
    def unconditional_ids(self) -> tuple[int, ...]:
        return self.conditioner.unconditional_ids

    @property
    @abstractmethod
    def max_condition(self) -> int:
        """Tokens of a condition prefix."""

    @property
    def max_prompt_tokens(self) -> int:
        """Number of prompt tokens that the prefix can hold; 0 where no prompt is read."""
        if self.conditioner.kind not in ("text", "class"):
            return 0
        return max(0, self.max_condition - self.conditioner.num_special_tokens)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that it was trained on; None where pictures are not made from words, or that is not known."""
        return self.conditioner.vocabulary if isinstance(self.conditioner, TextTokenizer) else None

    def encode_prompt(self, prompt: str) -> Prefix:
        """The condition; the unconditional prefix for an empty prompt. Raises PromptError, PromptLengthError."""
        if not prompt:
            return self.unconditional_ids
        return self.conditioner.encode(prompt, max_length=self.max_condition)


@dataclass(kw_only=True)
class FrameModel(ModelBase):
    """Makes frames of values."""

    backbone: FrameBackbone

    @property
    def num_frames(self) -> int:
        return self.backbone.spec.layout.num_frames

    @property
    def max_condition(self) -> int:
        return self.backbone.spec.max_condition

    @property
    def grid(self) -> tuple[int, int]:
        """The grid of a frame."""
        return self.backbone.spec.layout.shape

    @property
    def image_size(self) -> tuple[int, int]:
        """Y, X in pixels."""
        return self.backbone.image_size

    @torch.inference_mode()
    def show(self, frames: Float[Tensor, "B C Y X"]) -> UInt8[np.ndarray, "B H W 3"]:
        return to_pixels(self.backbone.show(frames.to(self.device)))


@dataclass(kw_only=True)
class Model(ModelBase):
    """Makes pictures of tokens."""

    backbone: Backbone
    tokenizer: ImageTokenizer

    @property
    def max_condition(self) -> int:
        return self.backbone.spec.max_condition

    @property
    def grid(self) -> tuple[int, int]:
        return self.backbone.spec.grid

    @property
    def image_size(self) -> tuple[int, int]:
        """Y, X in pixels."""
        return self.tokenizer.image_size

    @property
    def guesses_unknown(self) -> bool:
        """Tells whether previews show what the backbone expects at unknown positions: the image tokenizer knows no code
        for them, and positions can be asked about before their turn."""
        return not self.tokenizer.has_unknown_code and self.backbone.spec.has_free_order

    @property
    def orders(self) -> tuple[str, ...]:
        """The names of the orders that this model can be asked for."""
        spec = self.backbone.spec
        if not spec.has_free_order:
            return (RASTER,)
        refused = set[str]() if self.backbone.has_policy else set(POLICY_ORDERS)
        if self.backbone.order_tree is None:
            refused.add(PROMPTED)
        if not spec.can_ask_all:  # the policy alone chooses before anything is asked
            refused |= {name for name, rule in RULES.items() if rule.asks_more}
        if spec.layout.orders is not None:
            refused |= set(ORDERS).difference(spec.layout.orders)
        return tuple(name for name in ORDERS if name not in refused)

    @property
    def group_sizes(self) -> tuple[str, ...]:
        """The names of the group sizes that this model can be asked for."""
        if self.has_fixed_steps:
            return (CONSTANT,)
        spec = self.backbone.spec
        own = (FITTED,) if self.group_tables else ()
        refused = set[str]() if spec.has_free_groups else {ADAPTIVE}
        refused |= set[str]() if spec.published_groups else {PUBLISHED}
        return (*own, *(name for name in GROUP_SIZES if name not in refused))

    @property
    def has_fixed_steps(self) -> bool:
        """Tells whether its pictures take one number of steps and no other: one for each position, or each group."""
        return not self.backbone.spec.has_free_order

    @torch.inference_mode()
    def encode(self, pixels: UInt8[np.ndarray, "B Y X 3"]) -> Int[Tensor, "B L"]:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(0, 3, 1, 2)
        return self.tokenizer.encode(images.float() / 127.5 - 1)

    @torch.inference_mode()
    def decode(self, token_ids: Int[Tensor, "B L"]) -> UInt8[np.ndarray, "B Y X 3"]:
        return to_pixels(self.tokenizer.decode(token_ids.to(self.device)))

    @torch.inference_mode()
    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> UInt8[np.ndarray, "B Y X 3"]:
        return to_pixels(self.tokenizer.decode_partial(token_ids.to(self.device), known.to(self.device)))


def in_number_format(backbone: B, dtype: torch.dtype) -> B:
    """The backbone with its matrix products in `dtype` and its weights as the device multiplies them fastest, in place.
    An order policy, which is small, is not quantized."""
    if dtype is not torch.int8:
        backbone.to(dtype=dtype)
        if dtype is torch.float32 and next(backbone.parameters()).device.type == "cpu":
            lay_out(backbone)
        return backbone
    backbone.float()
    for name, part in backbone.named_children():
        if name != "policy":
            quantize(part)
    return backbone


def to_pixels(images: Float[Tensor, "B 3 Y X"]) -> UInt8[np.ndarray, "B Y X 3"]:
    """[-1, 1] floats to bytes, rounded to the nearest."""
    scaled = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()

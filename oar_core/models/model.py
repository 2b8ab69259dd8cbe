"""A model that is ready to draw: backbone, image tokenizer, conditioner, and what it may be asked for."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from oar_core.models.base import Backbone, Conditioner, ImageTokenizer
from oar_core.nn.packed import lay_out, quantize
from oar_core.order.plan import ADAPTIVE, GROUP_SIZES, ORDERS, POLICY_ORDERS
from oar_core.order.rules import RULES
from oar_core.text import TextTokenizer
from oar_wire.vocabulary import Vocabulary

CONFIG, BACKBONE, TOKENIZER = "config.json", "backbone.safetensors", "tokenizer.safetensors"
POLICY = "policy.safetensors"  # optional: where the config has an entry "policy"
ANY_ORDER_BACKBONE = "any_order.safetensors"  # optional: the backbone before it was fine-tuned, for training alone


B = TypeVar("B", bound=nn.Module)


@dataclass
class Model:
    """`defaults` are sampling defaults: order, steps, group_sizes, guidance, temperature, top_k, top_p.

    A model may also name its entropy_bound, candidates, repulsion, guidance_interval and guidance_schedule."""

    name: str
    family: str
    backbone: Backbone
    tokenizer: ImageTokenizer
    conditioner: Conditioner
    defaults: dict[str, Any]
    example_prompts: tuple[str, ...]
    pixel_art: bool  # its pictures look right when they are enlarged pixel by pixel
    model_hash: str
    dtype: torch.dtype  # of matrix products in the backbone; under int8 all else is in fp32
    device: torch.device

    @property
    def grid(self) -> tuple[int, int]:
        return self.backbone.spec.grid

    @property
    def image_size(self) -> tuple[int, int]:
        """Y, X in pixels."""
        return self.tokenizer.image_size

    @property
    def unconditional_ids(self) -> tuple[int, ...]:
        return self.conditioner.unconditional_ids

    @property
    def orders(self) -> tuple[str, ...]:
        """The names of the orders that this model can be asked for."""
        spec = self.backbone.spec
        refused = set[str]() if self.backbone.has_policy else set(POLICY_ORDERS)
        if not spec.can_ask_all:  # the policy alone chooses before anything is asked
            refused |= {name for name, rule in RULES.items() if rule.asks_more}
        return tuple(name for name in ORDERS if name not in refused)

    @property
    def group_sizes(self) -> tuple[str, ...]:
        """The names of the group sizes that this model can be asked for."""
        if self.backbone.spec.has_free_groups:
            return GROUP_SIZES
        return tuple(name for name in GROUP_SIZES if name != ADAPTIVE)

    @property
    def max_prompt_tokens(self) -> int:
        """What the prefix holds beside what opens it: the unconditional one."""
        return self.backbone.spec.max_condition - len(self.unconditional_ids)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that it was trained on; None where pictures are not made from words, or that is not known."""
        return self.conditioner.vocabulary if isinstance(self.conditioner, TextTokenizer) else None

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        """Condition ids; the unconditional prefix for an empty prompt. Raises InvalidPrompt, PromptTooLong."""
        if not prompt:
            return self.unconditional_ids
        return self.conditioner.encode(prompt, max_length=self.backbone.spec.max_condition)

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

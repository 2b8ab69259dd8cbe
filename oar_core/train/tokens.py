"""Tokenized training pictures, and the condition prefixes made of their captions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from oar_core.models.base import Condition, Conditioner, ImageTokenizer, Prefix
from oar_core.train.captions import CaptionSource, Row
from oar_core.train.data import ImageSet
from oar_core.train.loop import Step
from oar_core.train.precision import autocast


@dataclass(frozen=True)
class TokenSet:
    """Tokenized pictures and their label rows; picture i belongs to row `row_of[i]`."""

    token_ids: Int[Tensor, "M L"]
    rows: list[Row]
    row_of: Int[Tensor, "M"]

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Captioner:
    """Makes condition prefixes of pictures; `unconditional_share` of captions are dropped in training, for guidance."""

    tokens: TokenSet
    conditioner: Conditioner
    caption: CaptionSource
    max_length: int
    unconditional_share: float = 0.0

    def for_training(self, indices: Int[Tensor, "B"], step: Step) -> Condition:
        """Captions drawn anew at every step."""
        return self._condition(self._drawn(indices, _drawn_seed(step)), step.device)

    def with_prompts(self, indices: Int[Tensor, "B"], step: Step) -> tuple[Condition, Sequence[Prefix]]:
        """The same conditions, and the prompts that decide each picture's order. A dropped caption has a prompt too:
        guidance steers away from an empty one along the order of the real one."""
        seed = _drawn_seed(step)
        captions = self._drawn(indices, seed)
        rows, others = self.tokens.row_of[indices].tolist(), random.Random(f"dropped {seed}")
        prompts = [caption or self.caption(self.tokens.rows[row], others) for caption, row in zip(captions, rows)]
        return self._condition(captions, step.device), self.prefixes(prompts)

    def _drawn(self, indices: Int[Tensor, "B"], seed: int) -> list[str]:
        rng = random.Random(seed)
        return [
            "" if rng.random() < self.unconditional_share else self.caption(self.tokens.rows[row], rng)
            for row in self.tokens.row_of[indices].tolist()
        ]

    def fixed(self, indices: Int[Tensor, "B"], seed: int, device: torch.device) -> Condition:
        """One caption a picture, a function of the seed and its index."""
        return self._condition(self.fixed_captions(indices, seed), device)

    def fixed_captions(self, indices: Int[Tensor, "B"], seed: int) -> list[str]:
        """Captions of `fixed`."""
        return [
            self.caption(self.tokens.rows[row], random.Random(f"{seed} {index}"))
            for index, row in zip(indices.tolist(), self.tokens.row_of[indices].tolist())
        ]

    def prefixes(self, captions: Sequence[str]) -> Sequence[Prefix]:
        """Encodes captions as the backbone reads them."""
        return self.conditioner.encode_captions(list(captions), max_length=self.max_length)

    def _condition(self, captions: Sequence[str], device: torch.device) -> Condition:
        return Condition.stack(self.prefixes(captions), device)


def _drawn_seed(step: Step) -> int:
    return int(torch.randint(2**62, (1,), generator=step.generator))


@torch.inference_mode()
def tokenize(tokenizer: ImageTokenizer, images: ImageSet, device: torch.device) -> Int[Tensor, "M L"]:
    """Tokenizes a whole split, as int16."""
    batches = torch.arange(len(images)).split(256)
    ids: list[Tensor] = []
    for indices in tqdm(batches, desc="tokenizing", unit="batch"):
        with autocast(device):
            ids.append(tokenizer.encode(images.images(indices).to(device)).to("cpu", torch.int16))
    return torch.cat(ids)

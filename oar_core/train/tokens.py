"""Tokenized training pictures, and the condition prefixes made of their captions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from oar_core.models.base import Condition, Conditioner, ImageTokenizer
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
        rng = random.Random(int(torch.randint(2**62, (1,), generator=step.generator)))
        captions = [
            "" if rng.random() < self.unconditional_share else self.caption(self.tokens.rows[row], rng)
            for row in self.tokens.row_of[indices].tolist()
        ]
        return self._condition(captions, step.device)

    def fixed(self, indices: Int[Tensor, "B"], seed: int, device: torch.device) -> Condition:
        """One caption a picture, a function of the seed and its index."""
        captions = [
            self.caption(self.tokens.rows[row], random.Random(f"{seed} {index}"))
            for index, row in zip(indices.tolist(), self.tokens.row_of[indices].tolist())
        ]
        return self._condition(captions, device)

    def _condition(self, captions: Sequence[str], device: torch.device) -> Condition:
        return Condition.stack(self.conditioner.encode_captions(list(captions), max_length=self.max_length), device)


@torch.inference_mode()
def tokenize(tokenizer: ImageTokenizer, images: ImageSet, device: torch.device) -> Int[Tensor, "M L"]:
    """Of a whole split, as int16."""
    batches = torch.arange(len(images)).split(256)
    ids: list[Tensor] = []
    for indices in tqdm(batches, desc="tokenizing", unit="batch"):
        with autocast(device):
            ids.append(tokenizer.encode(images.images(indices).to(device)).to("cpu", torch.int16))
    return torch.cat(ids)

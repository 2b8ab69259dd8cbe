"""Captions of a run: its text tokenizer or conditioner, and conditions of its pictures."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from oar_core.models.base import Conditioner, Prefix
from oar_core.models.classes import ClassConditioner
from oar_core.text import TEXT, TextTokenizer
from oar_core.train.captions import CAPTION_SOURCES, Row, class_caption, plain_caption
from oar_core.train.parallel import first_alone
from oar_core.train.run import Run
from oar_core.train.run_data import load_tokens
from oar_core.train.tokens import Captioner
from oar_wire.vocabulary import Vocabulary


@dataclass(frozen=True)
class RunCaptions:
    """The conditioner of a run, and the conditions that it makes of captions."""

    run: Run

    def conditioner(self, rows: list[Row]) -> Conditioner:
        """The adopted model's conditioner, or else the text tokenizer."""
        adopted = self.run.adopted
        return self.text_tokenizer(rows) if adopted is None else adopted.conditioner()

    def text_tokenizer(self, rows: list[Row]) -> TextTokenizer:
        """Trained on the training captions, eight wordings of each, and kept in the run folder with their words. Where
        it is there without them, as of an older run, they are added."""
        rng = random.Random(self.run.recipe.any_order_loop.seed)
        caption = CAPTION_SOURCES[self.run.recipe.caption_source]
        captions = (caption(row, rng) for row in rows for _ in range(8))
        with first_alone():
            if not (self.run.folder / TEXT).exists():
                TextTokenizer.train(captions, self.run.recipe.text_vocab).save(self.run.folder)
            text = TextTokenizer.load(self.run.folder)
            if text.vocabulary is None:
                text.vocabulary = Vocabulary.of(captions)
                text.save(self.run.folder)
        return text

    def sample(self, split: str, num_images: int) -> tuple[Int[Tensor, "M L"], Sequence[Prefix]]:
        """Tokens of some pictures of a split, always the same ones, and their captions as conditions."""
        tokens = load_tokens(self.run, split)
        chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:num_images]
        conditioner = self.conditioner(tokens.rows)
        said = class_caption if isinstance(conditioner, ClassConditioner) else plain_caption
        captions = [said(tokens.rows[row], random.Random(0)) for row in tokens.row_of[chosen].tolist()]
        encoded = conditioner.encode_captions(captions, max_length=self.run.spec.max_condition)
        return tokens.token_ids[chosen].long(), encoded

    def captioner(self, unconditional_share: float) -> Captioner:
        """Makes the captioner of the training pictures."""
        tokens = load_tokens(self.run, "train")
        conditioner = self.conditioner(tokens.rows)
        source = CAPTION_SOURCES[self.run.recipe.caption_source]
        said = class_caption if isinstance(conditioner, ClassConditioner) else source
        return Captioner(tokens, conditioner, said, self.run.spec.max_condition, unconditional_share)

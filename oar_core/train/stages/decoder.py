"""The tokenizer's decoder alone: better pixels for the same tokens, so that no backbone has to be trained again."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor, nn

from oar_core.config import TokenizerConfig
from oar_core.train.data import ImageSet
from oar_core.train.loop import Step
from oar_core.train.stages.tokenizer import TokenizerStage, TokenizerStageConfig


class DecoderStage(TokenizerStage):
    """Encoder and codebook stay as they are, and are not even run: the pictures' tokens are known."""

    def __init__(
        self,
        images: ImageSet,
        token_ids: Int[Tensor, "I L"],
        model: TokenizerConfig,
        config: TokenizerStageConfig,
        trained: Mapping[str, Tensor],
    ) -> None:
        """`trained` are the tokenizer's weights; its adversary begins anew."""
        super().__init__(images, model, config)
        self._token_ids = token_ids
        self.tokenizer.load_state_dict(trained)
        for part in (self.tokenizer.encoder, self.tokenizer.quantizer):
            part.requires_grad_(False)

    def trained_parameters(self) -> list[nn.Parameter]:
        return [*self.tokenizer.decoder.parameters(), self.tokenizer.unknown_code]

    def before_step(self, step: Step) -> None:
        """The codebook is there."""

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        real, known = self.real(indices, step.device), self.draw_known(len(indices), step)
        token_ids = self._token_ids[indices].to(device=step.device, dtype=torch.long)
        return self.picture_losses(real, self.tokenizer.repaint(token_ids, known), known, step)

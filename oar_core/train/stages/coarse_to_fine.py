"""The backbone that writes pictures from coarse to fine: it learns the tokens of each group from those before, some of
which are wrong in a share of the sequences (arXiv 2505.21473)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from oar_core.errors import ConfigError
from oar_core.models.base import Backbone
from oar_core.models.coarse_to_fine import CoarseToFineTokenizer
from oar_core.train.data import ImageSet
from oar_core.train.loop import Stage, Step
from oar_core.train.losses import token_cross_entropy
from oar_core.train.tokens import Captioner
from oar_core.train.wrong_codes import correct, draw_wrong_span


@dataclass(frozen=True)
class CoarseToFineStageConfig:
    corrected_share: float = 0.3  # of sequences in which tokens are wrong, and those behind make up for it
    unconditional_share: float = 0.1  # of captions that are dropped, for classifier-free guidance

    def __post_init__(self) -> None:
        if not (0 <= self.corrected_share <= 1 and 0 <= self.unconditional_share <= 1):
            raise ConfigError("corrected_share and unconditional_share are shares")


class CoarseToFineStage(Stage):
    """Wants rows with captions; `loss` is the mean over all tokens of the cross-entropy in nats per token."""

    can_shard: ClassVar[bool] = True

    def __init__(
        self,
        captioner: Captioner,
        backbone: Backbone,
        config: CoarseToFineStageConfig,
        tokenizer: CoarseToFineTokenizer,
        images: ImageSet | None,
        near: int,
    ) -> None:
        """`images` are the pictures of the tokens, which sequences are corrected from; None where none are."""
        self.captioner, self.config = captioner, config
        self.backbone: Backbone = backbone
        self.module: nn.Module = backbone
        self._tokenizer, self._images, self._near = tokenizer.eval(), images, near

    def __len__(self) -> int:
        return len(self.captioner.tokens)

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        token_ids = self.captioner.tokens.token_ids[indices].long().to(step.device)
        condition = self.captioner.for_training(indices, step)
        context, target = self._with_corrections(token_ids, indices, step)
        positions = torch.arange(target.shape[1], device=step.device).expand_as(target)
        return {"total": token_cross_entropy(self.backbone(condition, context, positions), target)}

    @torch.no_grad()
    def _with_corrections(
        self, token_ids: Int[Tensor, "B L"], indices: Int[Tensor, "B"], step: Step
    ) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
        """Context and target of the backbone: in a share of the rows, tokens are wrong in the first, and in
        both those behind are the ones that correct them."""
        count = round(self.config.corrected_share * len(indices))
        if self._images is None or not count:
            return token_ids, token_ids
        tokenizer = self._tokenizer
        context, target = token_ids.clone(), token_ids.clone()
        span = draw_wrong_span(token_ids.shape[1], tokenizer.config.group_size, step.generator)
        memory = tokenizer.read(self._images.images(indices[:count]).to(step.device))
        corrected = correct(tokenizer, memory, token_ids[:count], span, self._near, step.generator)
        context[:count, : span.end] = corrected.token_ids
        if corrected.behind is not None:
            context[:count, span.end :] = target[:count, span.end :] = corrected.behind.token_ids
        return context, target

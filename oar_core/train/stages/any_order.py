"""Stage 1: the backbone learns every order: next-token prediction along uniformly random permutations."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from oar_core.config import BackboneConfig
from oar_core.models.oar.backbone import OarBackbone
from oar_core.text import TextTokenizer
from oar_core.train.captions import CaptionSource
from oar_core.train.context_noise import corrupt_context
from oar_core.train.loop import Stage, Step
from oar_core.train.losses import token_cross_entropy
from oar_core.train.tokens import Captioner, TokenSet


@dataclass(frozen=True)
class AnyOrderStageConfig:
    unconditional_share: float = 0.1  # of captions that are dropped, for classifier-free guidance
    context_noise: float = 0.0  # highest share of context tokens that are corrupted; see `corrupt_context`


class AnyOrderStage(Stage):
    """Wants rows with captions; `loss` is the mean over all ranks of the cross-entropy in nats per token."""

    can_shard: ClassVar[bool] = True

    def __init__(
        self,
        tokens: TokenSet,
        text: TextTokenizer,
        caption: CaptionSource,
        model: BackboneConfig,
        config: AnyOrderStageConfig,
    ) -> None:
        self.tokens = tokens
        self.captioner = Captioner(tokens, text, caption, model.max_condition, config.unconditional_share)
        self.config = config
        self.backbone = OarBackbone(model)
        self.module: nn.Module = self.backbone

    def __len__(self) -> int:
        return len(self.tokens)

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        token_ids = self.tokens.token_ids[indices].long()
        positions = torch.rand(token_ids.shape, generator=step.generator).argsort(-1)
        ordered = token_ids.gather(1, positions)
        condition = self.captioner.for_training(indices, step)
        context = corrupt_context(ordered, self.config.context_noise, self.backbone.spec.vocab_size, step)
        logits = self.backbone(condition, context.to(step.device), positions.to(step.device))
        loss = token_cross_entropy(logits, ordered.to(step.device))
        return {"total": loss}

"""The evaluation network's own training: attributes from pictures, under light augmentation.

Apart from the other stages: nothing that is trained for pictures may learn from this network.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.train.attributes import UNKNOWN, AttributeVocabulary
from oar_core.train.data import ImageSet
from oar_core.train.evaluator import EvaluatorConfig, EvaluatorNet
from oar_core.train.loop import Stage, Step


@dataclass(frozen=True)
class EvaluatorStageConfig:
    max_shift: int = 2  # pixels, along each axis; what comes in is white
    max_noise: float = 0.06  # standard deviation, of pixels in [-1, 1]; each picture draws its own up to this


class EvaluatorStage(Stage):
    """`loss` is the mean over attributes of the cross-entropy in nats; `accuracy` is logged beside it."""

    can_shard: ClassVar[bool] = False  # its norms read a batch as a whole

    def __init__(
        self, images: ImageSet, vocabulary: AttributeVocabulary, model: EvaluatorConfig, config: EvaluatorStageConfig
    ) -> None:
        self.images = images
        self.labels = vocabulary.encode(images.rows)[torch.from_numpy(images.row_of).long()]
        self.config = config
        self.net = EvaluatorNet(model, vocabulary.sizes).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.module: nn.Module = self.net

    def __len__(self) -> int:
        return len(self.images)

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        images = augment(self.images.images(indices), self.config, step.generator).to(step.device)
        labels = self.labels[indices].to(step.device)
        logits = self.net(images.contiguous(memory_format=torch.channels_last))
        losses = [_cross_entropy(part, label) for part, label in zip(logits, labels.unbind(1))]
        hits = torch.stack([part.argmax(-1) for part in logits], dim=1) == labels
        return {"total": torch.stack(losses).mean(), "accuracy": hits[labels != UNKNOWN].float().mean()}


def augment(
    images: Float[Tensor, "B 3 Y X"], config: EvaluatorStageConfig, generator: torch.Generator
) -> Float[Tensor, "B 3 Y X"]:
    """Each picture shifted by whole pixels over white and under noise of its own strength."""
    batch, _, height, width = images.shape
    span = config.max_shift
    padded = F.pad(images, (span, span, span, span), value=1.0)
    top, left = torch.randint(2 * span + 1, (2, batch), generator=generator).tolist()
    shifted = torch.stack([picture[:, y : y + height, x : x + width] for picture, y, x in zip(padded, top, left)])
    strength = config.max_noise * torch.rand(batch, 1, 1, 1, generator=generator)
    return shifted + strength * torch.randn(images.shape, generator=generator)


def _cross_entropy(logits: Float[Tensor, "B classes"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Zero, not undefined, for a batch in which no label is known."""
    total = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)

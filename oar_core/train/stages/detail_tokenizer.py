"""The tokenizer whose tokens run from coarse to fine, under losses of whole pictures, of prefixes, and of tokens that
make up for wrong ones before them (arXiv 2505.21473)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.errors import ConfigError
from oar_core.models.coarse_to_fine import CoarseToFineTokenizer
from oar_core.train.data import ImageSet
from oar_core.train.first_token import FirstTokenHead
from oar_core.train.loop import Stage, Step
from oar_core.train.perceptual import PerceptualDistance
from oar_core.train.stages.tokenizer import sample_vectors
from oar_core.train.wrong_codes import WrongSpan, correct, draw_wrong_span

Frozen = Callable[[Float[Tensor, "B 3 Y X"]], Float[Tensor, "B D"]]


@dataclass(frozen=True)
class DetailTokenizerStageConfig:
    """Each part can be turned off, so that what it adds can be measured. Raises ConfigError."""

    prefix_share: float = 0.2  # of steps whose pictures are decoded from a prefix
    has_correction: bool = True  # every step decodes the pictures a second time, from tokens that correct wrong ones
    near: int = 4  # of how many nearest codes, itself included, a wrong one is drawn
    alignment_weight: float = 1.0  # of the first token's distance to frozen features; 0: none are needed
    commitment_weight: float = 0.25
    vgg_weight: float = 0.15  # of the distance of a pretrained network's features; see `train.perceptual`
    vgg_crop: int = 32  # pixels of the side of the random square that it sees
    vgg_share: float = 0.125  # of a step's decoded pictures that it sees
    init_sample: int = 2048  # pictures whose vectors seed the codebook

    def __post_init__(self) -> None:
        if not (0 <= self.prefix_share <= 1 and 0 < self.vgg_share <= 1):
            raise ConfigError("prefix_share and vgg_share are shares")
        if self.near < 1:
            raise ConfigError("near is at least 1")


class DetailTokenizerStage(Stage):
    can_shard: ClassVar[bool] = False  # its codes move by what a batch holds

    def __init__(
        self,
        images: ImageSet,
        tokenizer: CoarseToFineTokenizer,
        config: DetailTokenizerStageConfig,
        frozen: Frozen | None = None,
        frozen_width: int = 0,
    ) -> None:
        """`frozen` gives the features that first tokens are drawn to. Raises ConfigError."""
        if config.has_correction and not tokenizer.config.is_causal:
            raise ConfigError("tokens without an order cannot correct those before them")
        if config.alignment_weight and frozen is None:
            raise ConfigError("alignment_weight is set, and there are no features to align first tokens to")
        self.images, self.tokenizer, self.config = images, tokenizer, config
        self.frozen = frozen
        self.module: nn.Module = nn.ModuleDict({"tokenizer": tokenizer})
        self.head = FirstTokenHead(tokenizer.config.code_width, frozen_width) if config.alignment_weight else None
        if self.head is not None:
            self.module.add_module("head", self.head)
        # Not a part of `module`: it is not trained, and a checkpoint need not hold it.
        self.perceptual = PerceptualDistance.pretrained() if config.vgg_weight else None

    def __len__(self) -> int:
        return len(self.images)

    def before_step(self, step: Step) -> None:
        if step.number == 0:
            vectors = sample_vectors(self._vectors, len(self.images), self.config.init_sample, 20_000, step)
            self.tokenizer.quantizer.initialize(vectors, step.generator)

    def _vectors(self, indices: Int[Tensor, "B"], device: torch.device) -> Float[Tensor, "B L C"]:
        return self.tokenizer.describe(self.tokenizer.read(self.images.images(indices).to(device)))

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        real = self.images.images(indices).to(step.device)
        memory = self.tokenizer.read(real)
        vectors = self.tokenizer.describe(memory)
        found = self.tokenizer.quantizer(vectors)
        count = self.draw_count(step)
        codes, commitment = found.codes[:, :count], found.commitment
        learned = [(vectors, found.token_ids)]
        if self.config.has_correction and count > 1:
            span, near = self.draw_span(count, step), self.config.near
            corrected = correct(self.tokenizer, memory, found.token_ids, span, near, step.generator)
            again, second = corrected.behind, corrected.codes
            if again is not None:
                second = torch.cat([second, again.codes], dim=1)
                commitment = _mixed(commitment, again.commitment, found.token_ids.shape[1], again.token_ids.shape[1])
                learned.append((corrected.vectors, again.token_ids))
            codes = torch.cat([codes, second[:, :count]])
        losses = self._picture_losses(self.target(real, count), self.tokenizer.paint(codes), step)
        losses["commitment"] = commitment
        losses["total"] = losses["total"] + self.config.commitment_weight * commitment
        if self.head is not None and self.frozen is not None:
            with torch.no_grad():
                features = self.frozen(real)
            losses["alignment"] = self.head(found.codes[:, 0], features)
            losses["total"] = losses["total"] + self.config.alignment_weight * losses["alignment"]
        losses["moved_codes"] = torch.tensor(float(self._move_codes(learned, step)))
        return losses

    def draw_count(self, step: Step) -> int:
        """Number of tokens that the step's pictures are decoded from: all, or those of a prefix. One number for a
        batch."""
        groups = self.tokenizer.config.groups
        draw, length = torch.rand((), generator=step.generator), groups.num_tokens
        if draw >= self.config.prefix_share or length == groups.size:
            return length
        drawn = int(torch.randint(1, length - groups.size + 1, (), generator=step.generator))
        return next(end for end in groups.ends if end >= drawn)

    def target(self, real: Float[Tensor, "B 3 Y X"], count: int) -> Float[Tensor, "B 3 y x"]:
        """The pictures at the resolution of a prefix, on its canvas: nothing in them is finer than that."""
        resolution, canvas = self.tokenizer.resolution(count), self.tokenizer.canvas_size(count)
        if resolution == real.shape[2:]:
            return real
        small = F.interpolate(real, resolution, mode="area")
        return F.interpolate(small, canvas, mode="bicubic", align_corners=False).clamp(-1, 1)

    def draw_span(self, count: int, step: Step) -> WrongSpan:
        return draw_wrong_span(count, self.tokenizer.config.group_size, step.generator)

    def _picture_losses(self, target: Tensor, painted: Tensor, step: Step) -> dict[str, Tensor]:
        """Losses of once or twice as many painted pictures as there are targets."""
        targets = target.repeat(len(painted) // len(target), 1, 1, 1)
        pixel = (targets - painted.float()).abs().mean()
        losses = {"total": pixel, "pixel": pixel}
        if self.perceptual is not None and min(target.shape[2:]) >= self.config.vgg_crop:
            self.perceptual.to(target.device)
            shown = max(1, round(self.config.vgg_share * len(painted)))
            rows = torch.randperm(len(painted), generator=step.generator)[:shown].to(target.device)
            cut = self._draw_square(target, step)
            losses["vgg"] = self.perceptual(targets[rows][cut], painted[rows][cut])
            losses["total"] = losses["total"] + self.config.vgg_weight * losses["vgg"]
        else:
            losses["vgg"] = torch.zeros(())
        return losses

    def _draw_square(self, images: Tensor, step: Step) -> tuple[slice, slice, slice, slice]:
        side = self.config.vgg_crop
        top, left = (int(torch.randint(size - side + 1, (), generator=step.generator)) for size in images.shape[2:])
        return slice(None), slice(None), slice(top, top + side), slice(left, left + side)

    def _move_codes(self, learned: list[tuple[Tensor, Tensor]], step: Step) -> int:
        """Each code moves to the vectors that chose it, of both passes."""
        width = learned[0][0].shape[-1]
        vectors = torch.cat([part.detach().float().reshape(1, -1, width) for part, _ in learned], dim=1)
        token_ids = torch.cat([ids.reshape(1, -1) for _, ids in learned], dim=1)
        return self.tokenizer.quantizer.update(vectors, token_ids, step.generator)


def _mixed(clean: Tensor, corrected: Tensor, num_clean: int, num_corrected: int) -> Float[Tensor, ""]:
    """The mean over the tokens of both passes."""
    return (num_clean * clean + num_corrected * corrected) / (num_clean + num_corrected)

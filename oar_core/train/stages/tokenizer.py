"""Stage 0: the image tokenizer, under pixel, perceptual, commitment and adversarial losses."""

from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.config import TokenizerConfig
from oar_core.models.oar.vqgan import VQGAN
from oar_core.train.adversary import Adversary, draw_cut
from oar_core.train.data import ImageSet
from oar_core.train.loop import Stage, Step
from oar_core.train.optim import ParamGroup
from oar_core.train.perceptual import PerceptualDistance

ADVERSARY_BETAS = (0.0, 0.99)  # without momentum, which lets two players chase each other


@dataclass(frozen=True)
class TokenizerStageConfig:
    perceptual_weight: float = 0.3  # of the distance of the discriminator's features
    adversarial_weight: float = 0.012
    vgg_weight: float = 0.0  # of the distance of a pretrained network's features; see `train.perceptual`
    vgg_crop: int = 0  # pixels of the side of the random square that it sees; 0: the whole picture
    roughness_weight: float = 5.0  # of the discriminator's answer to noise; holds it back where it runs ahead
    commitment_weight: float = 0.25
    adversarial_start: float = 0.1  # share of all steps after which the adversarial loss sets in
    hidden_share: float = 0.25  # of pictures that the decoder sees with positions unknown
    hidden_weight: float = 0.1  # of the loss of pixels at unknown positions: a guess, not a reconstruction
    discriminator_lr_scale: float = 1.5
    init_sample: int = 2048  # pictures whose encoder outputs seed the codebook

    @property
    def has_adversary(self) -> bool:
        return self.perceptual_weight > 0 or self.adversarial_weight > 0


class TokenizerStage(Stage):
    can_shard: ClassVar[bool] = False  # its codes move by what a batch holds

    def __init__(self, images: ImageSet, model: TokenizerConfig, config: TokenizerStageConfig) -> None:
        self.images = images
        self.config = config
        self.tokenizer = VQGAN(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.module: nn.Module = nn.ModuleDict({"tokenizer": self.tokenizer})
        self.adversary = Adversary(config.roughness_weight)
        if config.has_adversary:
            self.module.add_module("discriminator", self.adversary.network)
        # Not a part of `module`: it is not trained, and a checkpoint need not hold it.
        self.perceptual = PerceptualDistance.pretrained() if config.vgg_weight else None

    def __len__(self) -> int:
        return len(self.images)

    def param_groups(self) -> list[ParamGroup]:
        groups = [ParamGroup(self.trained_parameters())]
        if self.config.has_adversary:
            parameters = list(self.adversary.network.parameters())
            groups.append(ParamGroup(parameters, self.config.discriminator_lr_scale, ADVERSARY_BETAS))
        return groups

    def trained_parameters(self) -> list[nn.Parameter]:
        """Parameters of the tokenizer that this stage trains."""
        return list(self.tokenizer.parameters())

    def before_step(self, step: Step) -> None:
        if step.number == 0:
            vectors = sample_vectors(self._vectors, len(self.images), self.config.init_sample, 50_000, step)
            self.tokenizer.quantizer.initialize(vectors, step.generator)

    def _vectors(self, indices: Int[Tensor, "B"], device: torch.device) -> Float[Tensor, "B L C"]:
        return self.tokenizer.encode_vectors(self.real(indices, device))

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        real = self.real(indices, step.device)
        known = self.draw_known(len(real), step)
        result = self.tokenizer(real, known)
        moved = self.tokenizer.quantizer.update(result.encoded, result.quantized.token_ids, step.generator)
        losses = self.picture_losses(real, result.images, known, step)
        losses["total"] = losses["total"] + self.config.commitment_weight * result.quantized.commitment
        reported = {"commitment": result.quantized.commitment, "moved_codes": torch.tensor(float(moved))}
        return losses | reported

    def picture_losses(
        self, real: Float[Tensor, "B 3 Y X"], painted: Float[Tensor, "B 3 Y X"], known: Bool[Tensor, "B L"], step: Step
    ) -> dict[str, Tensor]:
        """Losses of pictures that were painted with unknown positions; the adversary sees whole pictures alone."""
        pixel, whole = self._pixel_loss(real, painted, known), known.all(-1)
        losses = {"total": pixel, "pixel": pixel}
        if self.perceptual is not None:
            losses["vgg"] = self._perceptual_loss(real[whole], painted[whole], step)
            losses["total"] = losses["total"] + self.config.vgg_weight * losses["vgg"]
        if self.config.has_adversary:
            perceptual, adversarial, discriminator = self.adversary.losses(real[whole], painted[whole], step)
            strength = 1.0 if step.progress >= self.config.adversarial_start else 0.0
            losses["total"] = (
                losses["total"]
                + self.config.perceptual_weight * perceptual
                + strength * self.config.adversarial_weight * adversarial
                + discriminator
            )
            losses |= {"perceptual": perceptual, "adversarial": adversarial, "discriminator": discriminator}
        return losses

    def _perceptual_loss(self, real: Tensor, fake: Tensor, step: Step) -> Float[Tensor, ""]:
        """Distance on a random square of the pictures, the same for all, or on the whole less a random margin."""
        assert self.perceptual is not None
        self.perceptual.to(real.device)
        crop = self.config.vgg_crop
        cut = _draw_square(step, (real.shape[-2], real.shape[-1]), crop) if crop else draw_cut(step)
        return self.perceptual(real[cut], fake[cut])

    def real(self, indices: Int[Tensor, "B"], device: torch.device) -> Float[Tensor, "B 3 Y X"]:
        return self.images.images(indices).to(device).contiguous(memory_format=torch.channels_last)

    def draw_known(self, count: int, step: Step) -> Bool[Tensor, "B L"]:
        """Every position of most pictures; of the others a random share, drawn anew for each."""
        height, width = self.tokenizer.grid
        share = torch.rand(count, 1, generator=step.generator)
        draw = torch.rand(count, height * width, generator=step.generator)
        hidden = torch.arange(count) < round(count * self.config.hidden_share)
        return ((draw < share) | ~hidden[:, None]).to(step.device)

    def _pixel_loss(self, real: Tensor, fake: Tensor, known: Bool[Tensor, "B L"]) -> Float[Tensor, ""]:
        error = (real - fake.float()).abs().mean(1)
        patch = self.tokenizer.config.patch_size
        weight = torch.where(known, 1.0, self.config.hidden_weight).unflatten(1, self.tokenizer.grid)
        weight = weight.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        return (error * weight).mean()


@torch.no_grad()
def sample_vectors(
    encode: Callable[[Int[Tensor, "B"], torch.device], Float[Tensor, "B L C"]],
    num_images: int,
    num_encoded: int,
    most: int,
    step: Step,
) -> Float[Tensor, "M C"]:
    """Encodes random pictures and keeps at most so many of their vectors, which seed a codebook."""
    picked = torch.randint(num_images, (num_encoded,), generator=step.generator)
    pool = torch.cat([encode(part, step.device).flatten(0, 1) for part in picked.split(128)])
    return pool[torch.randperm(len(pool), generator=step.generator)[:most].to(pool.device)]


def _draw_square(step: Step, size: tuple[int, int], side: int) -> tuple[slice | EllipsisType, ...]:
    height, width = min(side, size[0]), min(side, size[1])
    top = int(torch.randint(size[0] - height + 1, (), generator=step.generator))
    left = int(torch.randint(size[1] - width + 1, (), generator=step.generator))
    return ..., slice(top, top + height), slice(left, left + width)

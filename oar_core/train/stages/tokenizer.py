"""Stage 0: the image tokenizer, under pixel, perceptual, commitment and adversarial losses."""

from dataclasses import dataclass
from types import EllipsisType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from oar_core.config import TokenizerConfig
from oar_core.tokenizers.vqgan import VQGAN
from oar_core.train.data import ImageSet
from oar_core.train.discriminator import Discriminator
from oar_core.train.loop import Step
from oar_core.train.losses import feature_distance, hinge_discriminator, hinge_generator
from oar_core.train.optim import ParamGroup


@dataclass(frozen=True)
class TokenizerStageConfig:
    perceptual_weight: float = 0.3
    adversarial_weight: float = 0.05
    commitment_weight: float = 0.25
    adversarial_start: float = 0.1  # share of all steps after which the adversarial loss sets in
    hidden_share: float = 0.25  # of pictures that the decoder sees with positions unknown
    hidden_weight: float = 0.1  # of the loss of pixels at unknown positions: a guess, not a reconstruction
    discriminator_lr_scale: float = 0.5
    shift: int = 0  # pixels: the adversary sees pictures cut by up to as many at the top and on the left
    init_sample: int = 2048  # pictures whose encoder outputs seed the codebook


class TokenizerStage:
    def __init__(self, images: ImageSet, model: TokenizerConfig, config: TokenizerStageConfig) -> None:
        self.images = images
        self.config = config
        self.tokenizer = VQGAN(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.discriminator = Discriminator().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.module: nn.Module = nn.ModuleDict({"tokenizer": self.tokenizer, "discriminator": self.discriminator})

    def __len__(self) -> int:
        return len(self.images)

    def param_groups(self) -> list[ParamGroup]:
        return [
            ParamGroup(list(self.tokenizer.parameters())),
            ParamGroup(list(self.discriminator.parameters()), self.config.discriminator_lr_scale),
        ]

    def before_step(self, step: Step) -> None:
        if step.number == 0:
            self._seed_codebook(step)

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        real = self.real(indices, step.device)
        known = self.draw_known(len(real), step)
        result = self.tokenizer(real, known)
        moved = self.tokenizer.quantizer.update(result.encoded, result.quantized.token_ids, step.generator)
        losses = self.picture_losses(real, result.images, known, step)
        losses["total"] = losses["total"] + self.config.commitment_weight * result.quantized.commitment
        told = {"commitment": result.quantized.commitment, "moved_codes": torch.tensor(float(moved))}
        return losses | told

    def picture_losses(
        self,
        real: Float[Tensor, "B 3 Y X"],
        painted: Float[Tensor, "B 3 Y X"],
        known: Bool[Tensor, "B L"],
        step: Step,
    ) -> dict[str, Tensor]:
        """What pictures cost that were painted with positions unknown; the adversary sees the whole ones."""
        pixel, whole = self._pixel_loss(real, painted, known), known.all(-1)
        cut = self._draw_cut(step)
        perceptual, adversarial, discriminator = self._adversary(real[whole][cut], painted[whole][cut])
        strength = 1.0 if step.progress >= self.config.adversarial_start else 0.0
        return {
            "total": pixel
            + self.config.perceptual_weight * perceptual
            + strength * self.config.adversarial_weight * adversarial
            + discriminator,
            "pixel": pixel,
            "perceptual": perceptual,
            "adversarial": adversarial,
            "discriminator": discriminator,
        }

    def real(self, indices: Int[Tensor, "B"], device: torch.device) -> Float[Tensor, "B 3 Y X"]:
        return self.images.images(indices).to(device).contiguous(memory_format=torch.channels_last)

    def draw_known(self, count: int, step: Step) -> Bool[Tensor, "B L"]:
        """Every position of most pictures; of the others a random share, drawn anew for each."""
        height, width = self.tokenizer.grid
        share = torch.rand(count, 1, generator=step.generator)
        draw = torch.rand(count, height * width, generator=step.generator)
        hidden = torch.arange(count) < round(count * self.config.hidden_share)
        return ((draw < share) | ~hidden[:, None]).to(step.device)

    def _draw_cut(self, step: Step) -> tuple[slice | EllipsisType, ...]:
        """Strided features cannot tell some grids of pixels from a plain ground, and these are then painted; a place
        that is drawn for each step makes them seen."""
        if not self.config.shift:
            return (...,)
        top, left = torch.randint(self.config.shift + 1, (2,), generator=step.generator).tolist()
        return ..., slice(top, None), slice(left, None)

    def _pixel_loss(self, real: Tensor, fake: Tensor, known: Bool[Tensor, "B L"]) -> Float[Tensor, ""]:
        error = (real - fake.float()).abs().mean(1)
        patch = self.tokenizer.config.patch_size
        weight = torch.where(known, 1.0, self.config.hidden_weight).unflatten(1, self.tokenizer.grid)
        weight = weight.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        return (error * weight).mean()

    def _adversary(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Perceptual and generator losses, which move only the tokenizer, and the discriminator's own loss.

        The first two go through a copy of the discriminator whose weights take no gradient, so that one backward pass
        serves both players.
        """
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        with torch.no_grad():
            _, real_features = self.discriminator(real)
        fake_logits, fake_features = functional_call(self.discriminator, frozen, (fake,))
        discriminator = hinge_discriminator(self.discriminator(real)[0], self.discriminator(fake.detach())[0])
        return feature_distance(real_features, fake_features), hinge_generator(fake_logits), discriminator

    @torch.no_grad()
    def _seed_codebook(self, step: Step) -> None:
        picked = torch.randint(len(self.images), (self.config.init_sample,), generator=step.generator)
        vectors = [
            self.tokenizer.encode_vectors(self.real(part, step.device)).flatten(0, 1) for part in picked.split(128)
        ]
        pool = torch.cat(vectors)
        kept = torch.randperm(len(pool), generator=step.generator)[:50_000].to(pool.device)
        self.tokenizer.quantizer.initialize(pool[kept], step.generator)

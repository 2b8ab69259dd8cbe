"""The adversary of a tokenizer: a discriminator, and the losses that it makes."""

from types import EllipsisType

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from oar_core.train.discriminator import Discriminator
from oar_core.train.loop import Step
from oar_core.train.losses import feature_distance, paired_logistic

NOISE = 0.1  # standard deviation; pixels lie in [-1, 1]
MAX_CUT = 7  # pixels


class Adversary:
    def __init__(self, roughness_weight: float) -> None:
        """`roughness_weight`: of the discriminator's answer to noise."""
        self.network = Discriminator().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.roughness_weight = roughness_weight

    def losses(self, real: Tensor, fake: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Perceptual and generator losses, which move only the tokenizer, and the discriminator's own loss.

        The first two go through a copy of the discriminator whose weights take no gradient, so that one backward pass
        serves both players.
        """
        cut = draw_cut(step)
        real, fake = real[cut], fake[cut]
        frozen = {name: value.detach() for name, value in self.network.named_parameters()}
        fake_logits, fake_features = functional_call(self.network, frozen, (fake,))
        real_logits, real_features = self.network(real)
        seen_logits, _ = self.network(fake.detach())
        roughness = self._roughness(real, real_logits, step) + self._roughness(fake.detach(), seen_logits, step)
        discriminator = paired_logistic(real_logits, seen_logits) + self.roughness_weight * roughness
        generator = paired_logistic(fake_logits, real_logits.detach())
        return feature_distance(real_features, fake_features), generator, discriminator

    def _roughness(self, images: Tensor, logits: Tensor, step: Step) -> Float[Tensor, ""]:
        """Change of the logits under faint noise: the squared gradient, on average (Mescheder et al. 2018, arXiv
        1801.04406), without a second derivative (Lin et al. 2025, arXiv 2501.08316)."""
        noise = torch.randn(images.shape, generator=step.generator).to(images.device)
        return (self.network(images + NOISE * noise)[0].float() - logits.float()).square().mean()


def draw_cut(step: Step) -> tuple[slice | EllipsisType, ...]:
    """Pictures lose some pixels at the top and on the left: no grid that is painted always meets the same strides."""
    top, left = torch.randint(MAX_CUT + 1, (2,), generator=step.generator).tolist()
    return ..., slice(top, None), slice(left, None)

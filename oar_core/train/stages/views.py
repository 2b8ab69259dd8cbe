"""The network of `train.view_net`: two views of a picture are to be told from views of others (Chen et al. 2020, arXiv
2002.05709)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.train.data import ImageSet
from oar_core.train.loop import Stage, Step
from oar_core.train.view_net import ViewNet

TEMPERATURE = 0.2
LEAST_SHARE = 0.6  # of a side that a view shows
CONTRAST, SHIFT = 0.4, 0.3  # of a view's colours, at most


class ViewsStage(Stage):
    """`accuracy` is how many pictures are found by their other view."""

    can_shard: ClassVar[bool] = False  # a batch is compared as a whole

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.net = ViewNet()
        self.module: nn.Module = self.net

    def __len__(self) -> int:
        return len(self.images)

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        images = self.images.images(indices)
        views = torch.cat([draw_view(images, step.generator) for _ in range(2)]).to(step.device)
        first, second = self.net.project(self.net(views)).chunk(2)
        likeness = first @ second.T / TEMPERATURE
        own = torch.arange(len(first), device=likeness.device)
        total = (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2
        return {"total": total, "accuracy": (likeness.argmax(-1) == own).float().mean()}


def draw_view(images: Float[Tensor, "B 3 Y X"], generator: torch.Generator) -> Float[Tensor, "B 3 Y X"]:
    """A part of each picture, perhaps mirrored, in colours of another contrast and brightness."""
    count = len(images)
    draw = torch.rand(count, 6, generator=generator)
    share = LEAST_SHARE + (1 - LEAST_SHARE) * draw[:, 0]
    mirror = torch.where(draw[:, 1] < 0.5, -1.0, 1.0)
    shift = (2 * draw[:, 2:4] - 1) * (1 - share)[:, None]
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = share * mirror, share, shift
    view = F.grid_sample(images, F.affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)
    contrast = 1 + CONTRAST * (2 * draw[:, 4] - 1)
    brightness = SHIFT * (2 * draw[:, 5] - 1)
    return (view * contrast[:, None, None, None] + brightness[:, None, None, None]).clamp(-1, 1)

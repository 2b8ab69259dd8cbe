"""A perceptual distance on the features of a pretrained network. It serves training alone and is never shipped.

The trunk is VGG-16 (Simonyan & Zisserman 2015, arXiv 1409.1556) with blurred pooling (Zhang 2019, arXiv 1904.11486);
features are compared as LPIPS compares them (Zhang et al. 2018, arXiv 1801.03924). The weights are those of ST-LPIPS
(Ghildyal & Liu 2022, arXiv 2207.13686) from the package `stlpips-pytorch`; only its file is read, its code is not run.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.errors import ConfigError

PACKAGE = "stlpips_pytorch"
WEIGHTS = "weights/vST0.0/vgg_shift_tolerant.pth"
WIDTHS = ((64, 64), (128, 128), (256, 256, 256))  # convolutions of each stage
SLICES = ("slice1", "slice2", "slice3")
# Mean and deviation of ImageNet's channels, for pixels in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class PerceptualDistance(nn.Module):
    """The first three stages of the trunk, frozen."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        width = 3
        for widths in WIDTHS:
            convs = [nn.Conv2d(before, after, 3, padding=1) for before, after in zip((width, *widths[:-1]), widths)]
            self.stages.append(nn.ModuleList(convs))
            width = widths[-1]
        self.weights = nn.ParameterList(torch.zeros(widths[-1]) for widths in WIDTHS)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False)

    @classmethod
    def pretrained(cls) -> "PerceptualDistance":
        """Raises ConfigError where the package with the weights is not installed."""
        distance = cls()
        state = torch.load(_weights_path(), map_location="cpu", weights_only=True)
        for number, (stage, name) in enumerate(zip(distance.stages, SLICES, strict=True)):
            prefix = f"net.{name}."
            keys = sorted(
                (key for key in state if key.startswith(prefix) and key.endswith(".weight")),
                key=lambda key: int(key.split(".")[2]),
            )
            for conv, key in zip(stage, keys, strict=True):  # pyright: ignore[reportArgumentType]
                conv.weight.copy_(state[key])
                conv.bias.copy_(state[key.removesuffix("weight") + "bias"])
            distance.weights[number].copy_(state[f"lin{number}.model.1.weight"].flatten())
        return distance.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, real: Float[Tensor, "B 3 Y X"], fake: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, ""]:
        """The mean over pictures, 0 where they are equal. The gradient goes to `fake` alone."""
        with torch.no_grad():
            expected = self.features(real)
        found = self.features(fake)
        distances = [
            ((a.float() - b.float()).square() * weight[:, None, None]).sum(1).mean()
            for a, b, weight in zip(expected, found, self.weights, strict=True)
        ]
        return torch.stack(distances).sum()

    def features(self, images: Float[Tensor, "B 3 Y X"]) -> list[Float[Tensor, "B D h w"]]:
        """Features of each stage, of length 1 at each place. Pixels lie in [-1, 1]."""
        x = (images - self.shift) / self.scale
        stages: list[Tensor] = []
        for number, convs in enumerate(self.stages):
            if number:
                x = _blurred_pool(x)
            for conv in convs:  # pyright: ignore[reportGeneralTypeIssues]
                x = F.relu(conv(x))
            stages.append(F.normalize(x.float(), dim=1))
        return stages


def _blurred_pool(x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h2 w2"]:
    """Maxima of 2x2, then every second value behind a binomial filter of 3x3."""
    x = F.pad(F.max_pool2d(x, 2, stride=1), (2, 2, 2, 2), mode="reflect")
    taps = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, stride=2, groups=x.shape[1])


def _weights_path() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "this recipe's perceptual loss needs the package stlpips-pytorch: pip install --no-deps stlpips-pytorch"
        )
    return Path(spec.submodule_search_locations[0]) / WEIGHTS

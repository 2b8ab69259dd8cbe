"""The evaluation network: reads a picture's attributes, and gives the features that all distances are measured on.

It shares neither blocks nor seed nor loss with anything that is evaluated: a pre-activation residual network
(He et al. 2016, arXiv 1603.05027) with batch normalisation, trained on labels alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from oar_core.errors import ConfigError, WeightsError
from oar_core.nn.rounded_conv import has_bf16, round_convs
from oar_core.train.attributes import AttributeVocabulary
from oar_core.weights import file_digest, read_tensors

WEIGHTS, CONFIG = "evaluator.safetensors", "config.json"


@dataclass(frozen=True)
class EvaluatorConfig:
    """The stem halves the picture, and so does every width after the first; features have the last width."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: int = 1  # residual blocks per width

    def __post_init__(self) -> None:
        if not self.widths or min(*self.widths, self.blocks) < 1:
            raise ConfigError("an evaluator has at least one width and one block, all positive")


class PreActivationBlock(nn.Module):
    def __init__(self, width: int, next_width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, next_width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(next_width)
        self.conv2 = nn.Conv2d(next_width, next_width, 3, padding=1, bias=False)
        changes = stride > 1 or width != next_width
        self.shortcut = nn.Conv2d(width, next_width, 1, stride, bias=False) if changes else None

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h2 w2"]:
        active = F.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.conv2(F.relu(self.norm2(self.conv1(active))))


class EvaluatorNet(nn.Module):
    """Any picture size. The heads, one per attribute, are slices of one linear layer."""

    def __init__(self, config: EvaluatorConfig, num_classes: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.stem = nn.Conv2d(3, config.widths[0], 4, stride=2, padding=1)
        widths = (config.widths[0], *config.widths)
        self.blocks = nn.Sequential(
            *(
                PreActivationBlock(
                    widths[stage] if block == 0 else widths[stage + 1],
                    widths[stage + 1],
                    stride=2 if block == 0 and stage > 0 else 1,
                )
                for stage in range(len(config.widths))
                for block in range(config.blocks)
            )
        )
        self.norm = nn.BatchNorm2d(config.widths[-1])
        self.heads = nn.Linear(config.widths[-1], sum(num_classes))

    def features(self, images: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        """Penultimate features in fp32, none negative. Pixels lie in [-1, 1]."""
        return F.relu(self.norm(self.blocks(self.stem(images)))).float().mean((2, 3))

    def classify(self, features: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B classes"], ...]:
        """Logits of each attribute."""
        return self.heads(features).float().split(self.num_classes, dim=-1)

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> tuple[Float[Tensor, "B classes"], ...]:
        return self.classify(self.features(images))


@dataclass(frozen=True)
class Reading:
    """The evaluator's reading of M pictures: features, and the likeliest class of each of A attributes."""

    features: Float[Tensor, "M D"]
    classes: Int[Tensor, "M A"]

    def __getitem__(self, index: slice | Int[Tensor, "N"]) -> "Reading":
        return Reading(self.features[index], self.classes[index])

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Evaluator:
    """A trained evaluation network. Figures of two evaluators are not comparable: `digest` tells them apart."""

    name: str
    net: EvaluatorNet
    vocabulary: AttributeVocabulary
    digest: str

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        """Raises WeightsError when a file is missing or the tensors do not fit the config."""
        if not (folder / CONFIG).exists():
            raise WeightsError(f"{folder / CONFIG} is missing; `oar train evaluator` makes an evaluator")
        stored: Mapping[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        vocabulary = AttributeVocabulary({name: tuple(names) for name, names in stored["classes"].items()})
        config = EvaluatorConfig(widths=tuple(stored["network"]["widths"]), blocks=stored["network"]["blocks"])
        net = EvaluatorNet(config, vocabulary.sizes)
        try:
            net.load_state_dict(read_tensors(folder / WEIGHTS))
        except RuntimeError as error:
            raise WeightsError(f"{folder / WEIGHTS} does not fit its config: {error}") from error
        net = net.to(device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
        if not has_bf16(device):
            round_convs(net)
        return cls(stored["name"], net, vocabulary, file_digest(folder / WEIGHTS)[:16])

    @torch.inference_mode()
    def read(self, pixels: UInt8[np.ndarray, "M Y X 3"], *, batch_size: int = 256) -> Reading:
        """M is at least 1. Results lie on the CPU. Convolutions run in bf16, whatever the machine."""
        if not len(pixels):
            return Reading(
                torch.zeros(0, self.net.config.widths[-1]), torch.zeros(0, len(self.vocabulary.names)).long()
            )
        parts = [self._read(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)]
        return Reading(torch.cat([part.features for part in parts]), torch.cat([part.classes for part in parts]))

    def _read(self, pixels: UInt8[np.ndarray, "B Y X 3"]) -> Reading:
        device = self.net.heads.weight.device
        # A copy: cached pictures are memory-mapped read-only. NHWC bytes are channels_last as they are.
        images = torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = self.net.features(images)
        logits = self.net.classify(features)
        return Reading(features.cpu(), torch.stack([part.argmax(-1) for part in logits], dim=1).cpu())


def save_evaluator(folder: Path, name: str, net: EvaluatorNet, vocabulary: AttributeVocabulary) -> None:
    """Writes what `Evaluator.load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.cpu().contiguous() for key, value in net.state_dict().items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes files that their owner alone can read
    stored = {"name": name, "network": asdict(net.config), "classes": vocabulary.classes}
    (folder / CONFIG).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")

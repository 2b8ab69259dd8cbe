"""Lite0's features of pictures, kept on disk: a second look at the same pictures costs nothing."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from oar_core.stored import digest
from oar_core.tensor_file import load_tensors, save_tensors
from oar_lab.eval.lite0 import WEIGHTS_SHA256, Lite0

FORMAT = 1  # of how pictures are prepared and features computed
CHUNK = 256


def picture_digest(pixels: UInt8[np.ndarray, "M Y X 3"]) -> str:
    """Digests all bytes."""
    return digest(pixels.shape, hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest())


class Lite0Features:
    """Features by what the pictures are. The network is loaded when a file is missing."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self._device = device
        self._network: Lite0 | None = None

    def of(self, pixels: UInt8[np.ndarray, "M Y X 3"]) -> Float[Tensor, "M 1280"]:
        """Features of given pictures: the file is named by all of their bytes."""
        return self.under(picture_digest(pixels), lambda: pixels)

    def under(self, key: str, make: Callable[[], UInt8[np.ndarray, "M Y X 3"]]) -> Float[Tensor, "M 1280"]:
        """Features of pictures that `key` names; the pictures are made only where their features are missing."""
        path = self.folder / f"lite0-{digest(FORMAT, WEIGHTS_SHA256, key)}.safetensors"
        if not path.exists():
            save_tensors(path, {"features": self._compute(make())}, {"weights": WEIGHTS_SHA256})
        return load_tensors(path)[0]["features"]

    def _compute(self, pixels: UInt8[np.ndarray, "M Y X 3"]) -> Float[Tensor, "M 1280"]:
        if self._network is None:
            self._network = Lite0.load(self._device)
        parts: list[Tensor] = []
        with tqdm(total=len(pixels), desc="Lite0 features", unit="picture") as bar:
            for start in range(0, len(pixels), CHUNK):
                parts.append(self._network.features(pixels[start : start + CHUNK]))
                bar.update(len(parts[-1]))
        return torch.cat(parts)

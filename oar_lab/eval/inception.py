"""The standard Inception FID, where torch-fidelity and its published weights are on disk; else a reason why not.

Nothing is fetched: the file has to lie in the folder that torch.hub keeps its checkpoints in.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from oar_core.weights import file_digest
from oar_lab.eval.frechet import Gaussian, frechet_distance

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
DIGEST_START = "6726825d"  # the file's name ends in the first digits of its SHA-256
PACKAGES = {"torch_fidelity": "torch-fidelity", "torchvision": "torchvision"}  # the first imports the second
BATCH = 32


def inception_distance(generated: UInt8[np.ndarray, "M Y X 3"], real: UInt8[np.ndarray, "N Y X 3"]) -> dict[str, Any]:
    """`{"fid": ...}` or `{"unavailable": why}`."""
    reason = why_no_inception(inception_path())
    if reason:
        return {"unavailable": reason}
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception_path())
    )
    fitted = [Gaussian.fit(_features(network, pixels)) for pixels in (generated, real)]
    return {"fid": frechet_distance(*fitted), "num_samples": len(generated), "num_real": len(real)}


def inception_path() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


def why_no_inception(path: Path) -> str:
    """Empty where everything is there. The file is a pickle, so only the published one is opened."""
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            return f"the package {package} is not installed"
    if not path.exists():
        return f"{path.name} is not in torch.hub's folder of checkpoints"
    if not file_digest(path).startswith(DIGEST_START):
        return f"{path.name} is not the published file: its SHA-256 does not start with {DIGEST_START}"
    return ""


@torch.inference_mode()
def _features(network: Any, pixels: UInt8[np.ndarray, "M Y X 3"]) -> Float[Tensor, "M 2048"]:
    parts = [
        network(torch.from_numpy(np.array(pixels[start : start + BATCH])).permute(0, 3, 1, 2))[0]
        for start in range(0, len(pixels), BATCH)
    ]
    return torch.cat(parts)

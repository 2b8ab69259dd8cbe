"""Held-out pictures as the tokenizer shows them: what a generator that knew the data perfectly would make.

A distance to them leaves out what the tokenizer loses, and so tells more of the order and of the backbone than one to
the pictures themselves.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from oar_core.digests import module_digest
from oar_core.models.model import Model
from oar_core.stored import digest
from oar_core.tensor_file import load_tensors, save_tensors
from oar_core.train.evaluator import Reading
from oar_lab.eval.reference import Reference

BATCH = 64


@torch.inference_mode()
def reconstruct(pipeline: Model, pixels: UInt8[np.ndarray, "M Y X 3"]) -> UInt8[np.ndarray, "M Y X 3"]:
    parts = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    return np.concatenate([pipeline.decode(pipeline.encode(part)) for part in parts])


def read_reconstructions(pipeline: Model, reference: Reference, chosen: Int[Tensor, "M"], folder: Path) -> Reading:
    """Reads the `chosen` held-out pictures; computed once for a tokenizer, then read from `folder`."""
    key = digest(reference.key, module_digest(pipeline.tokenizer), len(chosen))
    path = folder / f"reconstructions-{key}.safetensors"
    if not path.exists():
        reading = reference.evaluator.read(reconstruct(pipeline, reference.held_out.pixels[chosen.numpy()]))
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"features": reading.features, "classes": reading.classes}, {"of": pipeline.name})
    stored, _ = load_tensors(path)
    return Reading(stored["features"], stored["classes"])

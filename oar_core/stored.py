"""Intermediate results that are kept: computed once for each set of inputs, named by a hash of them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from oar_core.new_file import new_file


def digest(*parts: Any) -> str:
    """16 hex digits of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(pixels: UInt8[np.ndarray, "M Y X 3"], *, num_probes: int = 64) -> str:
    """Digests the shape and some pictures spread over the set: reading all of it would take as long as using it."""
    probes = np.linspace(0, len(pixels) - 1, min(num_probes, len(pixels))).astype(int)
    bytes_digest = hashlib.sha256(np.ascontiguousarray(pixels[probes]).tobytes()).hexdigest()
    return digest(pixels.shape, bytes_digest)


def write_json(path: Path, value: Any) -> None:
    with new_file(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def cached_json(path: Path, compute: Callable[[], Any]) -> Any:
    """Reads the file; else computes the value, and writes the file."""
    if not path.exists():
        write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))

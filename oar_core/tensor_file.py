"""Tensors and a JSON object in one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from oar_core.errors import CheckpointError
from oar_core.new_file import new_file


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with new_file(path) as part:
        save_file(contiguous, part, metadata={"meta": json.dumps(meta)})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises CheckpointError when there is no such file."""
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _meta(file)  # noqa: SIM118


def load_meta(path: Path) -> dict[str, Any]:
    """The JSON object alone. Raises CheckpointError when there is no such file."""
    with _open(path) as file:
        return _meta(file)


def _open(path: Path) -> Any:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    return safe_open(path, framework="pt")


def _meta(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get("meta", "{}"))

"""Digests of networks, whatever files they came from."""

import hashlib
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from oar_core.stored import digest


def module_digest(module: nn.Module) -> str:
    """Digests names and values, in fp32."""
    return tensors_digest(module.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Digests names and values, in fp32."""
    state: Sequence[tuple[str, Tensor]] = sorted(tensors.items())
    return digest([(name, _bytes_digest(value)) for name, value in state])


def _bytes_digest(value: Tensor) -> str:
    return hashlib.sha256(value.detach().cpu().contiguous().float().numpy().tobytes()).hexdigest()

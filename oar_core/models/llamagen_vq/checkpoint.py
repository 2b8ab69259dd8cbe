"""Published LlamaGen tokenizers: their keys are this library's but for a statistic."""

from collections.abc import Mapping

from torch import Tensor

STATISTICS = ("quantize.codebook_used",)


def llamagen_vq_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `VqTokenizer`, in fp32."""
    return {name: tensor.float() for name, tensor in state.items() if name not in STATISTICS}

"""Published MaskGIT tokenizers: their keys are this library's."""

from collections.abc import Mapping

from torch import Tensor


def maskgit_vq_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `MaskGitVqTokenizer`, in fp32."""
    return {name: tensor.float() for name, tensor in state.items()}

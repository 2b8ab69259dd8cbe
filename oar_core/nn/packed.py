"""Linear layers as a CPU multiplies them fastest: laid out for oneDNN, or in whole numbers of 8 bits."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

INT8_MAX = 127.0
SHAPES_AN_OCTAVE = 4
NEVER = 1 << 30  # rows from which packed weights pay where they do not


def rounded_rows(rows: int) -> int:
    """The next of the numbers of rows that kernels are made for: 1 to 8, then four between a power of two and the next.

    oneDNN keeps a compiled kernel, a quarter of a MiB and more, for every shape that it meets, and ragged steps have a
    new shape each. So few shapes are asked for, and the rows that are missing are zeros: 8 % on average, a quarter at
    most.
    """
    step = max(1, (1 << (rows - 1).bit_length()) // (2 * SHAPES_AN_OCTAVE))
    return -(-rows // step) * step


@dataclass(frozen=True)
class Packing:
    """The calls that use packed weights: those of `least_rows` rows and more, with at least `padded_rows` rows, of
    which those that are missing are zeros. Where kernels of two to four rows are slow, five are quicker."""

    least_rows: int = 1
    padded_rows: int = 1

    @property
    def is_ever(self) -> bool:
        return self.least_rows < NEVER

    @property
    def in_words(self) -> str:
        padded = f" padded to {self.padded_rows}" if self.padded_rows > 1 else ""
        return f"{self.least_rows} rows{padded}" if self.is_ever else "never"


class PackedLinear(nn.Module):
    """A linear layer whose weights are laid out once, not at each call.

    Same numbers but for the order of additions. What it saves depends on the machine and the number of rows: it may be
    twice as fast or half as fast, so `packing` says which calls take the weights as they are.
    """

    def __init__(self, linear: nn.Linear, packing: Packing = Packing()) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.packing = packing
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())

    def forward(self, x: Float[Tensor, "... K"]) -> Float[Tensor, "... M"]:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) < self.packing.least_rows:
            return F.linear(x, self.weight, self.bias)
        wanted = max(rounded_rows(len(rows)), self.packing.padded_rows)
        padded = F.pad(rows, (0, 0, 0, wanted - len(rows)))
        y = torch.ops.mkldnn._linear_pointwise(padded, self._packed, self.bias, "none", [], "")
        return y[: len(rows)].view(*x.shape[:-1], y.shape[-1])


class Int8Linear(nn.Module):
    """A linear layer in int8: one scale for each output channel and, at each call, one for each token.

    Whole numbers are added up exactly, and a token's scale is its own: what comes out for a token is the same to the
    last bit whatever else is in the call.
    """

    weight: Int8[Tensor, "K M"]
    scale: Float[Tensor, "M"]

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / INT8_MAX
        whole = (weight / scale[:, None]).round().to(torch.int8)
        self.register_buffer("weight", whole.t(), persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Float[Tensor, "... K"]) -> Float[Tensor, "... M"]:
        rows = x.reshape(-1, x.shape[-1])
        largest = rows.abs().amax(dim=-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
        whole = (rows * (INT8_MAX / largest)).round_().to(torch.int8)
        sums = torch.ops.aten._int_mm(whole, self.weight)
        y = sums.float().mul_(largest.mul_(1 / INT8_MAX)).mul_(self.scale)
        return (y if self.bias is None else y.add_(self.bias)).view(*x.shape[:-1], y.shape[-1])


def layout_of(module: nn.Module) -> str:
    """Describes the layout of its linear layers' weights, in words."""
    for layer in module.modules():
        if isinstance(layer, PackedLinear):
            return f"weights packed from {layer.packing.in_words}"
    return "weights as they are"


def lay_out(module: nn.Module) -> None:
    """Turns the weights of linear layers round in memory, in place: to whoever reads them they are the same tensors.

    A product of few rows with a matrix that lies column by column turns it round at each call, which takes longer than
    a small product itself.
    """
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            linear.weight.data = linear.weight.data.t().contiguous().t()


def can_pack(module: nn.Module) -> bool:
    """Tells whether this build of PyTorch packs weights such as these."""
    weight = next(module.parameters(), None)
    if weight is None:
        return False
    is_supported = weight.dtype is torch.float32 or (
        weight.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return weight.device.type == "cpu" and torch.backends.mkldnn.is_available() and is_supported


def packed_bytes(module: nn.Module) -> int:
    """Memory that packing all linear layers takes beside the original weights."""
    return sum(m.weight.nbytes for m in module.modules() if isinstance(m, nn.Linear))


def packed_twin(module: Module, packing: Packing = Packing()) -> Module:
    """The same network with packed linear layers. It shares all tensors with the other, which stays as it is."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, cast("dict[int, object]", shared))
    replace_layers(twin, _is_linear, lambda linear: PackedLinear(cast(nn.Linear, linear), packing))
    return twin


def quantize(module: nn.Module) -> None:
    """Puts int8 layers in the place of the network's linear layers. What else there is stays in its number format."""
    replace_layers(module, _is_linear, lambda linear: Int8Linear(cast(nn.Linear, linear)))


def replace_layers(
    module: nn.Module, is_wanted: Callable[[nn.Module], bool], make: Callable[[nn.Module], nn.Module]
) -> None:
    """Puts what `make` makes of a layer in its place, wherever in the network there is one."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if is_wanted(child):
                setattr(parent, name, make(child))


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)

"""Published checkpoints: their tensors, checked against what a network of a config has."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from oar_core.errors import WeightsError

Shapes = Mapping[str, Sequence[int]]


def read_tensors(
    state: Mapping[str, Tensor], shapes: Shapes, project: str, ignored: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors of all keys of `shapes`, in fp32. `ignored` keys may be there as well.

    Raises WeightsError for a key that is missing, a key that is not known, and a tensor of another shape.
    """
    missing = [key for key in shapes if key not in state]
    if missing:
        raise WeightsError(f"this is no {project} checkpoint of that size: it has no {_listed(missing)}")
    extra = [key for key in state if key not in shapes and key not in ignored]
    if extra:
        raise WeightsError(f"this is no {project} checkpoint of that size: it also has {_listed(extra)}")
    found: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        tensor = state[key]
        if list(tensor.shape) != list(shape):
            raise WeightsError(
                f"this is no {project} checkpoint of that size: {key} is {list(tensor.shape)} and not {list(shape)}"
            )
        found[key] = tensor.float()
    return found


def _listed(keys: Sequence[str]) -> str:
    others = len(keys) - 1
    return keys[0] if not others else f"{keys[0]} and {others} more"

"""Published checkpoints: their tensors, checked against what a network of a config has."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from oar_core.errors import WeightsError

Shapes = Mapping[str, Sequence[int]]


def read_fitting(
    state: Mapping[str, Tensor], shapes: Shapes, project: str, ignored: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors of all keys of `shapes`, in fp32. `ignored` keys may be there as well.

    Raises WeightsError for a key that is missing, a key that is not known, and a tensor of another shape.
    """
    try:
        check_keys(state, shapes, ignored)
        return {key: fitting(key, state[key], shape).float() for key, shape in shapes.items()}
    except WeightsError as error:
        raise WeightsError(f"this is no {project} checkpoint of that size: {error}") from error


def check_fits(tensors: Mapping[str, Tensor], shapes: Shapes) -> None:
    """Raises WeightsError for a key that is missing, a key that is not known, and a tensor of another shape."""
    check_keys(tensors, shapes)
    for key, shape in shapes.items():
        fitting(key, tensors[key], shape)


def check_keys(found: Collection[str], shapes: Shapes, ignored: Collection[str] = ()) -> None:
    """Raises WeightsError."""
    missing = [key for key in shapes if key not in found]
    if missing:
        raise WeightsError(f"it has no {listed(missing)}")
    extra = [key for key in found if key not in shapes and key not in ignored]
    if extra:
        raise WeightsError(f"it also has {listed(extra)}")


def fitting(key: str, tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor, if it has the shape. Raises WeightsError."""
    if list(tensor.shape) != list(shape):
        raise WeightsError(f"{key} is {list(tensor.shape)} and not {list(shape)}")
    return tensor


def listed(keys: Sequence[str]) -> str:
    """The first of many, and how many more there are."""
    others = len(keys) - 1
    return keys[0] if not others else f"{keys[0]} and {others} more"

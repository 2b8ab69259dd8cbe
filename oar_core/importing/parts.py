"""The two networks of an imported model: whose they are, how large, and their tensors under this library's names."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from oar_core.errors import ConfigError, WeightsError
from oar_core.importing.checkpoint import WIDTHS, CheckpointFile
from oar_core.models.base import Backbone, ImageTokenizer
from oar_core.models.checkpoint import check_fits
from oar_core.models.importer import Config, Importer, ReadKeys
from oar_core.models.load import FAMILIES, family

FULL = 4  # bytes of a number in fp32, in which tensors are rearranged
FORMATS = {"F16": torch.float16, "BF16": torch.bfloat16}
MOST_NAMED = 3  # keys that a sentence lists

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class ImportedPart:
    """A network of a checkpoint that fits its family, before any of its numbers was read."""

    key: str  # of the family
    importer: Importer
    config: dict[str, Any]
    checkpoint: CheckpointFile
    shapes: Mapping[str, tuple[int, ...]]  # of this library's tensors

    @property
    def num_parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def memory(self) -> int:
        """Bytes that its tensors can take while they are rearranged: as they are read, put together, and in fp32."""
        return 2 * self.checkpoint.num_bytes + FULL * self.num_parameters

    @property
    def disk(self) -> int:
        """Bytes that it is stored in, at most."""
        return FULL * self.num_parameters

    def save(self, path: Path) -> None:
        """Stores its tensors, in the number format that the checkpoint has. Raises WeightsError."""
        state = ReadKeys(self.checkpoint)
        with _about(self.checkpoint):
            tensors = dict(self.importer.native_state(state, self.config))
            check_fits(tensors, self.shapes)
            self._check_extra(state)
        formats = {self.checkpoint.formats[key] for key in state.read}
        stored = FORMATS.get(formats.pop(), torch.float32) if len(formats) == 1 else torch.float32
        for name in tensors:
            tensors[name] = tensors[name].to(stored).contiguous()
        save_file(tensors, path)

    def _check_extra(self, state: ReadKeys) -> None:
        extra = [key for key in state if key not in state.read and not self.importer.ignores(key)]
        if extra:
            raise WeightsError(f"it also has {_listed(extra)}, which {self.key} does not have")


def importable() -> list[str]:
    """The families whose checkpoints can be imported."""
    return [key for key in FAMILIES if family(key).importer is not None]


def check_family(key: str) -> Importer:
    """Finds the importer of a family. Raises ConfigError."""
    others = ", ".join(importable())
    if key not in FAMILIES:
        raise ConfigError(f"unknown family {key!r}; there are {others}")
    importer = family(key).importer
    if importer is None:
        raise ConfigError(f"checkpoints of family {key!r} cannot be imported; those of {others} can")
    return importer


def find_backbone(key: str, checkpoint: CheckpointFile, given: Config) -> tuple[ImportedPart, Backbone]:
    """The backbone and its network without numbers. Raises ConfigError, WeightsError."""
    importer, found = check_family(key), family(key)
    if not importer.recognises(checkpoint.shapes):
        raise WeightsError(f"{checkpoint.name} is no checkpoint of {key}: {_looks_like(checkpoint)}")
    return _part(key, importer, checkpoint, given, lambda config: found.build_backbone(key, config))


def holds_tokenizer(checkpoint: CheckpointFile) -> bool:
    importers = (family(key).tokenizer_importer for key in FAMILIES)
    return any(importer is not None and importer.recognises(checkpoint.shapes) for importer in importers)


def find_tokenizer(checkpoint: CheckpointFile, given: Config) -> tuple[ImportedPart, ImageTokenizer]:
    """Finds, as `find_backbone` does, the family that has such a tokenizer."""
    for key in FAMILIES:
        found = family(key)
        importer = found.tokenizer_importer
        if importer is not None and importer.recognises(checkpoint.shapes):
            return _part(
                key,
                importer,
                checkpoint,
                given,
                lambda config, key=key, found=found: found.build_tokenizer(key, config),
            )
    raise WeightsError(f"{checkpoint.name} is no image tokenizer that is known here: {_looks_like(checkpoint)}")


def _part(
    key: str, importer: Importer, checkpoint: CheckpointFile, given: Config, build: Callable[[Config], N]
) -> tuple[ImportedPart, N]:
    with _about(checkpoint):
        config = importer.infer(checkpoint.shapes, given)
        try:
            with torch.device("meta"):
                network = build(config)
        except ConfigError as error:
            raise WeightsError(str(error)) from error
        wrong = [
            (name, number_format)
            for name, number_format in checkpoint.formats.items()
            if number_format not in WIDTHS and not importer.ignores(name)
        ]
        if wrong:
            raise WeightsError(f"{wrong[0][0]} holds {wrong[0][1]}; weights are {', '.join(WIDTHS)}")
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return ImportedPart(key, importer, config, checkpoint, shapes), network


def _looks_like(checkpoint: CheckpointFile) -> str:
    """Names what a checkpoint is instead."""
    shapes = checkpoint.shapes
    found = [(key, family(key)) for key in FAMILIES]
    others = [f"the backbone of {key}" for key, each in found if each.importer and each.importer.recognises(shapes)]
    others += [
        f"the tokenizer of {key}"
        for key, each in found
        if each.tokenizer_importer and each.tokenizer_importer.recognises(shapes)
    ]
    if others:
        return f"its keys are those of {' and '.join(others)}"
    return f"its keys are of no family that is known here ({_listed(sorted(shapes)) or 'it is empty'})"


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _about(checkpoint: CheckpointFile) -> Iterator[None]:
    """Has a sentence about a checkpoint begin with its name."""
    try:
        yield
    except WeightsError as error:
        if checkpoint.name in str(error):
            raise
        raise WeightsError(f"{checkpoint.name} does not fit: {error}") from error

"""A checkpoint's tensors by their project's names, read one by one; whatever file it is, and what is wrong with it."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from oar_core.errors import WeightsError
from oar_core.importing.pickle_reader import pickle_to_safetensors
from oar_core.importing.source import check_disk
from oar_core.models.importer import Shapes

WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}  # bytes of the number formats that weights may have
PREFIXES = ("module.", "_orig_mod.")  # of all keys, where a wrapped network was saved
MAX_HEADER = 100 << 20  # bytes, as safetensors has it
LFS = b"version https://git-lfs"


class Checkpoint(Mapping[str, Tensor]):
    """Reads a tensor when it is asked for, and checks that its numbers are finite."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        """`files` are safetensors. Raises WeightsError for one that is broken, and for a key that two files have."""
        self.name = name
        self._stack = ExitStack()
        self._slices: dict[str, tuple[Any, str]] = {}  # key -> its open file, and the key there
        with self._stack:
            for file in files:
                self._add(file)
            self._stack = self._stack.pop_all()
        self._strip()

    def _add(self, path: Path) -> None:
        try:
            opened = self._stack.enter_context(safe_open(path, framework="pt"))
        except SafetensorError as error:
            raise WeightsError(f"{self.name} is only a part of a safetensors file, or broken ({error})") from error
        for key in opened.keys():  # noqa: SIM118
            if key in self._slices:
                raise WeightsError(f"two files of {self.name} hold {key}")
            self._slices[key] = opened, key

    def _strip(self) -> None:
        for prefix in PREFIXES:
            if self._slices and all(key.startswith(prefix) for key in self._slices):
                self._slices = {key.removeprefix(prefix): value for key, value in self._slices.items()}

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shapes(self) -> Shapes:
        return {key: tuple(opened.get_slice(name).get_shape()) for key, (opened, name) in self._slices.items()}

    @property
    def formats(self) -> dict[str, str]:
        """The number format of each tensor, as safetensors names it."""
        return {key: opened.get_slice(name).get_dtype() for key, (opened, name) in self._slices.items()}

    @property
    def num_bytes(self) -> int:
        formats = self.formats
        return sum(prod(shape) * WIDTHS.get(formats[key], 8) for key, shape in self.shapes.items())

    def __getitem__(self, key: str) -> Tensor:
        """Raises WeightsError for numbers of another format than weights have, or that are not finite."""
        opened, name = self._slices[key]
        tensor = opened.get_tensor(name)
        number_format = opened.get_slice(name).get_dtype()
        if number_format not in WIDTHS:
            raise WeightsError(f"{key} of {self.name} holds {number_format}; weights are {', '.join(WIDTHS)}")
        if not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise WeightsError(f"{key} of {self.name} holds {count} numbers that are not finite")
        return tensor

    def __contains__(self, key: object) -> bool:
        return key in self._slices

    def __iter__(self) -> Iterator[str]:
        return iter(self._slices)

    def __len__(self) -> int:
        return len(self._slices)


def open_checkpoint(paths: Sequence[Path], scratch: Path) -> Checkpoint:
    """One checkpoint of one or several files, pickled or safetensors, whatever they are called. Pickles are written
    anew into `scratch`. Raises WeightsError."""
    name = " + ".join(path.name for path in paths)
    return Checkpoint(name, [_as_safetensors(path, scratch / f"{name}.{i}") for i, path in enumerate(paths)])


def _as_safetensors(path: Path, target: Path) -> Path:
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if head[:4] == b"PK\x03\x04":
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path.name} is only a part of a checkpoint: its end is missing; get it again")
    elif head[:1] != b"\x80":
        _check_safetensors(path, head)
        return path
    check_disk(target.parent, path.stat().st_size, f"reading {path.name}")
    pickle_to_safetensors(path, target)
    return target


def _check_safetensors(path: Path, head: bytes) -> None:
    """Raises WeightsError where a file is no safetensors, or shorter than its header says."""
    size = path.stat().st_size
    if head.startswith(LFS):
        raise WeightsError(f"{path.name} is a pointer of Git LFS and not the file itself; get it with `git lfs pull`")
    length = int.from_bytes(head[:8], "little")
    if size < 10 or head[8:9] != b"{" or length > MAX_HEADER:
        raise WeightsError(f"{path.name} is neither a safetensors file nor a pickled checkpoint")
    if 8 + length > size:
        raise WeightsError(f"{path.name} is only a part of a safetensors file: its header is cut off; get it again")
    with path.open("rb") as file:
        text = file.read(8 + length)[8:]
    try:
        entries: dict[str, Any] = json.loads(text)
        end = max((entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path.name} is no safetensors file: its header cannot be read") from error
    if 8 + length + end > size:
        missing = 8 + length + end - size
        raise WeightsError(
            f"{path.name} is only a part of a safetensors file: {missing} bytes are missing; get it again"
        )

"""A checkpoint's tensors by their project's names, read one by one; whatever file it is, and what is wrong with it."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Entry:
    """A tensor of a file, as its header has it."""

    file: Path
    key: str  # in the file
    shape: tuple[int, ...]
    number_format: str  # as safetensors names it


class CheckpointFile(Mapping[str, Tensor]):
    """Reads a tensor when it is asked for, and checks that its numbers are finite. Before that, headers alone are read:
    to open a file takes as many addresses as it has bytes."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        """`files` are safetensors. Raises WeightsError for one that is broken, and for a key that two files have."""
        self.name = name
        self._stack = ExitStack()
        self._opened: dict[Path, Any] = {}
        entries: dict[str, Entry] = {}
        for file in files:
            for entry in read_file_header(file, name):
                if entry.key in entries:
                    raise WeightsError(f"two files of {name} hold {entry.key}")
                entries[entry.key] = entry
        prefix = next((one for one in PREFIXES if entries and all(key.startswith(one) for key in entries)), "")
        self._entries = {key.removeprefix(prefix): entry for key, entry in entries.items()}

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shapes(self) -> Shapes:
        return {key: entry.shape for key, entry in self._entries.items()}

    @property
    def formats(self) -> dict[str, str]:
        """The number format of each tensor, as safetensors names it."""
        return {key: entry.number_format for key, entry in self._entries.items()}

    @property
    def num_bytes(self) -> int:
        return sum(prod(entry.shape) * WIDTHS.get(entry.number_format, 8) for entry in self._entries.values())

    def __getitem__(self, key: str) -> Tensor:
        """Raises WeightsError for numbers of another format than weights have, or that are not finite."""
        entry = self._entries[key]
        if entry.number_format not in WIDTHS:
            raise WeightsError(f"{key} of {self.name} holds {entry.number_format}; weights are {', '.join(WIDTHS)}")
        tensor: Tensor = self._open(entry.file).get_tensor(entry.key)
        if not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise WeightsError(f"{key} of {self.name} holds {count} numbers that are not finite")
        return tensor

    def _open(self, path: Path) -> Any:
        """Raises WeightsError."""
        if path not in self._opened:
            try:
                self._opened[path] = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, RuntimeError) as error:
                raise WeightsError(f"{self.name} cannot be opened ({error})") from error
        return self._opened[path]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def open_checkpoint(paths: Sequence[Path], scratch: Path, first: str = "") -> CheckpointFile:
    """One checkpoint of one or several files, pickled or safetensors, whatever they are called. Pickles are written
    anew into `scratch`; `first` is an entry of them that is taken before the usual ones. Raises WeightsError."""
    name = " + ".join(path.name for path in paths)
    files = [_as_safetensors(path, scratch / f"{name}.{i}", first) for i, path in enumerate(paths)]
    return CheckpointFile(name, files)


def _as_safetensors(path: Path, target: Path, first: str) -> Path:
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if head[:4] == b"PK\x03\x04":
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path.name} is only a part of a checkpoint: its end is missing; get it again")
    elif head[:1] != b"\x80" or head[8:9] == b"{":  # the length of a header may begin with the mark of a pickle
        return path
    check_disk(target.parent, path.stat().st_size, f"reading {path.name}")
    pickle_to_safetensors(path, target, first)
    return target


def read_file_header(path: Path, name: str) -> list[Entry]:
    """Reads the header of a safetensors file. Raises WeightsError where it is none, or shorter than its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(32)
        if head.startswith(LFS):
            raise WeightsError(f"{name} is a pointer of Git LFS and not the file itself; get it with `git lfs pull`")
        length = int.from_bytes(head[:8], "little")
        if size < 10 or head[8:9] != b"{" or length > MAX_HEADER:
            raise WeightsError(f"{name} is neither a safetensors file nor a pickled checkpoint")
        if 8 + length > size:
            raise WeightsError(f"{name} is only a part of a safetensors file: its header is cut off; get it again")
        file.seek(8)
        text = file.read(length)
    try:
        stored: dict[str, Any] = json.loads(text)
        stored.pop("__metadata__", None)
        entries = [Entry(path, key, tuple(map(int, one["shape"])), str(one["dtype"])) for key, one in stored.items()]
        end = max((int(one["data_offsets"][1]) for one in stored.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise WeightsError(f"{name} is no safetensors file: its header cannot be read") from error
    if 8 + length + end > size:
        missing = 8 + length + end - size
        raise WeightsError(f"{name} is only a part of a safetensors file: {missing} bytes are missing; get it again")
    return entries

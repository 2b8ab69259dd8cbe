"""Pictures in the `.npz` layout of the ADM evaluation suite (Dhariwal and Nichol 2021): what other projects' FID, sFID,
precision and recall are computed from.

Picture i has a seed of its own, which depends on the export's seed and i alone. So it is the same picture whoever draws
it, beside which others, and after however many interruptions.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from tqdm import tqdm

from oar_core.models.model import Model
from oar_core.new_file import new_file
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_wire.options import MAX_SEED

PICTURES, LABELS = "arr_0", "arr_1"  # names that numpy gives to what has none
MOST_PICTURES = 1_000_000  # of one seed
MOST_EXPORT_SEED = MAX_SEED // MOST_PICTURES - 1

Pixels = UInt8[np.ndarray, "Y X 3"]
Source = Callable[[range], Iterable[Pixels]]  # draws the pictures of those numbers, in turn


def picture_seed(seed: int, index: int) -> int:
    """The seed of picture `index` of the export that has this seed."""
    return seed * MOST_PICTURES + index


def class_labels(num_classes: int, count: int) -> Int[np.ndarray, "M"]:
    """Every class in turn. Where `count` is no multiple, the first classes have one picture more than the others."""
    return np.arange(count, dtype=np.int64) % num_classes


@dataclass(frozen=True)
class Drawing:
    """Settings with which the pictures of an export are drawn."""

    plan: PlanSpec
    sampling: SamplingParams
    seed: int


class PictureStore:
    """The pictures of an export as they are made, in numbered parts: one is there whole or not at all."""

    def __init__(self, folder: Path, image_size: tuple[int, int]) -> None:
        self._folder, self._shape = folder, (*image_size, 3)
        self._count = 0
        while (part := self._part(self._count)).exists():
            self._count += len(np.load(part, mmap_mode="r"))

    def __len__(self) -> int:
        return self._count

    def fill(self, count: int, source: Source, part_size: int) -> None:
        """Has the pictures drawn that are missing; after an interruption it goes on behind the last whole part."""
        drawn = iter(source(range(len(self), count)))
        with tqdm(total=count, initial=min(len(self), count), desc="drawing", unit="picture") as bar:
            while pictures := list(islice(drawn, part_size)):
                self._add(np.stack(pictures))
                bar.update(len(pictures))
        assert len(self) >= count, "fewer pictures were drawn than were asked for"

    def batches(self, count: int) -> Iterator[UInt8[np.ndarray, "B Y X 3"]]:
        """The first `count` pictures, part by part."""
        start = 0
        while start < count:
            part = np.load(self._part(start), mmap_mode="r")
            yield part[: count - start]
            start += len(part)

    def _add(self, pictures: UInt8[np.ndarray, "B Y X 3"]) -> None:
        assert (*pictures.shape[1:], pictures.dtype) == (*self._shape, np.uint8), "bytes of pictures of one size"
        with new_file(self._part(self._count)) as part:
            np.save(part, pictures)
        self._count += len(pictures)

    def _part(self, start: int) -> Path:
        """The file of a part, by the number of its first picture."""
        return self._folder / f"{start}.npy"


def drawn_here(
    model: Model, prompts: Sequence[str], drawing: Drawing, batch_size: int, *, is_deterministic: bool
) -> Source:
    """Draws in this process. Where it `is_deterministic`, each picture goes through the networks alone, as in a server
    of deterministic mode, and is the same to the last bit; else a batch may round differently than another.

    A long prompt is cut, as in training. Drawing raises a RequestError where the plan does not fit the model.
    """

    def draw(indices: range) -> Iterator[Pixels]:
        size = 1 if is_deterministic else batch_size
        for start in range(indices.start, indices.stop, size):
            batch = range(start, min(start + size, indices.stop))
            token_ids = generate(model.backbone, _requests(model, prompts, drawing, batch), model.unconditional_ids)
            yield from model.decode(torch.tensor(token_ids))

    return draw


def _requests(model: Model, prompts: Sequence[str], drawing: Drawing, batch: range) -> list[SequenceRequest]:
    captions = [prompts[index] for index in batch]
    conditions = model.conditioner.encode_captions(captions, max_length=model.max_condition)
    return [
        SequenceRequest(str(index), condition, picture_seed(drawing.seed, index), 0, drawing.plan, drawing.sampling)
        for index, condition in zip(batch, conditions)
    ]


def write_npz(
    path: Path,
    shape: tuple[int, int, int, int],
    batches: Iterable[UInt8[np.ndarray, "B Y X 3"]],
    labels: Int[np.ndarray, "M"] | None,
) -> None:
    """`arr_0`: bytes of M pictures (NHWC), batch after batch, so that no more than one is in memory; `arr_1`: their
    classes, where there are such. The same pictures make the same bytes, whenever they are written."""
    with new_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo(f"{PICTURES}.npy"), "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            count = 0
            for batch in batches:
                assert (*batch.shape[1:], batch.dtype) == (*shape[1:], np.uint8), "bytes of pictures of one size"
                file.write(np.ascontiguousarray(batch).data)
                count += len(batch)
            assert count == shape[0], "as many pictures as were announced"
        if labels is not None:
            with archive.open(zipfile.ZipInfo(f"{LABELS}.npy"), "w") as file:
                np.lib.format.write_array(file, labels)

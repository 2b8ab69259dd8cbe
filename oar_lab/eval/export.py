"""Pictures in the `.npz` layout of the ADM evaluation suite (Dhariwal and Nichol 2021): what other projects' FID, sFID,
precision and recall are computed from."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from oar_core.models.classes import ClassConditioner
from oar_core.models.model import Model
from oar_core.new_file import new_file

PICTURES, LABELS = "arr_0", "arr_1"  # names that numpy gives to what has none


def write_npz(
    path: Path,
    shape: tuple[int, int, int, int],
    batches: Iterable[UInt8[np.ndarray, "B Y X 3"]],
    labels: Int[np.ndarray, "M"] | None,
) -> None:
    """`arr_0`: bytes of M pictures (NHWC), batch after batch, so that no more than one is in memory; `arr_1`: their
    classes, where there are such."""
    with new_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(f"{PICTURES}.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            count = 0
            for batch in batches:
                assert (*batch.shape[1:], batch.dtype) == (*shape[1:], np.uint8), "bytes of pictures of one size"
                file.write(np.ascontiguousarray(batch).data)
                count += len(batch)
            assert count == shape[0], "as many pictures as were announced"
        if labels is not None:
            with archive.open(f"{LABELS}.npy", "w") as file:
                np.lib.format.write_array(file, labels)


def class_prompts(model: Model, count: int) -> tuple[list[str], Int[np.ndarray, "M"]] | None:
    """Every class in turn, as often as every other one, and their numbers; None for a model of captions."""
    if not isinstance(model.conditioner, ClassConditioner):
        return None
    labels = np.arange(count, dtype=np.int64) % len(model.conditioner.classes.names)
    return [str(label) for label in labels], labels


def picture_shape(model: Model, prompts: Sequence[str]) -> tuple[int, int, int, int]:
    return len(prompts), *model.image_size, 3

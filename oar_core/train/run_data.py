"""Pictures of a run, as pixels and as tokens. Both are kept in its folder."""

from dataclasses import replace

import torch

from oar_core.models.model import TOKENIZER
from oar_core.train.captions import Row
from oar_core.train.checkpoint import load_tensors, save_tensors
from oar_core.train.columns import add_columns
from oar_core.train.data import ImageSet, load_images
from oar_core.train.loop import CHECKPOINT
from oar_core.train.parallel import first_alone
from oar_core.train.run import Run
from oar_core.train.stage_folders import TOKENIZER_STAGE
from oar_core.train.tokens import TokenSet, tokenize
from oar_core.weights import file_digest

CACHE = "cache"


def load_pictures(run: Run, split: str) -> ImageSet:
    """Reads the pictures of a split in the size that the run's tokenizer takes."""
    recipe, adopted = run.recipe, run.adopted
    size = recipe.tokenizer.image_size if adopted is None else adopted.image_size
    with first_alone():
        images = load_images(run.data, split, size, run.folder / CACHE, recipe.fit, recipe.kept_rows)
    return replace(images, rows=add_columns(images.rows, recipe.column_source))


def load_tokens(run: Run, split: str) -> TokenSet:
    """Tokenizes the pictures of a split, once for each tokenizer checkpoint and set of pixels, wherever their files
    have been moved to."""
    images = load_pictures(run, split)
    path = run.folder / CACHE / f"tokens-{split}.safetensors"
    adopted = run.adopted
    weights = run.folder / TOKENIZER_STAGE / CHECKPOINT if adopted is None else adopted.folder / TOKENIZER
    stamp = [file_digest(weights), images.digest]
    with first_alone():
        stored, meta = load_tensors(path) if path.exists() else ({}, {})
        if meta.get("stamp") != stamp:
            stored = {"token_ids": tokenize(run.tokenizer(), images, run.device)}
            save_tensors(path, stored, {"stamp": stamp})
    rows: list[Row] = list(images.rows)
    return TokenSet(stored["token_ids"], rows, torch.from_numpy(images.row_of).long())

# pyright: standard
"""`oar eval export`: pictures for other projects' evaluation suites."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from oar_cli.answer import Answer
from oar_cli.lab_options import OarCommand, default_device, make_run, recipe_option, split_option, told
from oar_core.errors import ConfigError
from oar_core.models.load import load_model
from oar_core.order.plan import ORDERS
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.stored import digest, write_json
from oar_core.train.recipes import Recipe
from oar_core.weights import Manifest, file_digest
from oar_lab.eval.draws import DrawSettings, draw, draws_path
from oar_lab.eval.export import class_prompts, picture_shape, write_npz
from oar_lab.eval.reference import choose


@click.command(cls=OarCommand)
@recipe_option
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of pictures and captions; a model of classes needs none.",
)
@click.option("--run", "folder", type=click.Path(path_type=Path), required=True,
              help="Folder that keeps what is drawn; an interrupted export goes on from here.")  # fmt: skip
@click.option("--device", default=None, help="Torch device; CUDA where there is one.")
@split_option
@click.option("--weights", type=click.Path(path_type=Path), default=Path("weights"), show_default=True)
@click.option("--model", default=None, help="Default: the manifest's.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "int8"]), default="float32", show_default=True)
@click.option("--samples", "num_samples", type=click.IntRange(min=1), default=50_000, show_default=True)
@click.option("--batch", "batch_size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--order", type=click.Choice(ORDERS), default=None, help="Default: the model's.")
@click.option("--steps", type=click.IntRange(min=1), default=None, help="Default: the model's.")
@click.option("--guidance", type=float, default=None, help="Default: the model's.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A .npz file; what it holds goes beside it."
)
def export(
    recipe: Recipe,
    data: Path | None,
    folder: Path,
    device: str | None,
    split: str | None,
    weights: Path,
    model: str | None,
    dtype: str,
    num_samples: int,
    batch_size: int,
    seed: int,
    order: str | None,
    steps: int | None,
    guidance: float | None,
    out: Path,
) -> Answer:
    """Write samples as one .npz file in the layout of the ADM evaluation suite: arr_0 of bytes (N, height, width, 3).

    Captions are those of held-out pictures, in the order in which `oar eval quality` takes them, again from the first
    where there are fewer. A model of classes draws each class in turn and writes their numbers as arr_1. Picture i is
    image i of the seed, so a larger export begins with the smaller one.
    """
    manifest, device = Manifest.load(weights), device or default_device()
    loaded = load_model(manifest.folder(model or manifest.default), device, getattr(torch, dtype))
    plan, sampling = default_plan(loaded, order=order, steps=steps), default_sampling(loaded)
    settings = DrawSettings(plan, replace(sampling, guidance=sampling.guidance if guidance is None else guidance), seed)
    classes = class_prompts(loaded, num_samples)
    if classes is None:
        if data is None:
            raise ConfigError(f"{loaded.name} draws captions; --data says of which pictures")
        source, prompts = _captions(recipe, data, folder, device, split, num_samples)
        labels = None
    else:
        (prompts, labels), source = classes, "classes in turn"
    path = draws_path(folder / "samples", loaded, settings, source)
    draws = draw(loaded, prompts, settings, path, batch_size=batch_size)
    batches = (loaded.decode(part.long()) for part in draws.token_ids.split(batch_size))
    write_npz(out, picture_shape(loaded, prompts), batches, labels)
    document: dict[str, Any] = {
        "file": str(out),
        "sha256": file_digest(out),
        "num_samples": num_samples,
        "model": {"name": loaded.name, "hash": loaded.model_hash},
        "settings": {**settings.to_dict(), "dtype": dtype},
        "seed": seed,
        "images": [0, num_samples - 1],
        "prompts": source if labels is not None else {"split": split or recipe.held_out, "digest": source},
    }
    write_json(out.with_suffix(".json"), document)
    return told(document)


def _captions(
    recipe: Recipe, data: Path, folder: Path, device: str, split: str | None, count: int
) -> tuple[str, list[str]]:
    """A digest of all held-out captions, by which draws are kept, and those that are drawn."""
    run = make_run(recipe, data, folder, device)
    images = run.images(split or recipe.held_out)
    captions = [images.rows[row]["caption"] for row in images.row_of.tolist()]
    return digest(captions), [captions[index] for index in choose(len(captions), count).tolist()]

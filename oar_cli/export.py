"""`oar eval export`: pictures for other projects' evaluation suites."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import click
import torch

from oar_cli.answer import Answer
from oar_cli.failure import CommandFailed
from oar_cli.lab_options import (
    OarCommand,
    default_device,
    device_option,
    json_answer,
    make_run,
    open_model,
    recipe_option,
    split_option,
    weights_option,
)
from oar_cli.served import ExportSubject, drawn_there, find_model
from oar_client import Client, OarError, Options
from oar_core.errors import ConfigError
from oar_core.models.classes import ClassConditioner
from oar_core.order.plan import ORDERS
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.stored import digest, write_json
from oar_core.train.recipe import Recipe
from oar_core.train.run_data import load_pictures
from oar_core.weights import file_digest
from oar_lab.eval.export import (
    MOST_EXPORT_SEED,
    MOST_PICTURES,
    Drawing,
    PictureStore,
    Source,
    class_labels,
    drawn_here,
    write_npz,
)
from oar_lab.eval.reference import choose_pictures

CLASSES_IN_TURN, NO_CONDITION = "classes in turn", "no condition"


@dataclass(frozen=True)
class ExportPictures:
    """Contents of the pictures of an export. `num_classes` is 0 where they are not drawn from classes."""

    num_samples: int
    num_classes: int
    prompts: list[str]
    source: str  # that tells them from others
    split: str | None  # of the captions

    @property
    def described(self) -> Any:
        return self.source if self.split is None else {"split": self.split, "digest": self.source}


@dataclass(frozen=True)
class ExportRequest:
    """Options of the command."""

    recipe: Recipe
    data: Path | None
    folder: Path
    device: str | None
    split: str | None
    weights: Path
    model: str | None
    dtype: str
    deterministic: bool
    url: str | None
    api_key: str | None
    in_flight: int
    num_samples: int
    batch_size: int
    seed: int
    order: str | None
    steps: int | None
    guidance: float | None
    out: Path

    @property
    def torch_device(self) -> str:
        return self.device or default_device()


@dataclass(frozen=True)
class Artist:
    """The source of the pictures: a model in this process, or one of a server."""

    name: str
    model_hash: str
    image_size: tuple[int, int]
    settings: dict[str, Any]
    source: Source


@click.command("export", cls=OarCommand)
@recipe_option
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of pictures and captions; a model of classes needs none.",
)
@click.option("--run", "folder", type=click.Path(path_type=Path), required=True,
              help="Folder that keeps what is drawn; an interrupted export goes on from here.")  # fmt: skip
@device_option
@split_option
@weights_option
@click.option("--model", default=None, help="Default: the manifest's, or the server's.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "int8"]), default="float32", show_default=True)
@click.option("--deterministic", is_flag=True,
              help="Each picture alone: the same bytes as those of a server of deterministic mode.")  # fmt: skip
@click.option("--url", default=None, help="A running server, whose workers draw the pictures in place of this process.")
@click.option("--api-key", envvar="OAR_API_KEY", default=None, help="Of that server.")
@click.option("--in-flight", type=click.IntRange(min=1), default=64, show_default=True,
              help="Jobs at a server at once.")  # fmt: skip
@click.option("--samples", "num_samples", type=click.IntRange(1, MOST_PICTURES), default=50_000, show_default=True)
@click.option("--batch", "batch_size", type=click.IntRange(min=1), default=64, show_default=True,
              help="Pictures that are drawn together, and kept together.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, MOST_EXPORT_SEED), default=0, show_default=True)
@click.option("--order", type=click.Choice(ORDERS), default=None, help="Default: the model's.")
@click.option("--steps", type=click.IntRange(min=1), default=None, help="Default: the model's.")
@click.option("--guidance", type=float, default=None, help="Default: the model's.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A .npz file; what it holds goes beside it."
)
def export_command(**options: Any) -> Answer:
    """Write samples as one .npz file in the layout of the ADM evaluation suite: arr_0 of bytes (N, height, width, 3).

    A model of classes draws each class in turn and writes their numbers as arr_1. Other models draw captions of
    held-out pictures, in the order in which `oar eval quality` takes them, again from the first where there are fewer.
    Picture i has the seed `--seed` times 1,000,000 plus i, so an export that was interrupted makes the same pictures,
    and a larger one begins with the smaller.
    """
    asked = ExportRequest(**options)
    if not asked.url:
        return _drawn_here(asked)
    try:
        with Client(asked.url, api_key=asked.api_key) as client:
            return _drawn_there(asked, client)
    except OarError as error:
        raise CommandFailed(error) from error


def _drawn_here(asked: ExportRequest) -> Answer:
    model = open_model(asked.weights, asked.model, asked.torch_device, asked.dtype)
    usual = default_sampling(model)
    guidance = usual.guidance if asked.guidance is None else asked.guidance
    plan = default_plan(model, order=asked.order, steps=asked.steps)
    drawing = Drawing(plan, replace(usual, guidance=guidance), asked.seed)
    reader = model.conditioner
    num_classes = len(reader.classes.names) if isinstance(reader, ClassConditioner) else 0
    shown = _pictures(asked, num_classes, reads_captions=reader.kind == "text")
    artist = Artist(
        model.name,
        model.model_hash,
        model.image_size,
        {**asdict(drawing), "dtype": asked.dtype, "deterministic": asked.deterministic},
        drawn_here(model, shown.prompts, drawing, asked.batch_size, is_deterministic=asked.deterministic),
    )
    return _exported(asked, shown, artist)


def _drawn_there(asked: ExportRequest, client: Client) -> Answer:
    """Raises OarError."""
    entry = find_model(client, asked.model)
    num_classes = len(client.classes(entry.id)) if entry.condition == "class" else 0
    shown = _pictures(asked, num_classes, reads_captions=entry.condition == "text")
    requested = {"order": asked.order, "steps": asked.steps, "guidance": asked.guidance}
    given = {name: value for name, value in requested.items() if value is not None}
    options = cast("Options", {"model": entry.id, "previews": False, **given})
    settings = {"server": True, **entry.defaults.model_dump(mode="json"), **given, "seed": asked.seed}
    subject = ExportSubject(entry.condition, shown.prompts)
    source = drawn_there(client, subject, options, asked.seed, asked.in_flight)
    return _exported(asked, shown, Artist(entry.id, entry.model_hash, entry.image_size, settings, source))


def _pictures(asked: ExportRequest, num_classes: int, *, reads_captions: bool) -> ExportPictures:
    """Raises ConfigError where captions are needed and none are named."""
    count = asked.num_samples
    if num_classes:
        labels = [str(label) for label in class_labels(num_classes, count).tolist()]
        return ExportPictures(count, num_classes, labels, CLASSES_IN_TURN, None)
    if not reads_captions:
        return ExportPictures(count, 0, [""] * count, NO_CONDITION, None)
    if asked.data is None:
        raise ConfigError("the model draws captions; --data says of which pictures")
    run = make_run(asked.recipe, asked.data, asked.folder, asked.torch_device)
    split = asked.split or asked.recipe.held_out
    images = load_pictures(run, split)
    captions = images.captions(torch.arange(len(images)))
    prompts = [captions[int(index)] for index in choose_pictures(len(captions), count)]
    return ExportPictures(count, 0, prompts, digest(captions), split)


def _exported(asked: ExportRequest, shown: ExportPictures, artist: Artist) -> Answer:
    """Draws what is missing, and writes the file and what it holds."""
    count, out = shown.num_samples, asked.out
    name = digest(artist.name, artist.model_hash, artist.settings, shown.source, shown.num_classes)
    store = PictureStore(asked.folder / "exports" / name, artist.image_size)
    store.fill(count, artist.source, asked.batch_size)
    labels = class_labels(shown.num_classes, count) if shown.num_classes else None
    write_npz(out, (count, *artist.image_size, 3), store.batches(count), labels)
    document: dict[str, Any] = {
        "file": str(out),
        "sha256": file_digest(out),
        "num_samples": count,
        "model": {"name": artist.name, "hash": artist.model_hash},
        "settings": artist.settings,
        "seed": asked.seed,
        "picture_seeds": f"{asked.seed} * {MOST_PICTURES} + number of the picture, from 0",
        "prompts": shown.described,
    }
    write_json(out.with_suffix(".json"), document)
    return json_answer(document)

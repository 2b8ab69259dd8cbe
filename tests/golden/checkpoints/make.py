"""Begins a tiny any-order training, stops it after four of six steps and writes its run folder, then the end that it
would have come to: FOLDER. See README.md."""

import csv
import random
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image, ImageDraw

from oar_core.config import BackboneConfig, TokenizerConfig
from oar_core.train import precision
from oar_core.train.adoption import adopt
from oar_core.train.loop import CHECKPOINT, LoopConfig, Step
from oar_core.train.model_export import ModelExport
from oar_core.train.recipe import Recipe
from oar_core.train.run import Run
from oar_core.train.stage_folders import ANY_ORDER_STAGE
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stages.any_order import AnyOrderStage

STOPPED_AT, NUM_STEPS = 4, 6
END = "end.safetensors"
LOOP = LoopConfig(num_images=8 * NUM_STEPS, batch_size=8, log_every=1, checkpoint_every=2)
RECIPE = Recipe(
    name="tiny",
    licence="CC0-1.0",
    caption_source="plain",
    text_vocab=280,
    tokenizer=TokenizerConfig(image_size=(16, 16), widths=(8, 8), head_width=8, vocab_size=16, code_width=4),
    tokenizer_loop=LOOP,
    backbone=BackboneConfig(
        grid=(4, 4),
        vocab_size=16,
        condition_vocab=280,
        max_condition=8,
        width=8,
        num_heads=2,
        num_context_layers=1,
        num_query_layers=1,
    ),
    any_order_loop=LOOP,
)


class Stopped(Exception):
    """As a killed process, but after a known step."""


def write_pictures(folder: Path) -> Path:
    """48 coloured squares with captions, always the same."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "split"])
        for number in range(48):
            colour, left, top = ("red", "green", "blue")[number % 3], rng.randrange(8), rng.randrange(8)
            picture = Image.new("RGB", (16, 16), "white")
            ImageDraw.Draw(picture).rectangle((left, top, left + 7, top + 7), fill=colour)
            picture.save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", f"a {colour} square", "train"])
    return folder


def open_run(pictures: Path, folder: Path) -> Run:
    return Run(RECIPE, pictures, folder, torch.device("cpu"))


def use_full_precision() -> None:
    """On every machine: which number format is the faster one is measured, and the end depends on it."""
    precision._faster_on_cpu = lambda: torch.float32


def main(target: Path) -> None:
    torch.set_num_threads(1)
    use_full_precision()
    with TemporaryDirectory() as name:
        work = Path(name)
        pictures = write_pictures(work / "pictures")
        first = open_run(pictures, work / "first")
        StageTrainer(first).train_tokenizer()
        ModelExport(first).export(work / "model", "tokenizer")
        run = open_run(pictures, work / "run")
        adopt(run, work / "model", only_tokenizer=True)  # without the adversary, which is large
        before_step = AnyOrderStage.before_step

        def stop(stage: AnyOrderStage, step: Step) -> None:
            if step.number == STOPPED_AT:
                raise Stopped
            before_step(stage, step)

        AnyOrderStage.before_step = stop
        try:
            StageTrainer(run).train_any_order()
        except Stopped:
            AnyOrderStage.before_step = before_step
        shutil.copytree(run.folder, target, ignore=shutil.ignore_patterns("cache"))
        StageTrainer(run).train_any_order()
        shutil.copy(run.folder / ANY_ORDER_STAGE / CHECKPOINT, target / END)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

# pyright: standard
"""`oar eval`: measurements of a trained run or a shipped model."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from jaxtyping import UInt8

from oar_cli.answer import Answer
from oar_cli.lab_options import (
    OarGroup,
    json_answer,
    make_run,
    model_option,
    open_model,
    run_options,
    split_option,
    weights_option,
)
from oar_core.errors import ConfigError
from oar_core.models.model import to_pixels
from oar_core.order.plan import ORDERS, POLICY_ORDERS
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.train.run_captions import RunCaptions
from oar_core.train.run_data import load_pictures
from oar_lab.eval.figures import lite0_distances
from oar_lab.eval.likelihood import bits_per_token
from oar_lab.eval.lite0_features import Lite0Features
from oar_lab.eval.painting import paint_picture, strip, write_animation
from oar_lab.eval.quality import QualitySettings
from oar_lab.eval.reconstruction import measure_reconstruction
from oar_lab.eval.samples import draw_samples
from oar_lab.eval.sheet import contact_sheet, side_by_side
from oar_lab.eval.stage_bits import measure_stage, stage_table


@click.group("eval", cls=OarGroup)
def evaluate() -> None:
    """Measure a trained run on its held-out split."""


@evaluate.command()
@run_options
@split_option
@click.option("--images", "num_images", default=2000, show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), default=None, help="PNG: originals above reconstructions.")
@click.option("--lite0", "with_lite0", is_flag=True, help="Also Lite0-FD and Lite0-KID to all held-out pictures.")
def reconstruction(split: str | None, num_images: int, sheet: Path | None, with_lite0: bool, **options: Any) -> Answer:
    """PSNR and code usage of the tokenizer."""
    run = make_run(**options)
    images, tokenizer_ = load_pictures(run, split or run.recipe.held_out), run.tokenizer()
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:num_images]
    batches = (images.images(indices).to(run.device) for indices in chosen.split(64))
    report = measure_reconstruction(tokenizer_, batches)
    if sheet is not None:
        real = images.images(chosen[:16]).to(run.device)
        with torch.inference_mode():
            fake = tokenizer_.decode(tokenizer_.encode(real))
        contact_sheet([*to_pixels(real), *to_pixels(fake)], 16, scale=3).save(sheet)
    if not with_lite0:
        return json_answer(asdict(report))
    fakes: list[UInt8[np.ndarray, "B Y X 3"]] = []
    with torch.inference_mode():
        for indices in chosen.split(64):
            fakes.append(to_pixels(tokenizer_.decode(tokenizer_.encode(images.images(indices).to(run.device)))))
    cache = Lite0Features(run.folder / "samples", run.device)
    resamples = QualitySettings().num_resamples
    return json_answer(
        {**asdict(report), "lite0": lite0_distances(images.pixels, np.concatenate(fakes), cache, resamples)}
    )


@evaluate.command("likelihood")
@run_options
@split_option
@click.option("--images", "num_images", default=2000, show_default=True)
@click.option(
    "--order", type=click.Choice([name for name in ORDERS if name != "likelihood"]), default="random", show_default=True
)
@click.option("--stage", help="Whose backbone. Default: the latest.")
def eval_likelihood(split: str | None, num_images: int, order: str, stage: str | None, **options: Any) -> Answer:
    """Bits per token of held-out pictures with their captions, along one order a picture."""
    run = make_run(**options)
    token_ids, conditions = RunCaptions(run).sample(split or run.recipe.held_out, num_images)
    backbone = run.backbone(stage)
    if order in POLICY_ORDERS and not backbone.has_policy:
        raise ConfigError("this backbone has no order policy")
    bits = bits_per_token(backbone, token_ids, conditions, order)
    return json_answer({"num_images": len(token_ids), "order": order, "bits_per_token": bits})


@evaluate.command()
@run_options
@split_option
@click.option("--images", "num_images", type=click.IntRange(min=2), default=1500, show_default=True)
@click.option("--fit-images", "num_fit", type=click.IntRange(min=1), default=240, show_default=True,
              help="Other pictures that group sizes are fitted on.")  # fmt: skip
@click.option("--stage", "named", multiple=True, required=True,
              help="STAGE or STAGE:ORDER; may be repeated. Default order: the one that it was taught.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), multiple=True, help="Beside one a step; may be repeated.")
def stages(
    split: str | None, num_images: int, num_fit: int, named: tuple[str, ...], steps: tuple[int, ...], **options: Any
) -> Answer:
    """Compare stages by the bits a token of held-out pictures: each in its order, and minus the first."""
    run = make_run(**options)
    found = [
        measure_stage(run, name, split or run.recipe.held_out, num_images, num_fit, sorted(set(steps)))
        for name in named
    ]
    rows = [row for measured in found for row in measured.rows(found[0])]
    return Answer({"num_images": num_images, "num_fit": num_fit, "rows": rows}, [stage_table(rows)])


@evaluate.command()
@run_options
@weights_option
@split_option
@click.option("--images", "num_images", default=64, show_default=True)
@click.option("--zoom", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG: samples left, real pictures right.")
def samples(weights: Path, split: str | None, num_images: int, zoom: int, out: Path, **options: Any) -> Answer:
    """A contact sheet: pictures made from held-out captions beside the real ones."""
    run = make_run(**options)
    pipeline = open_model(weights, run.recipe.name, str(run.device))
    images = load_pictures(run, split or run.recipe.held_out)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:num_images]
    plan, sampling = default_plan(pipeline), default_sampling(pipeline)
    fake = draw_samples(pipeline, images.captions(chosen), plan, sampling)
    real = to_pixels(images.images(chosen))
    side_by_side(fake, real, zoom=zoom, is_crisp=pipeline.pixel_art).save(out, optimize=True)
    return json_answer({"out": str(out), "plan": asdict(plan), "sampling": asdict(sampling)})


@evaluate.command("model")
@weights_option
@model_option
def eval_model(weights: Path, model: str | None) -> Answer:
    """Load a shipped model, check its hashes and print its size."""
    pipeline = open_model(weights, model)
    sizes = {"backbone": pipeline.backbone, "tokenizer": pipeline.tokenizer}
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in sizes.items()}
    return json_answer(
        {"name": model or pipeline.name, "hash": pipeline.model_hash, "grid": pipeline.grid, "parameters": counts}
    )


@evaluate.command("painting")
@weights_option
@model_option
@click.option("--prompt", default=None, help="Default: the model's first example.")
@click.option("--seed", default=7, show_default=True)
@click.option("--order", default=None, help="Default: the model's.")
@click.option("--steps", default=None, type=int, help="Default: the model's.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG: canvases, then the map of ranks.")
def eval_painting(
    weights: Path, model: str | None, prompt: str | None, seed: int, order: str | None, steps: int | None, out: Path
) -> Answer:
    """Show how one picture comes about, patch by patch."""
    pipeline = open_model(weights, model)
    plan = default_plan(pipeline, order=order, steps=steps)
    prompt = prompt or pipeline.example_prompts[0]
    strip(pipeline, paint_picture(pipeline, prompt, seed, plan, default_sampling(pipeline))).save(out, optimize=True)
    return Answer({"out": str(out), "prompt": prompt, "seed": seed, "plan": asdict(plan)}, [str(out)])


@evaluate.command("animation")
@weights_option
@model_option
@click.option("--prompt", "prompts", multiple=True, help="May be repeated. Default: the model's examples.")
@click.option("--seed", default=7, show_default=True)
@click.option(
    "--order", "orders", type=click.Choice(ORDERS), multiple=True, help="May be repeated. Default: the model's."
)
@click.option("--steps", default=None, type=int, help="Default: the model's.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Animated WebP.")
def eval_animation(
    weights: Path,
    model: str | None,
    prompts: tuple[str, ...],
    seed: int,
    orders: tuple[str, ...],
    steps: int | None,
    out: Path,
) -> Answer:
    """The same pictures under several orders, one row an order, painted side by side."""
    pipeline = open_model(weights, model)
    plan = default_plan(pipeline, steps=steps)
    paintings = {
        order: [
            paint_picture(
                pipeline, prompt, seed, default_plan(pipeline, order=order, steps=steps), default_sampling(pipeline)
            )
            for prompt in prompts or pipeline.example_prompts
        ]
        for order in orders or (plan.order,)
        if isinstance(order, str)
    }
    write_animation(pipeline, paintings, out)
    return Answer({"out": str(out), "seed": seed, "orders": list(paintings), "steps": plan.steps}, [str(out)])

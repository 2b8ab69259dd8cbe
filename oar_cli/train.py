"""`oar train`: one command a stage; `oar distill` comes between two of them."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from oar_cli.answer import Answer
from oar_cli.flags import with_options
from oar_cli.lab_options import (
    OarCommand,
    OarGroup,
    RecipeType,
    data_option,
    make_run,
    recipe_option,
    run_options,
    weights_option,
)
from oar_core.models.load import read_config
from oar_core.models.model import ORDER_TREE
from oar_core.order.plan import PROMPTED
from oar_core.train.adopted import check_model_order
from oar_core.train.adoption import adopt
from oar_core.train.check import check_data, report_lines
from oar_core.train.detail_trainer import DetailTrainer
from oar_core.train.kept_orders import KeptOrders
from oar_core.train.model_export import ModelExport
from oar_core.train.recipe import Recipe
from oar_core.train.recipes import IMPORTED, own_recipes
from oar_core.train.run import Run, together
from oar_core.train.stage_folders import TOKENIZER_STAGE
from oar_core.train.stage_trainer import STATS, StageTrainer
from oar_core.train.stages.cheapest_order import CheapestOrderConfig
from oar_core.train.stages.order_distill import SCORES
from oar_core.train.stages.order_finetune import ARMS, DISTILLED, arm
from oar_core.train.stages.order_policy import TEACHERS
from oar_core.weights import Manifest, write_manifest
from oar_lab.recipe_facts import MEASURED_ON, facts_table, recipe_facts
from oar_lab.training_cost import Machine, cost_table, on_meta, taught_cost, usual_backbones

EXIT_PROBLEMS = 3


@click.group("train", cls=OarGroup)
def train_group() -> None:
    """Train a model, stage by stage; see `oar train STAGE --help`."""


_num_images = click.option("--images", "num_images", type=click.IntRange(min=1), help="Default: the recipe's.")
_stage = click.option(
    "--stage", default=None, help="Whose backbone. Default: order_finetune where it was run, or any_order."
)


# They name one of the scores that orders were distilled by.
_score_options = with_options(
    click.option("--score", type=click.Choice(sorted(SCORES)), help="Of distilled orders. Default: the recipe's."),
    click.option("--distance-weight", type=float,
                 help="Taken off the score per cell of distance to what is known. Default: the recipe's."),
)  # fmt: skip


def _written(path: Path) -> Answer:
    return Answer({"path": str(path)}, [str(path)])


def _trained(run: Run, train: Callable[[Run], Path]) -> Answer:
    with together(run) as own:
        return _written(train(own))


def _scored(run: Run, score: str | None, distance_weight: float | None) -> Run:
    return _changed(run, "distill", score=score, distance_weight=distance_weight)


_seed = click.option("--seed", type=click.IntRange(min=0), help="Has a folder of its own. Default: the recipe's.")


def _changed(run: Run, part: str, **changes: float | str | None) -> Run:
    """The run with other settings in a part of the recipe; None leaves one as it is."""
    said = {name: value for name, value in changes.items() if value is not None}
    return replace(run, recipe=replace(run.recipe, **{part: replace(getattr(run.recipe, part), **said)}))


@train_group.command()
def recipes() -> Answer:
    """List the recipes: what they make, and what it costs."""
    facts = [recipe_facts(recipe) for recipe in own_recipes()]
    more = f"{IMPORTED}: for a model of another family, whose own networks are trained on; see `oar train cost`."
    return Answer([asdict(fact) for fact in facts], [facts_table(facts), MEASURED_ON, more])


@train_group.command()
@click.option("--recipe", type=RecipeType(), default=IMPORTED, show_default=True, help="Whose stages are meant.")
@click.option("--model", "models", type=click.Path(path_type=Path, exists=True, file_okay=False), multiple=True,
              help="A model folder; may be repeated. Default: each imported family at its usual size.")  # fmt: skip
@click.option("--gpus", "num_gpus", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--memory", "gpu_gib", type=click.FloatRange(min=1), default=80.0, show_default=True,
              help="GiB of a GPU.")  # fmt: skip
@click.option("--tflops", type=click.FloatRange(min=0, min_open=True), default=150.0, show_default=True,
              help="That a GPU reaches in bf16; a third to a half of its data sheet.")  # fmt: skip
def cost(recipe: Recipe, models: tuple[Path, ...], num_gpus: int, gpu_gib: float, tflops: float) -> Answer:
    """Compute what it takes to teach an imported network an order: memory and hours, from its sizes alone."""
    machine = Machine(num_gpus, gpu_gib, tflops * 1e12)
    configs = [read_config(folder) for folder in models]
    networks = {config["name"]: check_model_order(config, on_meta(config)) for config in configs} or usual_backbones()
    costs = [taught_cost(name, network, recipe, machine) for name, network in networks.items()]
    return Answer([asdict(found) for found in costs], [cost_table(costs)])


@train_group.command("check")
@recipe_option
@data_option
def train_check(recipe: Recipe, data: Path) -> Answer:
    """Read all of a folder's pictures and captions and say what was found; exit status 3 if it cannot be trained on."""
    report = check_data(data, recipe)
    return Answer(asdict(report), report_lines(report), exit_code=EXIT_PROBLEMS if report.problems else 0)


@train_group.command()
@run_options
@_num_images
def tokenizer(num_images: int | None, **options: Any) -> Answer:
    """Stage 0: the image tokenizer (VQGAN)."""
    run = _changed(make_run(**options), "tokenizer_loop", num_images=num_images)
    return _trained(run, lambda own: StageTrainer(own).train_tokenizer())


@train_group.command()
@run_options
@_num_images
def decoder(num_images: int | None, **options: Any) -> Answer:
    """The tokenizer's decoder alone: better pixels for the same tokens."""
    run = _changed(make_run(**options), "decoder_loop", num_images=num_images)
    return _trained(run, lambda own: StageTrainer(own).train_decoder())


@train_group.command()
@run_options
@_num_images
def views(num_images: int | None, **options: Any) -> Answer:
    """Before stage 0 of a coarse-to-fine recipe: features of pictures, to which first tokens are aligned."""
    run = _changed(make_run(**options), "views_loop", num_images=num_images)
    return _trained(run, lambda own: DetailTrainer(own).train_views())


@train_group.command("coarse_to_fine")
@run_options
@_num_images
def coarse_to_fine(num_images: int | None, **options: Any) -> Answer:
    """Stage 1 of a coarse-to-fine recipe: the backbone, on the groups of its tokens."""
    run = _changed(make_run(**options), "any_order_loop", num_images=num_images)
    return _trained(run, lambda own: DetailTrainer(own).train_coarse_to_fine())


@train_group.command("any_order")
@run_options
@_num_images
def any_order(num_images: int | None, **options: Any) -> Answer:
    """Stage 1: the backbone, on random orders."""
    run = _changed(make_run(**options), "any_order_loop", num_images=num_images)
    return _trained(run, lambda own: StageTrainer(own).train_any_order())


@train_group.command("order_tree")
@run_options
@click.option("--leaves", "num_leaves", type=click.IntRange(min=1), help="Orders, at most. Default: the recipe's.")
@click.option("--min-pictures", type=click.IntRange(min=1), help="Of each order. Default: the recipe's.")
@_score_options
def order_tree(
    num_leaves: int | None, min_pictures: int | None, score: str | None, distance_weight: float | None, **options: Any
) -> Answer:
    """Fit the orders that prompts decide to the distilled ones and their captions; seconds.

    Printed: how their ranks correlate with the own orders of pictures that a first tree did not see.
    """
    run = _scored(make_run(**options), score, distance_weight)
    run = _changed(run, "order_tree", num_leaves=num_leaves, min_pictures=min_pictures)
    fitted = KeptOrders(run).fit()
    path = str(run.orders_folder / ORDER_TREE)
    found = {
        "path": path,
        "orders": len(fitted.tree),
        "pictures": fitted.num_pictures,
        "correlation": round(fitted.correlation, 4),
        "one_for_all": round(fitted.one_for_all, 4),
    }
    lines = (f"{fitted.num_pictures} distilled orders", f"{len(fitted.tree)} orders, which prompts decide",
             f"correlation with a picture's own: {fitted.correlation:.3f}; one order for all {fitted.one_for_all:.3f}",
             path)  # fmt: skip
    return Answer(found, lines)


def _counts(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Raises BadParameter."""
    if text is None:
        return ()
    try:
        return tuple(map(int, text.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of counts, such as 2,4,10") from error


@train_group.command("cheapest_order")
@run_options
@click.option("--steps", type=click.IntRange(min=1), default=CheapestOrderConfig.steps, show_default=True)
@click.option("--sizes", callback=_counts, help="Of the steps, as 2,4,10. Default: cosine.")
@click.option("--trials", "num_trials", type=click.IntRange(min=0), default=CheapestOrderConfig.num_trials,
              show_default=True, help="Exchanges of two positions; 0: the best symmetry of Halton order.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def cheapest(steps: int, sizes: tuple[int, ...], num_trials: int, seed: int, **options: Any) -> Answer:
    """Search the one order for all prompts whose steps ignore least; it takes the place of a fitted tree. Minutes.

    The training pictures' code vectors are taken as Gaussian, given the words of the captions. Printed: nats a picture
    above one position a step. It starts from the mirror image or turn of Halton order that costs least.
    """
    run = make_run(**options)
    found = KeptOrders(run).search(CheapestOrderConfig(steps, sizes, num_trials, seed=seed))
    path = str(run.orders_folder / ORDER_TREE)
    excess = {name: round(getattr(found, name), 4) for name in ("excess", "halton_excess", "start_excess")}
    document = {"path": path, "order": found.order, "sizes": found.sizes, **excess}
    text = (
        f"nats above one a step: {found.excess:.2f}; Halton order {found.halton_excess:.2f}, "
        f"its best mirror image or turn {found.start_excess:.2f}"
    )
    return Answer(document, (f"sizes {' '.join(map(str, found.sizes))}", text, path))


@train_group.command("order_finetune")
@run_options
@_num_images
@click.option(
    "--orders",
    type=click.Choice(ARMS),
    default=DISTILLED,
    show_default=True,
    help="Orders to specialise on; raster is annealed to.",
)
@click.option("--random-share", type=click.FloatRange(0, 1), help="Pictures in random order. Default: the arm's.")
@click.option("--context-noise", type=click.FloatRange(0, 1), help="Default: the recipe's.")
@click.option(
    "--consensus",
    type=click.FloatRange(0, 1),
    help="How far distilled orders are drawn together; 1 is one for all pictures. Default: the recipe's.",
)
@_seed
@_score_options
def order_finetune(
    num_images: int | None,
    orders: str,
    random_share: float | None,
    context_noise: float | None,
    consensus: float | None,
    seed: int | None,
    score: str | None,
    distance_weight: float | None,
    **options: Any,
) -> Answer:
    """Stage 3: the backbone and its order policy, on distilled orders (or the backbone on another order)."""
    # An order tree is of the distilled orders that it was fitted to: their score names its folder, and not the stage.
    tree_score, stage_score = (score, None) if orders == PROMPTED else (None, score)
    run = _scored(make_run(**options), tree_score, distance_weight)
    run = _changed(run, "order_finetune_loop", num_images=num_images, seed=seed)
    recipe_ = replace(run.recipe, order_finetune_stage=arm(orders, run.recipe.order_finetune_stage))
    changes = {
        "random_share": random_share, "context_noise": context_noise, "consensus": consensus, "score": stage_score
    }  # fmt: skip
    run = _changed(replace(run, recipe=recipe_), "order_finetune_stage", **changes)
    return _trained(run, lambda own: StageTrainer(own).train_order_finetune())


@train_group.command("from_scratch")
@run_options
@_num_images
@click.option(
    "--orders", type=click.Choice([name for name in ARMS if name not in {DISTILLED, PROMPTED}]), default="raster"
)
@_seed
def from_scratch(num_images: int | None, orders: str, seed: int | None, **options: Any) -> Answer:
    """A rival of the three stages: the backbone on one order from the start, with the compute of stages 1 and 3."""
    run = _changed(make_run(**options), "any_order_loop", num_images=num_images, seed=seed)
    return _trained(run, lambda own: StageTrainer(own).train_from_scratch(orders))


@train_group.command("order_policy")
@run_options
@_num_images
@_stage
@click.option(
    "--teacher",
    "policy_teacher",
    type=click.Choice(TEACHERS),
    help="The distilled orders, or the scores of a backbone that is asked for every position. Default: the recipe's.",
)
@_score_options
def order_policy(
    num_images: int | None,
    stage: str | None,
    policy_teacher: str | None,
    score: str | None,
    distance_weight: float | None,
    **options: Any,
) -> Answer:
    """The order policy alone, on the memory of a backbone that stays as it is."""
    run = _changed(_scored(make_run(**options), score, distance_weight), "order_policy_loop", num_images=num_images)
    run = _changed(run, "order_finetune_stage", policy_teacher=policy_teacher)
    return _trained(run, lambda own: StageTrainer(own).train_order_policy(stage))


@train_group.command("evaluator")
@run_options
@_num_images
def train_evaluator(num_images: int | None, **options: Any) -> Answer:
    """The evaluation network that `oar eval quality` measures with; apart from the other stages."""
    run = _changed(make_run(**options), "evaluator_loop", num_images=num_images)
    return _trained(run, lambda own: StageTrainer(own).train_evaluator())


@train_group.command("adopt")
@run_options
@click.option("--model", type=click.Path(path_type=Path), required=True, help="A model folder, as in weights/.")
@click.option("--only-tokenizer", is_flag=True, help="Stage 0 alone; a new backbone is trained on its tokens.")
def adopt_model(model: Path, only_tokenizer: bool, **options: Any) -> Answer:
    """Begin a run with a trained model: its tokenizer and any-order backbone stand for stages 0 and 1.

    An imported model brings its own networks, those of the recipe are not used then.
    """
    run = make_run(**options)
    adopt(run, model, only_tokenizer=only_tokenizer)
    return _written(run.folder)


@train_group.command("export")
@run_options
@_stage
@weights_option
@click.option(
    "--with-any-order", is_flag=True, help="And the backbone of stage 1, which `oar train adopt` begins with."
)
@_score_options
def train_export(
    weights: Path,
    stage: str | None,
    with_any_order: bool,
    score: str | None,
    distance_weight: float | None,
    **options: Any,
) -> Answer:
    """Write averaged weights as a model folder and list it in the manifest; a tokenizer alone is not listed."""
    run = _scored(make_run(**options), score, distance_weight)
    name = ModelExport(run).model_name
    ModelExport(run).export(weights / name, stage, with_any_order=with_any_order)
    if stage == TOKENIZER_STAGE:
        return _written(weights / name)
    licences = {name: ModelExport(run).licence}
    default = name
    if (weights / "manifest.toml").exists():
        manifest = Manifest.load(weights)
        licences = {name: entry.licence for name, entry in manifest.entries.items()} | licences
        default = manifest.default
    write_manifest(weights, default, licences)
    return _written(weights / name)


@click.command(cls=OarCommand)
@run_options
@_num_images
@_score_options
@click.option("--per-step", type=click.IntRange(min=1), help="Positions to choose at once; more are faster.")
def distill(
    num_images: int | None, score: str | None, distance_weight: float | None, per_step: int | None, **options: Any
) -> Answer:
    """Stage 2: the orders in which the any-order model is most certain, of training pictures, and their statistics."""
    run = _scored(make_run(**options), score, distance_weight)
    run = _changed(run, "distill", num_images=num_images, positions_per_step=per_step)
    with together(run) as own:
        StageTrainer(own).distill()
    return _written(run.orders_folder / STATS)

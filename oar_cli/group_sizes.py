# pyright: standard
"""`oar study sizes`: group sizes from the likelihood of held-out pictures."""

import json
from pathlib import Path
from typing import Any

import click
import torch

from oar_cli.answer import Answer
from oar_cli.lab_options import OarCommand, make_run, model_option, run_options, split_option, weights_option
from oar_core.models.load import load_model
from oar_core.order.plan import ORDERS, SCHEDULES
from oar_core.stored import write_json
from oar_core.train.run_data import load_pictures
from oar_core.weights import Manifest
from oar_lab.eval.group_tables import SizeTable, fit_sizes, split_halves, store_tables
from oar_lab.eval.markdown import markdown_table

STEPS = (2, 4, 6, 8, 10, 12, 16, 20, 24, 32)


@click.command(cls=OarCommand)
@run_options
@split_option
@weights_option
@model_option
@click.option(
    "--order", "orders", type=click.Choice([name for name in ORDERS if name != "likelihood"]), multiple=True,
    help="May be repeated. Default: the model's.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), multiple=True, help="Rows of the table; may be repeated.")
@click.option("--images", "num_fit", type=click.IntRange(min=1), default=480, show_default=True,
              help="Held-out pictures that sizes are fitted on.")  # fmt: skip
@click.option("--score-images", "num_score", type=click.IntRange(min=1), default=480, show_default=True,
              help="Other held-out pictures that they are scored on.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of random orders.")
@click.option("--batch", "batch_size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="JSON: sizes, and the losses by rank.")
@click.option("--store", is_flag=True, help="Write the sizes into the model's config, and its hash into the manifest.")
def sizes(
    split: str | None,
    weights: Path,
    model: str | None,
    orders: tuple[str, ...],
    steps: tuple[int, ...],
    num_fit: int,
    num_score: int,
    seed: int,
    batch_size: int,
    out: Path | None,
    store: bool,
    **options: Any,
) -> Answer:
    """Find the group sizes that lose the least likelihood, for each order and number of steps.

    Costs are nats a picture above one position a step, on pictures that no size was fitted on.
    """
    run, manifest = make_run(**options), Manifest.load(weights)
    name = model or manifest.default
    loaded = load_model(manifest.folder(name), str(run.device), torch.float32)
    length = loaded.backbone.spec.num_tokens
    pictures = load_pictures(run, split or run.recipe.held_out)
    halves = split_halves(pictures.row_of, num_fit, num_score)
    shown = sorted({count for count in steps or STEPS if steps or count <= length})
    tables = [
        fit_sizes(loaded, pictures, halves, order, shown[-1], batch_size=batch_size, seed=seed)
        for order in orders or (loaded.defaults["order"],)
    ]
    document = {
        "model": {"name": loaded.name, "hash": loaded.model_hash},
        "num_fit": num_fit,
        "num_score": num_score,
        "num_clear": halves.num_clear,
        "seed": seed,
        "is_exact": loaded.backbone.spec.has_free_groups,
        "orders": {table.order: _summary(table, shown) for table in tables},
    }
    if out is not None:
        losses = {table.order: {"fit": table.fitted.tolist(), "score": table.scored.tolist()} for table in tables}
        write_json(out, {**document, "losses": losses})
    if store:
        store_tables(manifest, name, tables)
    return Answer(document, (*(_table(table, shown) for table in tables), json.dumps(document)))


def _summary(table: SizeTable, shown: list[int]) -> dict[str, Any]:
    return {"nats": round(table.nats, 4), "steps": [table.row(steps) for steps in shown]}


def _table(table: SizeTable, shown: list[int]) -> str:
    header = (f"{table.order}, steps", *SCHEDULES, "best", "best, as fitted", "best sizes")
    rows: list[list[str]] = []
    for row in map(table.row, shown):
        costs = [f"{row[name]:.2f}" for name in (*SCHEDULES, "best", "best_fitted")]
        rows.append([str(row["steps"]), *costs, " ".join(map(str, row["sizes"]))])
    return f"{markdown_table(header, rows)}\n\nOne position a step: {table.nats:.2f} nats a picture.\n"

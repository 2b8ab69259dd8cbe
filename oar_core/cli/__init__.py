"""The library's commands: train, distill, eval, bench. The `oar` command mounts them when one of them is called."""

import click

from oar_core.cli import bench, evaluate, quality, train

for _measurement in (quality.quality, quality.evaluator, quality.report):
    evaluate.evaluate.add_command(_measurement)

commands: dict[str, click.Command] = {
    "train": train.train,
    "distill": train.distill,
    "eval": evaluate.evaluate,
    "bench": bench.bench,
}

"""The verbs that train and measure. The `oar` command mounts them when one of them is called."""

import click

from oar_cli import bench, compare, evaluate, export, group_sizes, quality, study, train

for _measurement in (quality.quality, quality.evaluator, quality.report, compare.compare, export.export):
    evaluate.evaluate.add_command(_measurement)

study.study.add_command(group_sizes.sizes)

commands: dict[str, click.Command] = {
    "train": train.train,
    "distill": train.distill,
    "eval": evaluate.evaluate,
    "study": study.study,
    "bench": bench.bench,
}

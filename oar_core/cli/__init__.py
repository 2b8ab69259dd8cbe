"""The library's commands. The `oar` command mounts them when one of them is called."""

import click

from oar_core.cli import bench, compare, evaluate, quality, sizes, study, train

for _measurement in (quality.quality, quality.evaluator, quality.report, compare.compare):
    evaluate.evaluate.add_command(_measurement)

study.study.add_command(sizes.sizes)

commands: dict[str, click.Command] = {
    "train": train.train,
    "distill": train.distill,
    "eval": evaluate.evaluate,
    "study": study.study,
    "bench": bench.bench,
}

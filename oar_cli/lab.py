"""The verbs that train and measure. The `oar` command mounts them when one of them is called."""

import click

from oar_cli import bench, compare, evaluate, export, group_sizes, quality, study, train

for _measurement in (
    quality.quality,
    quality.measure_evaluator,
    quality.quality_report,
    compare.compare_reports,
    export.export_command,
):
    evaluate.evaluate.add_command(_measurement)

study.study.add_command(group_sizes.sizes)

commands: dict[str, click.Command] = {
    "train": train.train_group,
    "distill": train.distill,
    "eval": evaluate.evaluate,
    "study": study.study,
    "bench": bench.bench,
}

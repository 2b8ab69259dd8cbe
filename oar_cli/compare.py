"""`oar eval compare`: what arms change of another one, with paired intervals."""

import json
from pathlib import Path

import click

from oar_cli.answer import Answer
from oar_cli.lab_options import OarCommand
from oar_lab.eval.arms import group_arms, load_report
from oar_lab.eval.comparison import FOOTNOTE, changes, changes_table_rows, figures_table_rows
from oar_lab.eval.markdown import markdown_table


@click.command("compare", cls=OarCommand)
@click.argument("base", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("others", type=click.Path(path_type=Path, exists=True, dir_okay=False), nargs=-1, required=True)
def compare_reports(base: Path, others: tuple[Path, ...]) -> Answer:
    """Compare evaluations that `oar eval quality` stored: each of OTHERS against BASE, both JSON files.

    Files that differ in the seed alone are one arm. Nothing is measured again.
    """
    arms = group_arms([load_report(path) for path in (base, *others)])
    found = [change for arm in arms[1:] for change in changes(arm, arms[0])]
    entries = [change.to_dict() for change in found]
    tables = [
        markdown_table(*figures_table_rows(arms)),
        markdown_table(*changes_table_rows(arms[1:], arms[0])),
        FOOTNOTE,
    ]
    return Answer({"changes": entries}, ("\n\n".join(tables), json.dumps({"changes": entries})))

"""Compares this version with an earlier one, each run from its own files with the Python of this process.

    python -m ops.versions COMMIT [--new COMMIT] [--only pictures] [--only throughput] [--only queued] [--only openapi]

A git worktree of COMMIT is made in a temporary folder, with its weights; the new version is this folder as it is, or
another commit. All questions go through public doors: HTTP of
`oar serve`, and `oar bench`. Prints tables, then one JSON line. Ends with 1 where pictures differ, a queued job is not
completed with the same pictures, or CPU seconds have grown by more than 5 %.
"""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext

import click

from ops.versions.openapi import compare_openapi
from ops.versions.part import Part
from ops.versions.pictures import compare_pictures
from ops.versions.queued import compare_queued
from ops.versions.throughput import compare_throughput
from ops.versions.tree import ROOT, Tree, checked_out

THIS = Tree.of_folder("this folder", ROOT)
PARTS: dict[str, Callable[[Tree, Tree], Part]] = {
    "openapi": compare_openapi,
    "pictures": compare_pictures,
    "queued": compare_queued,
    "throughput": compare_throughput,
}


@click.command(help=__doc__)
@click.argument("commit")
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="These parts alone. Default: all.")
@click.option("--new", "successor", help="Commit to compare with. Default: the files of this folder.")
@click.pass_context
def compare_versions(context: click.Context, commit: str, only: tuple[str, ...], successor: str | None) -> None:
    facts: dict[str, object] = {"old": commit, "new": successor}
    with checked_out(commit) as old, checked_out(successor) if successor else nullcontext(THIS) as new:
        for name in only or PARTS:
            start = time.monotonic()
            part = PARTS[name](old, new)
            click.echo("\n".join([f"## {part.title}", "", *part.lines, ""]))
            facts[name] = {"is_good": part.is_good, "seconds": round(time.monotonic() - start, 1), **part.facts}
    click.echo(json.dumps(facts))
    if not all(entry["is_good"] for entry in facts.values() if isinstance(entry, dict)):
        context.exit(1)


if __name__ == "__main__":
    compare_versions()

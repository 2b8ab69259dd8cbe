"""`oar generate`: pictures from a prompt, in this process or on a server, painted in the terminal."""

from typing import Any

import click

from oar_cli.drawing import draw_job, with_drawing_options
from oar_wire.request import GenerationRequest


@click.command("generate")
@click.argument("prompt", required=False)
@with_drawing_options
def generate_command(**values: Any) -> None:
    """Make pictures of PROMPT, which --like may tell as well."""
    draw_job(GenerationRequest, values)

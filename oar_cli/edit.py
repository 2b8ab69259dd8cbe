"""`oar edit`: a part of a picture painted anew, in this process or on a server."""

from pathlib import Path
from typing import Any

import click

from oar_cli.drawing import draw_job, with_drawing_options
from oar_cli.job_handle import EditUpload
from oar_wire.edit import EditFields

picture = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=False)


def _about(name: str) -> str:
    return f"{EditFields.model_fields[name].description}."


@click.command("edit")
@click.argument("image", type=picture)
@click.argument("prompt")
@click.option("--mask", type=picture, help="PNG of the same size; where its alpha is 0 is painted. Else IMAGE's own.")
@click.option(
    "--offset", nargs=2, type=int, metavar="DOWN RIGHT", help="Paint around IMAGE, which lies there (pixels)."
)
@click.option("--strength", type=float, help=_about("strength"))
@click.option("--feather", type=int, help=_about("feather"))
@with_drawing_options
def edit_command(image: Path, mask: Path | None, offset: tuple[int, int] | None, **values: Any) -> None:
    """Paint a part of IMAGE anew, as PROMPT says."""
    upload = EditUpload(image.read_bytes(), None if mask is None else mask.read_bytes())
    draw_job(EditFields, {**values, "offset": None if offset is None else list(offset)}, upload)

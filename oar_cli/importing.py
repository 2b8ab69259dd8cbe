"""`oar import`: a model of this server from a checkpoint that somebody else published."""

import json
from pathlib import Path
from typing import Any, cast

import click

from oar_cli.answer import Answer
from oar_cli.lab_options import OarCommand
from oar_cli.settings_options import load_settings
from oar_core.errors import ConfigError
from oar_core.importing.model_folder import Imported, ImportRequest, import_model

SOURCE = "FILE|hf:OWNER/REPO/FILE"


@click.command("import", cls=OarCommand)
@click.argument("family_name", metavar="FAMILY")
@click.option("--checkpoint", metavar=SOURCE, multiple=True, required=True,
              help="The network's file, pickled or safetensors; again for each of several files.")  # fmt: skip
@click.option("--tokenizer", metavar=SOURCE, multiple=True,
              help="The image tokenizer's file; none where the checkpoint holds it.")  # fmt: skip
@click.option(
    "--text", metavar=SOURCE, help="What reads prompts: a text tokenizer's file, or the folder of a text encoder."
)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="A JSON object of what the files cannot tell: backbone, tokenizer, defaults, classes.")  # fmt: skip
@click.option("--name", help="Its name on the server; by default that of the published model.")
@click.option("--licence", help="Of the weights, where it is not the one of their project.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="The folder of models, in which it gets its own; by default OAR_WEIGHTS_DIR.")  # fmt: skip
def import_checkpoint(
    family_name: str,
    checkpoint: tuple[str, ...],
    tokenizer: tuple[str, ...],
    text: str | None,
    config: Path | None,
    name: str | None,
    licence: str | None,
    out: Path | None,
) -> Answer:
    """Make a model of a checkpoint of FAMILY, and list it in the manifest.

    The sizes are read from the tensors, and the defaults are the recipe that its authors published. A pickled file runs
    nothing: it is read in a process of its own, with bounded memory.
    """
    request = ImportRequest(
        family=family_name,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        text=text,
        weights_dir=out or load_settings({}).weights_dir,
        name=name,
        licence=licence,
        given={} if config is None else _read(config),
    )
    imported = import_model(request, lambda text: click.echo(f"{text} ...", err=True))
    return Answer(_document(imported), _lines(imported, request.weights_dir))


def _read(path: Path) -> dict[str, Any]:
    """Raises ConfigError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no object; it is one with backbone, tokenizer, defaults, classes")
    return cast("dict[str, Any]", found)


def _document(imported: Imported) -> dict[str, Any]:
    return {
        "name": imported.name,
        "title": imported.title,
        "folder": str(imported.folder),
        "licence": imported.licence,
        "num_parameters": imported.num_parameters,
        "defaults": dict(imported.defaults),
        "notice": imported.notice,
    }


def _lines(imported: Imported, weights_dir: Path) -> list[str]:
    size = f"{imported.num_parameters / 1e6:.1f} million parameters"
    return [
        f"{imported.name}: {imported.title}, {size}, {imported.licence}, in {imported.folder}",
        *([f"note: {imported.notice}"] if imported.notice else []),
        f"serve it: oar serve --weights-dir {weights_dir} --models {imported.name}",
    ]

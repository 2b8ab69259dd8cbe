"""The card of an imported model: where it comes from, under which licence, and how its authors draw with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oar_core.importing.source import HUB, Fetched
from oar_core.models.importer import Publication
from oar_core.weights import file_digest

CARD = "card.md"


@dataclass(frozen=True)
class Origins:
    """The files that a model was made from."""

    checkpoint: Sequence[Fetched]
    tokenizer: Sequence[Fetched]  # none: the checkpoint's


def write_card(
    folder: Path,
    publication: Publication,
    licence: str,
    config: Mapping[str, Any],
    grid: tuple[int, int],
    origins: Origins,
) -> None:
    height, width = grid
    rows = [
        ("family", config["family"]),
        ("published at", publication.source),
        ("licence", f"{licence}; the page of the weights may name another, which then holds"),
        ("grid", f"{height} x {width} tokens of {config['backbone']['vocab_size']:,} codes"),
        *(_row("checkpoint", file) for file in origins.checkpoint),
        *(_row("tokenizer", file) for file in origins.tokenizer),
    ]
    lines = [
        f"# {config['name']}",
        "",
        f"{publication.title}, imported from its published checkpoint. The weights are those of its authors: only their"
        " names and places changed.",
        *(["", publication.notice] if publication.notice else []),
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        "## Recipe",
        "",
        "What a request that says nothing gets. It is the recipe of the authors, unless it was changed at the import.",
        "",
        "| option | default |",
        "|---|---|",
        *(f"| `{name}` | {value} |" for name, value in config["defaults"].items()),
    ]
    (folder / CARD).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(name: str, file: Fetched) -> tuple[str, str]:
    origin = file.origin.removeprefix(HUB)
    where = f"`{origin}` of the Hugging Face Hub" if file.revision else f"`{origin}`"
    return name, f"{where}, SHA-256 `{file_digest(file.path)}`"

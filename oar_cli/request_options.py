"""A request from the command line: the request of `oar generate` and `oar edit`, from options and from files."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from oar_wire.request import GenerationRequest

R = TypeVar("R", bound=GenerationRequest)

KEYWORD = "oar"  # of the text chunk in a PNG
PICTURES = {"image", "mask"}  # fields that hold files, and in a PNG the number of its picture


def read_order(text: str) -> str | list[int]:
    """A name, or numbers as `3,0,1,2`: an order, or the sizes of groups; the model says whether they are one."""
    if re.fullmatch(r"[\s\d,\[\]]*\d[\s\d,\[\]]*", text):
        return [int(number) for number in re.findall(r"\d+", text)]
    return text


def read_like(name: str) -> dict[str, Any]:
    """The fields in a PNG of ours, which carries what made it, or in a request as JSON. Raises click.BadParameter."""
    try:
        reported = json.loads(_text_of(Path(name)))
    except OSError as error:
        raise click.BadParameter(f"{name}: {error.strerror or error}") from error
    except ValueError as error:
        raise click.BadParameter(f"{name} is neither a request as JSON nor a PNG that says what made it") from error
    if not isinstance(reported, dict):
        raise click.BadParameter(f"{name} holds no JSON object")
    return cast("dict[str, Any]", reported)


def _text_of(path: Path) -> str:
    """Raises OSError, ValueError."""
    try:
        with Image.open(path) as picture:
            return str(picture.info.get(KEYWORD, ""))
    except UnidentifiedImageError:
        return path.read_text(encoding="utf-8")


def make_request(kind: type[R], given: dict[str, Any], like: dict[str, Any], *, previews: bool) -> R:
    """Options count more than the file. Raises click.UsageError."""
    taken = {name: value for name, value in like.items() if name in kind.model_fields and name not in PICTURES}
    if isinstance(like.get("image"), int):
        taken.setdefault("n", like["image"] + 1)
    said = {name: value for name, value in given.items() if value is not None}
    try:
        return kind.model_validate({**taken, **said, "previews": previews})
    except ValidationError as error:
        raise click.UsageError("; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())) from error

"""Multipart bodies with pictures in them, read into the same messages as JSON ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, TypeVar, cast, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from server.api.uploads import Upload
from server.errors import InvalidJson, InvalidRequest, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)

MAX_FIELDS = 2048  # a custom order may come as a field for each position
MAX_FILES = 17
FILES = ("image", "mask")


@dataclass(frozen=True)
class Form:
    fields: Mapping[str, Any]
    images: list[Upload]
    masks: list[Upload]

    @property
    def image(self) -> Upload:
        """Raises InvalidRequest unless there is exactly one."""
        if not self.images:
            raise InvalidRequest("missing_field", "image is required, as a file", field="image")
        if len(self.images) > 1:
            message = f"{len(self.images)} images were sent; this server edits one at a time"
            raise InvalidRequest("invalid_image", message, field="image")
        return self.images[0]

    @property
    def mask(self) -> Upload | None:
        """Raises InvalidRequest where there are several."""
        if len(self.masks) > 1:
            raise InvalidRequest("invalid_mask", "one mask is enough", field="mask")
        return self.masks[0] if self.masks else None


def is_multipart(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def read_form(request: Request, model: type[BaseModel], limit: int) -> Form:
    """`model` tells which fields are texts; the others are read as JSON. `limit` is that of one part, in bytes.

    Raises UnsupportedMediaType, InvalidRequest."""
    if not is_multipart(request):
        raise UnsupportedMediaType("send the body as multipart/form-data")
    fields: dict[str, Any] = {}
    files: dict[str, list[Upload]] = {name: [] for name in FILES}
    try:
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=limit) as form:
            for name, value in form.multi_items():
                plain = name.removesuffix("[]")
                if plain in files and _is_unset(value):
                    continue
                if isinstance(value, UploadFile) and plain in files:
                    files[plain].append(Upload(await value.read(), plain))
                elif isinstance(value, UploadFile):
                    raise InvalidRequest("unknown_field", f"there is no file {name[:80]!r}", field=name[:80])
                elif plain in files:
                    raise InvalidRequest(f"invalid_{plain}", f"{plain} has to be sent as a file", field=plain)
                elif name != plain:
                    fields.setdefault(plain, [])
                    fields[plain] = [*_as_list(fields[plain]), _parse(value)]
                else:
                    fields[name] = value if _is_text(model, name) else _parse(value)
    except HTTPException as error:
        raise InvalidRequest("invalid_form", f"the multipart body cannot be read: {error.detail}") from error
    except ClientDisconnect as error:
        raise InvalidRequest("invalid_form", "the multipart body ended before its time") from error
    return Form(fields, files["image"], files["mask"])


async def read_json(request: Request) -> dict[str, Any]:
    """Raises UnsupportedMediaType, InvalidJson, InvalidRequest."""
    if "json" not in request.headers.get("content-type", "").lower():
        raise UnsupportedMediaType("send the body as application/json or multipart/form-data")
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError, ClientDisconnect) as error:
        raise InvalidJson("the body is no JSON that can be read") from error
    if not isinstance(body, dict):
        raise InvalidRequest("invalid_request", "the body has to be a JSON object")
    return cast("dict[str, Any]", body)


def check(model: type[M], fields: Mapping[str, Any]) -> M:
    """Raises RequestValidationError, as a body that FastAPI reads itself."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from error


def _is_text(model: type[BaseModel], name: str) -> bool:
    info = model.model_fields.get(name)
    return info is None or info.annotation is str or set(get_args(info.annotation)) == {str, NoneType}


def _is_unset(value: UploadFile | str) -> bool:
    """Whether a form has the field and no file was chosen for it. Browsers send an empty one without a name then."""
    return not value if isinstance(value, str) else not value.filename and not value.size


def _parse(text: str) -> Any:
    """A number, a truth value or a list; a text that is none of them stays one, and is complained of as such."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _as_list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]

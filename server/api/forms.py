"""Multipart bodies with pictures in them, read into the same messages as JSON ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import NoneType
from typing import Any, TypeVar, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request

from oar_wire.errors import (
    InvalidField,
    InvalidForm,
    InvalidJson,
    InvalidRequest,
    MissingField,
    UnknownField,
    UnsupportedMediaType,
)
from server.api.bodies import MAX_FIELDS, check_json_type, parse_json, parse_object, read_body, run_parser
from server.api.uploads import Upload

M = TypeVar("M", bound=BaseModel)

MULTIPART = "multipart/form-data"
MAX_TYPE_LENGTH = 512  # of the content type with its boundary; the parser's time grows with the square
MAX_TEXTS = 2048  # a custom order may come as a field for each position
MAX_FILES = 17
SLICE_BYTES = 64 << 10  # of a body; between two of them the event loop can have Python's lock
PARSER_CONFIG = {
    "MAX_HEADER_COUNT": 8,  # of a part
    "MAX_HEADER_SIZE": 1024,
    "MAX_MEMORY_FILE_SIZE": float("inf"),  # the body is in memory, and a disk may be read-only
}
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
            raise MissingField("image is required, as a file", field="image")
        if len(self.images) > 1:
            message = f"{len(self.images)} images were sent; this server edits one at a time"
            raise InvalidField(message, field="image")
        return self.images[0]

    @property
    def mask(self) -> Upload | None:
        """Raises InvalidRequest where there are several."""
        if len(self.masks) > 1:
            raise InvalidField("one mask is enough", field="mask")
        return self.masks[0] if self.masks else None


@dataclass
class _Collector:
    """Collects what the multipart parser found so far; refuses more than a form may have."""

    model: type[BaseModel]
    max_text_bytes: int
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    files: dict[str, list[Upload]] = field(default_factory=lambda: {name: [] for name in FILES})
    num_texts: int = 0
    num_files: int = 0
    text_bytes: int = 0
    is_complete: bool = False

    def add_file(self, part: File) -> None:
        self.num_files += 1
        if self.num_files > MAX_FILES:
            raise _invalid(f"it has more than {MAX_FILES} files")
        name = _decode(part.field_name, "name")
        plain = name.removesuffix("[]")
        if plain in self.files and not part.file_name and not part.size:
            return  # no file was chosen: browsers send an empty one without a name then
        if plain not in self.files:
            raise UnknownField(f"there is no file {name[:80]!r}", field=name[:80])
        part.file_object.seek(0)
        self.files[plain].append(Upload(part.file_object.read(), plain))

    def add_text(self, part: Field) -> None:
        value = part.value or b""
        self.num_texts += 1
        self.text_bytes += len(value)
        if self.num_texts > MAX_TEXTS or self.text_bytes > self.max_text_bytes:
            raise _invalid(f"its texts are more than {MAX_TEXTS}, or longer than {self.max_text_bytes} bytes together")
        name = _decode(part.field_name, "name")
        plain = name.removesuffix("[]")
        if plain in self.files and not value:
            return
        if plain in self.files:
            raise InvalidField(f"{plain} has to be sent as a file", field=plain)
        text = _decode(value, "value")
        if name != plain:
            self._append(plain, _parse(text))
        elif name in self.fields:
            raise _invalid(f"the field {name[:80]!r} is there twice")
        else:
            self.fields[name] = text if _is_text(self.model, name) else _parse(text)
        if len(self.fields) > MAX_FIELDS:
            raise _invalid(f"it has more than {MAX_FIELDS} fields")

    def _append(self, name: str, value: Any) -> None:
        known = self.fields.setdefault(name, [])
        if not isinstance(known, list):
            raise _invalid(f"the field {name[:80]!r} is there twice")
        known.append(value)  # pyright: ignore[reportUnknownMemberType]

    def end(self) -> None:
        self.is_complete = True


def is_multipart(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith(MULTIPART)


async def read_form(request: Request, model: type[BaseModel], limit: int) -> Form:
    """`model` tells which fields are texts; the others are read as JSON. `limit` is that of all fields but the files
    together, in bytes.

    Raises UnsupportedMediaType, InvalidRequest, RequestTimeout."""
    if not is_multipart(request):
        raise UnsupportedMediaType("send the body as multipart/form-data")
    boundary = _boundary(request.headers["content-type"])
    collector = _Collector(model, limit)
    return await run_parser(request, partial(_parse_form, boundary, collector), await read_body(request))


async def read_json(request: Request) -> dict[str, Any]:
    """Raises UnsupportedMediaType, InvalidJson, InvalidRequest, RequestTimeout."""
    check_json_type(request, "send the body as application/json or multipart/form-data")
    return await run_parser(request, parse_object, await read_body(request))


def check(model: type[M], fields: Mapping[str, Any]) -> M:
    """Raises RequestValidationError, as a body that FastAPI reads itself."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from error


def _boundary(content_type: str) -> bytes:
    """Raises InvalidRequest."""
    if len(content_type) > MAX_TYPE_LENGTH:
        raise _invalid(f"its content type has more than {MAX_TYPE_LENGTH} characters")
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _invalid("its content type names no boundary")
    return boundary


def _parse_form(boundary: bytes, found: _Collector, body: bytes) -> Form:
    """Raises InvalidRequest."""
    starts = range(0, len(body), SLICE_BYTES)
    if sum(body.count(b"--" + boundary, start, start + SLICE_BYTES) for start in starts) > MAX_TEXTS + MAX_FILES + 1:
        # Also what only looks like a boundary, over which the parser goes byte by byte.
        raise _invalid(f"it has more than {MAX_TEXTS} fields and {MAX_FILES} files")
    try:
        parser = FormParser(
            MULTIPART, found.add_text, found.add_file, on_end=found.end, boundary=boundary, config=PARSER_CONFIG
        )
        for start in starts:
            parser.write(body[start : start + SLICE_BYTES])
        parser.finalize()
    except FormParserError as error:
        raise _invalid(str(error)[:200]) from error
    if not found.is_complete:
        raise _invalid("it ends before its last boundary")
    return Form(found.fields, found.files["image"], found.files["mask"])


def _invalid(why: str) -> InvalidRequest:
    return InvalidForm(f"the multipart body cannot be read: {why}")


def _decode(text: bytes | None, what: str) -> str:
    """Raises InvalidRequest."""
    try:
        return (text or b"").decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"the {what} of a field is no UTF-8") from error


def _is_text(model: type[BaseModel], name: str) -> bool:
    info = model.model_fields.get(name)
    return info is None or info.annotation is str or set(get_args(info.annotation)) == {str, NoneType}


def _parse(text: str) -> Any:
    """A number, a truth value or a list; a text that is none of them stays one, and is complained of as such."""
    try:
        return parse_json(text.encode())
    except (InvalidJson, InvalidRequest):
        return text

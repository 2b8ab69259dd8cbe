"""Every HTTP request that there is, as data, and what its answer says."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from oar_client.address import job_path
from oar_client.errors import BadAnswer, BadRequest
from oar_client.pictures import PictureSource, read_source
from oar_wire.errors import InvalidField
from oar_wire.job import GenerationList, GenerationStatus
from oar_wire.model import ClassList, ModelEntry, ModelList
from oar_wire.openai import OutputFormat
from oar_wire.outputs import OutputKind

M = TypeVar("M", bound=BaseModel)
PaintingFormat = Literal["webp", "gif"]


@dataclass(frozen=True)
class Call(Generic[M]):
    """One request; it may be sent as often as it takes, and does its work once. `answer` reads what comes back."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    answer: type[M]
    body: Mapping[str, Any] | None = None  # JSON, or the form's fields where there are files
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    query: Mapping[str, str] = field(default_factory=dict[str, str])

    def arguments(self) -> dict[str, Any]:
        """Arguments of `httpx.Client.request` and its asynchronous twin."""
        common = {"method": self.method, "url": self.path, "headers": self.headers, "params": self.query}
        if self.body is None:
            return common
        try:
            if self.files:
                fields = {name: _form_text(value) for name, value in self.body.items()}
                return {**common, "data": fields, "files": {name: (name, data) for name, data in self.files.items()}}
            content = json.dumps(self.body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadRequest(f"the options are no JSON: {error}") from error
        return {**common, "content": content, "headers": {**self.headers, "Content-Type": "application/json"}}

    def parse(self, body: bytes) -> M:
        """Raises BadAnswer."""
        return parse(self.answer, body)


class Blob(BaseModel):
    """Stands for an answer that is bytes."""


def parse(model: type[M], body: bytes) -> M:
    """Raises BadAnswer."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the whole"
        raise BadAnswer(f"the answer is no {model.__name__}: {where}: {fault['msg']}") from error


def post_generation(
    prompt: str | None, options: Mapping[str, Any], idempotency_key: str | None
) -> Call[GenerationStatus]:
    body = {**({} if prompt is None else {"prompt": prompt}), **options}
    return Call("POST", "/v1/generations", GenerationStatus, body, headers=_once(idempotency_key))


def post_edit(
    image: PictureSource,
    mask: PictureSource | None,
    prompt: str,
    options: Mapping[str, Any],
    idempotency_key: str | None,
) -> Call[GenerationStatus]:
    """Reads the files. Raises OSError, BadRequest."""
    sources = {"image": image} if mask is None else {"image": image, "mask": mask}
    files = {name: read_source(source, name) for name, source in sources.items()}
    given = {name: value for name, value in options.items() if value is not None}
    body = {"prompt": prompt, **given}
    return Call("POST", "/v1/edits", GenerationStatus, body, files, _once(idempotency_key))


def get_generations(model: str | None, limit: int) -> Call[GenerationList]:
    query = {"limit": str(limit), **({} if model is None else {"model": model})}
    return Call("GET", "/v1/generations", GenerationList, query=query)


def get_generation(job_id: str) -> Call[GenerationStatus]:
    return Call("GET", job_path(job_id), GenerationStatus)


def delete_generation(job_id: str) -> Call[GenerationStatus]:
    return Call("DELETE", job_path(job_id), GenerationStatus)


def get_image(job_id: str, index: int, image_format: OutputFormat, compression: int, *, metadata: bool) -> Call[Blob]:
    query = {"format": image_format, "compression": str(compression), "metadata": str(metadata).lower()}
    return Call("GET", f"{job_path(job_id)}/images/{index}", Blob, query=query)


def get_output(job_id: str, kind: OutputKind, index: int) -> Call[Blob]:
    return Call("GET", f"{job_path(job_id)}/outputs/{kind}/{index}", Blob)


def get_painting(job_id: str, index: int, image_format: PaintingFormat, size: int) -> Call[Blob]:
    query = {"format": image_format, "size": str(size)}
    return Call("GET", f"{job_path(job_id)}/images/{index}/painting", Blob, query=query)


def get_models() -> Call[ModelList]:
    return Call("GET", "/v1/models", ModelList)


def get_model(name: str) -> Call[ModelEntry]:
    return Call("GET", _model_path(name), ModelEntry)


def get_classes(name: str) -> Call[ClassList]:
    return Call("GET", f"{_model_path(name)}/classes", ClassList)


def _model_path(name: str) -> str:
    """Raises BadRequest."""
    if not name or "/" in name or name in {".", ".."}:
        raise BadRequest(f"{name[:80]!r} is no model's name", code=InvalidField.code_of("model"), field="model")
    return f"/v1/models/{name}"


def get_ready() -> Call[Blob]:
    return Call("GET", "/ready", Blob)


def _once(key: str | None) -> dict[str, str]:
    """A submit that is sent again after its answer was lost is the same job."""
    return {"Idempotency-Key": key or f"oar-client-{secrets.token_hex(16)}"}


def _form_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)

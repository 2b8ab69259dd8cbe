"""What the OpenAPI document says of errors: each route's statuses, with an example of every code."""

from typing import Any, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel

from oar_wire.errors import ErrorBody, OpenAIErrorBody
from server.api import codes
from server.api.forms import FILES
from server.api.gate import OPEN
from server.errors import (
    BodyTooLarge,
    HostNotAllowed,
    IdempotencyConflict,
    InternalError,
    InvalidJson,
    InvalidKey,
    InvalidRequest,
    JobExpired,
    JobLost,
    JobNotFound,
    ModelNotFound,
    ModelNotReady,
    OriginNotAllowed,
    PictureQueueFull,
    PictureShareFull,
    PriorityNotAllowed,
    QueueFull,
    QueueShareFull,
    RateLimited,
    RedisUnavailable,
    RequestTimeout,
    ServerError,
    StorageShareFull,
    TooManyUploads,
    UnsupportedMediaType,
    WritesRefused,
)

ALWAYS: tuple[ServerError, ...] = (
    RedisUnavailable("the job queue cannot be reached: no connection to Redis", retry_after=2),
    InternalError("the server made a mistake; its log says more"),
    OriginNotAllowed("pages of 'https://elsewhere.example' may not use this server (OAR_ALLOWED_ORIGINS)"),
    HostNotAllowed("this server is not known as 'elsewhere.example' (OAR_ALLOWED_ORIGINS)"),
)
GUARDED = (
    InvalidKey("send your key, as `Authorization: Bearer KEY`"),
    RateLimited("studio may ask 20 times a second, 40 at once; come back in 0.05 s", retry_after=1),
)
JOB = (JobNotFound("there is no job 'gen-0'"), JobExpired("job gen-0 was completed and is no longer kept"))
MODEL = (ModelNotFound("there is no model 'x'", field="model"), ModelNotReady("no worker has loaded the model yet"))
SUBMIT = (
    *MODEL,
    InvalidJson("the body is no JSON: trailing comma at line 1 column 20"),
    TooManyUploads("the bodies of other requests fill the memory that is there for them", retry_after=1),
    RequestTimeout("the request's body did not arrive in full within 60 s"),
    UnsupportedMediaType("send the body as JSON, with content-type: application/json"),
    BodyTooLarge("the body is larger than 131072 bytes"),
    InvalidRequest("missing_field", "prompt is required", field="prompt"),
    InvalidRequest("unknown_field", "there is no field 'clip_skip'", field="clip_skip"),
    InvalidRequest("invalid_steps", "steps is 65; this model takes 1 to 64", field="steps"),
    WritesRefused("the job queue takes nothing new: its memory is full", retry_after=10),
    JobLost("Redis has lost its data, and this job with it; submit it again", retry_after=2),
    IdempotencyConflict("this Idempotency-Key was used for another request", field="Idempotency-Key"),
    PriorityNotAllowed("the priority high is not open to studio: normal is the highest", field="priority"),
    QueueFull("256 jobs wait or run already", retry_after=1),
    QueueShareFull("128 jobs of studio wait or run already, which is its share of the queue", retry_after=1),
    StorageShareFull("512.0 MiB are kept of the jobs of studio, and there is no room for more", retry_after=1),
)
PICTURES = (
    PictureShareFull("32 pictures of studio wait to be decoded or encoded already, which is its share", retry_after=4),
    PictureQueueFull("64 pictures wait to be decoded or encoded already", retry_after=4),
)
# What the links of `/v1/images/*` end in, where the server has keys.
LINK_PARAMETERS = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": kind},
    }
    for name, kind, description in (
        ("expires", "integer", "Of a signed link: until when it opens the picture without a key, in Unix seconds"),
        ("signature", "string", "Of a signed link, as its last parameter"),
    )
]
HEADERS = {
    "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "`Bearer`, and what is wrong with the key", "schema": {"type": "string"}},
}
SECURITY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "Where the operator gave out keys (OAR_API_KEYS); any other server asks for none. A websocket takes "
    "the same header, or the subprotocols `oar.v1` and `oar.key.` + base64url of the key without padding",
}


def errors(*examples: ServerError, openai: bool = False, is_open: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route, from one example of each error that it may answer with; an open one needs no key."""
    model: type[BaseModel] = OpenAIErrorBody if openai else ErrorBody
    documented: dict[int | str, dict[str, Any]] = {}
    for error in (*examples, *ALWAYS, *(() if is_open else GUARDED)):
        entry = documented.setdefault(
            error.openai_status if openai else error.status,
            {"model": model, "description": "", "content": {"application/json": {"examples": {}}}},
        )
        body = error.to_openai_json() if openai else error.to_json()
        entry["content"]["application/json"]["examples"][error.code] = {"summary": error.message, "value": body}
        if error.headers:
            entry["headers"] = {name: HEADERS[name] for name in error.headers}
    for entry in documented.values():
        entry["description"] = ", ".join(entry["content"]["application/json"]["examples"])
    return documented


def operation_id(route: APIRoute) -> str:
    """The route's first tag and its function's name: how generated clients call the operation."""
    tag = str(route.tags[0]).split()[0] if route.tags else "server"
    return f"{tag}_{route.name}"


def tidy(document: dict[str, Any]) -> dict[str, Any]:
    """Takes out FastAPI's own 422, which it says every route with a parameter to have: no answer here has its shape.
    Puts back in what it takes out: the nulls of examples. Adds where a key is asked for."""
    document["components"]["securitySchemes"] = {"key": SECURITY_SCHEME}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path not in OPEN:
                operation["security"] = [{"key": []}, {}]
            for status, reply in list(operation["responses"].items()):
                content = reply.get("content", {}).get("application/json", {})
                if "HTTPValidationError" in str(content.get("schema")):
                    del operation["responses"][status]
                for example in content.get("examples", {}).values():
                    error = example["value"]["error"]
                    error.setdefault("param" if "OpenAI" in str(content["schema"]) else "field", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    document["externalDocs"] = {"description": "The events of a job, as AsyncAPI", "url": "/asyncapi.json"}
    document["x-error-codes"] = codes.as_json()
    return document


def form_body(
    fields: type[BaseModel], as_json: type[BaseModel] | None = None, *, has_mask: bool = True
) -> dict[str, Any]:
    """The `requestBody` of a route that reads a multipart form with pictures itself, or the same as JSON."""
    form = _schema(fields)
    files = {name: {"type": "string", "format": "binary"} for name in FILES if has_mask or name != "mask"}
    form["properties"] = {**files, **form["properties"]}
    form["required"] = ["image", *form.get("required", ())]
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    if as_json is not None:
        example = {"prompt": "an orc, walking", "image": "iVBORw0KGgo=", "mask": "iVBORw0KGgo=", "seed": 7}
        content["application/json"] = {
            "schema": _schema(as_json),
            "examples": {"inpaint": {"summary": "Pictures are cut short here", "value": example}},
        }
    return {"required": True, "content": content}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """With its parts in their places: a reference would be looked up in the whole document."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in cast("list[Any]", node)]
        if not isinstance(node, dict):
            return node
        known = cast("dict[str, Any]", node)
        name = str(known.get("$ref", "")).removeprefix("#/$defs/")
        return inlined(parts[name]) if name in parts else {key: inlined(value) for key, value in known.items()}

    return inlined(schema)

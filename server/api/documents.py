"""Errors in the OpenAPI document: each route's statuses, with an example of every code."""

from typing import Any, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel

from oar_wire.error import ErrorBody, OpenAIErrorBody, Place, ServerError, all_errors
from server.api import codes
from server.api.forms import FILES
from server.api.gate import OPEN

AnyError = ServerError | type[ServerError]


def met_at(place: Place) -> tuple[type[ServerError], ...]:
    """The errors that say that they are met there."""
    return tuple(kind for kind in all_errors(ServerError) if place in kind.places)


JOB, MODEL, SUBMIT, PICTURES = (
    met_at("job routes"),
    met_at("model routes"),
    met_at("submits"),
    met_at("picture routes"),
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


def errors(*examples: AnyError, openai: bool = False, is_open: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: each error that it may answer with, or an instance where its own example would
    mislead. An open route needs no key."""
    model: type[BaseModel] = OpenAIErrorBody if openai else ErrorBody
    documented: dict[int | str, dict[str, Any]] = {}
    for met in (*examples, *met_at("any route"), *(() if is_open else met_at("guarded routes"))):
        error = met if isinstance(met, ServerError) else met.make_example()
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
    """Puts its parts in their places: a reference would be looked up in the whole document."""
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

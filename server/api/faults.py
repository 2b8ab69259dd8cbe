"""Everything that can go wrong with an HTTP request, as the one JSON error shape."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from oar_wire.error import ServerError
from oar_wire.errors import (
    BodyTooLarge,
    InternalError,
    InvalidField,
    InvalidJson,
    InvalidRequest,
    MethodNotAllowed,
    MissingField,
    ResourceNotFound,
    UnknownField,
    UnsupportedMediaType,
)
from oar_wire.options import OPTIONS
from server.api.proxy import route_path

logger = logging.getLogger(__name__)

OPENAI_PATHS = ("/v1/images", "/v1/models")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MESSAGES = {"size": "size is auto, or a width and a height in pixels such as 1024x1024"}


def install(app: FastAPI) -> None:
    """The handlers are coroutines: a plain function would be run in a thread, which under load is one wait more."""
    app.add_exception_handler(ServerError, _on_server_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_mistake)


def respond(error: ServerError, path: str) -> JSONResponse:
    """Answers in the shape that the clients of this address read."""
    if not path.startswith(OPENAI_PATHS):
        return JSONResponse(error.to_json(), status_code=error.status, headers=error.headers)
    return JSONResponse(error.to_openai_json(), status_code=error.openai_status, headers=error.openai_headers)


async def _on_server_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServerError)
    return respond(error, route_path(request.scope))


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults: list[dict[str, Any]] = list(error.errors())
    return respond(from_fault(faults[0], request.headers.get("content-type", "")), route_path(request.scope))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        wrong = MethodNotAllowed.at(allowed_methods(request.scope))
        return respond(wrong, route_path(request.scope))
    return respond(from_http_exception(error), route_path(request.scope))


async def _on_mistake(request: Request, error: Exception) -> JSONResponse:
    path = route_path(request.scope)
    logger.error("unhandled error at %s %s", request.method, path, exc_info=error)
    return respond(InternalError(), path)


def allowed_methods(scope: Scope) -> list[str]:
    """Methods that any route takes at this address; HEAD wherever GET is."""
    routes = scope["app"].router.routes
    taken = [
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ["GET", "HEAD", *taken[1:]] if taken[:1] == ["GET"] else taken


def from_fault(fault: dict[str, Any], content_type: str) -> ServerError:
    """The first of pydantic's complaints."""
    kind, where = str(fault["type"]), [str(part) for part in fault["loc"]]
    field = where[1] if len(where) > 1 else None
    if kind == "json_invalid":
        return InvalidJson("the body is no JSON")
    if where[0] == "path":
        return ResourceNotFound()
    if field is None:
        if "json" not in content_type.lower():
            return UnsupportedMediaType("send the body as JSON, with content-type: application/json")
        return InvalidRequest("the body has to be a JSON object")
    if kind == "extra_forbidden":
        return UnknownField(f"there is no field {field[:80]!r}", field=field[:80])
    if kind == "missing":
        return MissingField(f"{field} is required", field=field)
    own = OPTIONS[field].about.complaint if field in OPTIONS else ""
    own = own or MESSAGES.get(field, "")
    return field_error(field)(own or f"{field}: {_reason(fault)}", field=field)


def _reason(fault: dict[str, Any]) -> str:
    """Pydantic's sentence; our own validators' without the words that it puts before them."""
    return str(fault["msg"]).removeprefix("Value error, ")


def field_error(field: str) -> type[InvalidRequest]:
    """The class of a complaint about a request's field."""
    return OPTIONS[field].error if field in OPTIONS else InvalidField


def field_code(field: str) -> str:
    """The code of a complaint about a request's field."""
    kind = field_error(field)
    return InvalidField.code_of(field) if kind is InvalidField else kind.code


def from_http_exception(error: HTTPException) -> ServerError:
    """Makes our error of what Starlette and FastAPI raise themselves."""
    if error.status_code == 404:
        return ResourceNotFound()
    if error.status_code == 413:
        return BodyTooLarge(str(error.detail))
    if error.status_code == 400:
        # FastAPI says so of a body that its JSON reader gave up on: too deep, a number too long, no UTF-8.
        return InvalidJson("the body is no JSON that can be read")
    return InternalError()

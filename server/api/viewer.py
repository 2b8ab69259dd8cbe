"""The interface's description: `/openapi.json`, `/asyncapi.json`, and the page `/docs` that shows it and tries it out.

The page is Swagger UI, whose files lie in the package (`python -m ops.viewer` brings another version): nothing is
fetched from another host, and the studio's policy holds.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from oar_wire.errors import ResourceNotFound
from server.api import asyncapi
from server.api.pages import WEB, Page

HOME = "index.html"


def make_viewer_router(version: str) -> APIRouter:
    """Routes for both documents, `/docs`, `/redoc` and the viewer's files."""
    files = {path.name: Page.read(path) for path in (WEB / "docs").iterdir()}
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(_as_seen(request.app.openapi(), _root_path(request)))

    @router.get("/asyncapi.json")
    async def events(request: Request) -> JSONResponse:
        url = request.base_url
        return JSONResponse(
            asyncapi.document(version, url.netloc, _root_path(request), is_secure=url.scheme == "https")
        )

    @router.get("/docs")
    async def docs(request: Request, if_none_match: Annotated[str, Header()] = "") -> Response:
        return files[HOME].answer(request, if_none_match)

    @router.get("/redoc")
    async def redoc(request: Request) -> Response:
        """Bookmarks of the second viewer that there once was."""
        return RedirectResponse(f"{_root_path(request)}/docs", status_code=308)

    @router.get("/docs/{name}")
    async def asset(request: Request, name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
        page = files.get(name)
        if page is None:
            raise ResourceNotFound()
        return page.answer(request, if_none_match)

    return router


def _root_path(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


def _as_seen(document: dict[str, Any], root_path: str) -> dict[str, Any]:
    """The document with the addresses as this client has to call them."""
    if not root_path:
        return document
    events = {**document["externalDocs"], "url": root_path + document["externalDocs"]["url"]}
    return {**document, "servers": [{"url": root_path}], "externalDocs": events}

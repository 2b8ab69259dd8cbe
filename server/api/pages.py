"""The studio at `/`: a page, its style and its modules, read once and served from memory.

They may run their own scripts and reach this server, nothing else: see `POLICY`. There is no build step, and nothing is
fetched from another host. The page itself holds no secret, so it needs no key; it asks for one where `/v1` does.

What the first paint waits for, the style and the choice of colours, is put into the page when it is read, and allowed
by its hash: the page is seen as soon as it has come, however long its modules take.
"""

import base64
import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from oar_wire.errors import ResourceNotFound
from server.api.etags import is_current

WEB = Path(__file__).parents[1] / "web"
HOME = "index.html"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
STYLE = ('<link rel="stylesheet" href="studio/studio.css">', "style", "studio/studio.css")
THEME = ('<script src="studio/theme.js"></script>', "script", "studio/theme.js")
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
    # The names carry no version: a browser asks whether its copy still holds, and is told so by 304.
    "Cache-Control": "no-cache",
}
METHODS = ["GET", "HEAD"]
TEXTS = frozenset({".html", ".css", ".js", ".svg", ".webmanifest"})
MEDIA_TYPES = {".js": "text/javascript", ".webmanifest": "application/manifest+json"}


@dataclass(frozen=True)
class Page:
    """A file as it is sent: plain, and compressed where that pays."""

    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str
    policy: str = POLICY

    @classmethod
    def read(cls, path: Path) -> "Page":
        return cls.make(path, path.read_bytes())

    @classmethod
    def make(cls, path: Path, content: bytes, policy: str = POLICY) -> "Page":
        media_type = MEDIA_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        # mtime=0: the same bytes on each start, so that copies behind a balancer agree.
        compressed = gzip.compress(content, mtime=0) if path.suffix in TEXTS else None
        return cls(content, compressed, media_type, hashlib.sha256(content).hexdigest()[:32], policy)

    def answer(self, request: Request, if_none_match: str) -> Response:
        wants_gzip = "gzip" in request.headers.get("accept-encoding", "")
        compressed = self.compressed if wants_gzip else None
        etag = f'"{self.etag}{"-gzip" if compressed else ""}"'
        headers = {**HEADERS, "Content-Security-Policy": self.policy, "ETag": etag}
        if is_current(etag, if_none_match):
            return Response(status_code=304, headers=headers)
        if compressed is not None:
            headers["Content-Encoding"] = "gzip"
        return Response(compressed or self.content, media_type=self.media_type, headers=headers)


def read_home(folder: Path) -> Page:
    """`index.html` with its style and the script of its colours inside."""
    text, policy = (folder / HOME).read_text(encoding="utf-8"), POLICY
    for link, tag, name in (STYLE, THEME):
        content = (folder / name).read_text(encoding="utf-8")
        content = content.replace('url("', 'url("studio/')  # which were relative to the style's own address
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        text = text.replace(link, f"<{tag}>{content}</{tag}>")
        policy = policy.replace(f"{tag}-src 'self'", f"{tag}-src 'self' 'sha256-{digest}'")
    return Page.make(folder / HOME, text.encode(), policy)


def make_studio_router() -> APIRouter:
    """Routes for `/` and for every file of the studio; a name that is not there is 404."""
    pages = {f"studio/{path.name}": Page.read(path) for path in (WEB / "studio").iterdir()}
    pages[HOME] = read_home(WEB)
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=METHODS)
    async def home(request: Request, if_none_match: Annotated[str, Header()] = "") -> Response:
        return pages[HOME].answer(request, if_none_match)

    @router.api_route("/studio/{name}", methods=METHODS)
    async def asset(request: Request, name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
        page = pages.get(f"studio/{name}")
        if page is None:
            raise ResourceNotFound()
        return page.answer(request, if_none_match)

    return router

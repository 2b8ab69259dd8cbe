"""A Hugging Face Hub of one folder, on this machine: `folder/OWNER/REPO/FILE`."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    folder: Path
    url: str = ""
    cut_after: int | None = None  # bytes of a file, after which the connection of its next download ends
    ranges: list[str | None] = field(default_factory=list)  # of the downloads, in their order
    paths: list[str] = field(default_factory=list)

    def environment(self, cache: Path) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head(is_download=False)

        def do_GET(self) -> None:
            data = self._head(is_download=True)
            if data is None:
                return
            cut, hub.cut_after = hub.cut_after, None
            self.wfile.write(data if cut is None else data[:cut])
            if cut is not None:
                self.wfile.flush()
                self.connection.close()

        def _head(self, *, is_download: bool) -> bytes | None:
            hub.paths.append(self.path)
            parts = self.path.strip("/").split("/")
            path = hub.folder.joinpath(*parts[:2], *parts[4:]) if parts[2:3] == ["resolve"] else hub.folder / "nothing"
            if not path.is_file() or parts[3] not in ("main", COMMIT):
                has_repo = hub.folder.joinpath(*parts[:2]).is_dir()
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if has_repo else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            data, start = path.read_bytes(), 0
            asked = self.headers.get("Range") if is_download else None
            if is_download:
                hub.ranges.append(asked)
            if asked:
                start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if asked else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            return data[start:]

        def log_message(self, *_: object) -> None:
            pass

    return Handler

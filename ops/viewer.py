"""Brings Swagger UI into server/web/docs: `python -m ops.viewer [VERSION]`; needs npm.

Pictures inside the style become files beside it: the pages' policy takes pictures from this server alone.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

VERSION = "5.34.1"
FOLDER = Path(__file__).parents[1] / "server" / "web" / "docs"
STYLE, BUNDLE = "swagger-ui.css", "swagger-ui-bundle.js"
LICENCES = {"LICENSE": "swagger-ui.LICENSE.txt", f"{BUNDLE}.LICENSE.txt": f"{BUNDLE}.LICENSE.txt"}
DATA_URL = re.compile(r'url\((?:"(data:[^"\\]*(?:\\.[^"\\]*)*)"|(data:[^)"]*))\)')
SUFFIXES = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg"}


def copy_viewer(version: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["npm", "pack", "--silent", f"swagger-ui-dist@{version}"], cwd=name, check=True)
        (archive,) = Path(name).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(name, filter="data")
        install_viewer(Path(name) / "package")


def install_viewer(package: Path) -> None:
    for old in FOLDER.glob("swagger-ui*"):
        old.unlink()
    text = re.sub(r"\n*/[/*]# sourceMappingURL=\S*( \*/)?\s*$", "\n", (package / STYLE).read_text(encoding="utf-8"))
    (FOLDER / STYLE).write_text(DATA_URL.sub(_to_file, text), encoding="utf-8")
    script = (package / BUNDLE).read_text(encoding="utf-8")
    (FOLDER / BUNDLE).write_text(re.sub(r"\n//# sourceMappingURL=\S*\s*$", "\n", script), encoding="utf-8")
    for name, target in LICENCES.items():
        (FOLDER / target).write_bytes((package / name).read_bytes())


def _to_file(match: re.Match[str]) -> str:
    """Writes a picture that a style holds into a file, and names the file instead."""
    head, _, data = (match[1] or match[2]).replace('\\"', '"').partition(",")
    content = base64.b64decode(data) if head.endswith(";base64") else unquote_to_bytes(data)
    media_type = head.removeprefix("data:").partition(";")[0]
    name = f"swagger-ui-{hashlib.sha256(content).hexdigest()[:8]}{SUFFIXES[media_type]}"
    (FOLDER / name).write_bytes(content)
    return f'url("{name}")'


if __name__ == "__main__":
    copy_viewer(*(sys.argv[1:] or [VERSION]))

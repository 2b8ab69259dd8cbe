"""The studio's files as they are served; what they do is tested in tests/browser."""

import gzip
import re
from pathlib import Path

import pytest

from server.api import pages
from tests.server.live import LiveServer

NAMES = ["index.html", *sorted(f"studio/{path.name}" for path in (pages.WEB / "studio").iterdir())]
ADDRESSES = ["/" if name == "index.html" else f"/{name}" for name in NAMES]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_file_is_served_with_a_strict_policy(live: LiveServer, address: str) -> None:
    answer = live.client.get(address)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if address.endswith(".js"):
        assert answer.headers["Content-Type"].startswith("text/javascript")


def test_a_copy_that_still_holds_is_not_sent_again(live: LiveServer) -> None:
    for encoding in ("gzip", "identity"):
        headers = {"Accept-Encoding": encoding}
        answer = live.client.get("/", headers=headers)
        again = live.client.get("/", headers={**headers, "If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert answer.headers["Cache-Control"] == "no-cache"
    assert live.client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


def test_texts_are_compressed_for_who_takes_it(live: LiveServer) -> None:
    plain = live.client.get("/studio/app.js", headers={"Accept-Encoding": "identity"})
    small = live.client.get("/studio/app.js", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert small.headers["Content-Encoding"] == "gzip"
    assert int(small.headers["Content-Length"]) < int(plain.headers["Content-Length"])
    assert small.content == plain.content  # the client has unpacked it
    assert small.headers["ETag"] != plain.headers["ETag"]
    assert small.headers["Vary"] == "Accept-Encoding"


def test_head_and_unknown_names(live: LiveServer) -> None:
    head = live.client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("none.js", "..%2Findex.html", "%2e%2e/index.html"):
        assert live.client.get(f"/studio/{name}").status_code == 404


def test_a_page_is_what_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>here</p>")
    page = pages.Page.read(tmp_path / "index.html")
    assert page.compressed is not None
    assert gzip.decompress(page.compressed) == page.content == b"<p>here</p>"


def test_all_modules_are_asked_for_at_once() -> None:
    """A module that the page does not name is found only when another one imports it: a round trip later."""
    named = set(re.findall(r'href="studio/(\w+\.js)"', (pages.WEB / "index.html").read_text())) | {
        "app.js",
        "theme.js",
    }
    assert named == {path.name for path in (pages.WEB / "studio").glob("*.js")}


def test_nothing_is_fetched_from_another_host() -> None:
    for name in NAMES:
        text = (pages.WEB / name).read_text()
        assert set(re.findall(r"https?://[\w./-]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert "innerHTML" not in text, name

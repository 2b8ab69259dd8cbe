"""What Chromium shows of the pictures that edits start from: tests of the server assert the same."""

import base64
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.server.oriented import CORNERS, oriented

TYPES = {b"\x89PNG": "png", b"RIFF": "webp"}
SHOWN = """async (url) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  return [[1, 1], [18, 1], [1, 14]].map(([x, y]) => pen.getImageData(x, y, 1, 1).data[0]);
}"""
ORIENTED = oriented()


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Any:
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("name", ORIENTED)
def test_chromium_turns_a_picture_so(blank: Any, name: str) -> None:
    data, orientation = ORIENTED[name]
    kind = TYPES.get(data[:4], "jpeg")
    shown = blank.evaluate(SHOWN, f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
    assert tuple(round(value / 60) for value in shown) == CORNERS[orientation]

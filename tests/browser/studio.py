"""The studio as tests use it: what a reader would do, in few words."""

from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect

from tests import waiting
from tests.server.live import LiveServer

PROMPT = "a red circle"

# The pixel in the middle of each patch, read from the canvas that is shown.
PIXELS = """([selector, rows, columns]) => {
  const canvas = document.querySelector(selector);
  const pen = canvas.getContext("2d");
  const pixels = [];
  for (let row = 0; row < rows; row += 1) for (let column = 0; column < columns; column += 1) {
    const x = Math.floor((column + .3) * canvas.width / columns);
    const y = Math.floor((row + .3) * canvas.height / rows);
    pixels.push([...pen.getImageData(x, y, 1, 1).data]);
  }
  return pixels;
}"""


def open_view(page: Page, name: str = "") -> None:
    page.goto(f"/#/{name}")
    expect(page.locator("#waiting")).to_have_count(0)


def submit(page: Page, label: str = "Paint", *, prompt: str = PROMPT, seed: int | None = 7) -> None:
    panel = page.locator("form.panel:visible")
    panel.locator("textarea[name=prompt]:visible, input[name=class]:visible").fill(prompt)
    if seed is not None:
        panel.get_by_label("Seed", exact=True).fill(str(seed))
    panel.get_by_role("button", name=label).click()


def viewer(page: Page) -> Locator:
    return page.locator(".viewer:visible")


def wait_for(page: Page, state: str = "completed") -> None:
    expect(viewer(page)).to_have_attribute("data-state", state)


def wait_for_end_of_painting(page: Page) -> None:
    """Until the last step is on the wall, which is shown a little after it was told."""
    wait_for(page)
    slider = page.locator(".timeline:visible input[type=range]")
    expect(slider).to_have_js_property("value", slider.get_attribute("max"))


def job_ids(page: Page) -> list[str]:
    """Of the pictures in the gallery, newest first."""
    return page.evaluate("JSON.parse(localStorage.getItem('oar.shelf') ?? '[]').map((entry) => entry.job)")


def job_of(live: LiveServer, page: Page) -> dict[str, Any]:
    answer: httpx.Response = live.client.get(f"/v1/generations/{job_ids(page)[0]}")
    return answer.json()


def expect_pixels(page: Page, expected: list[list[int]], **where: Any) -> None:
    """The marks of the last patches fade by and by; then the canvas shows this, and stays so."""
    waiting.wait_for(lambda: pixels(page, **where) == expected)


def pixels(
    page: Page, rows: int = 4, columns: int = 5, selector: str = ".viewer canvas.canvas-view"
) -> list[list[int]]:
    return page.evaluate(PIXELS, [selector, rows, columns])

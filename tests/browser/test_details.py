"""A model that writes from coarse to fine: the studio shows its newest guess whole, and no patches."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from oar_core.weights import write_manifest
from tests import waiting
from tests.browser.studio import job_ids, open_view, submit, wait_for_end_of_painting
from tests.models.details import GROUPS, NUM_STEPS, write_detail_model
from tests.models.details import NAME as DETAIL
from tests.server.live import LiveServer
from tests.server.tiny import NAME, write_tiny_weights

STEPS = 5  # before the engine is held

# Tells whether the canvas shows a picture everywhere, as it is; without one, whether it is empty.
SHOWS = """async (data) => {
  const shown = document.querySelector(".viewer canvas.canvas-view");
  const { width, height } = shown;
  const expected = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  expected.imageSmoothingEnabled = false;
  if (data) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    expected.drawImage(await createImageBitmap(new Blob([bytes])), 0, 0, width, height);
  }
  const [one, other] = [shown.getContext("2d"), expected].map((pen) => pen.getImageData(0, 0, width, height).data);
  return one.every((value, index) => value === other[index]);
}"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    write_detail_model(folder / DETAIL)
    write_manifest(folder, NAME, dict.fromkeys((NAME, DETAIL), "MIT"))
    with LiveServer(tmp_path_factory.mktemp("live"), folder, is_gated=True, OAR_MODELS=f"{NAME},{DETAIL}") as server:
        yield server


def watch_previews(page: Page) -> list[dict[str, Any]]:
    """Those that the page is sent from now on, oldest first."""
    previews: list[dict[str, Any]] = []

    def note(frame: str | bytes) -> None:
        event = json.loads(frame)
        if event["type"] == "preview":
            previews.append(event)

    page.on("websocket", lambda socket: socket.on("framereceived", note))
    return previews


def shows(page: Page, data: str = "") -> bool:
    return page.evaluate(SHOWS, data)


@pytest.mark.running
def test_the_newest_guess_is_shown_whole(page: Page, live: LiveServer) -> None:
    previews = watch_previews(page)
    open_view(page)
    page.locator("form.panel:visible").get_by_label("Model").select_option(DETAIL)
    expect(page.locator(".empty:visible")).to_have_text("Press Paint and watch: it comes from coarse to fine.")
    slider = page.locator(".timeline:visible input[type=range]")
    with live.held(STEPS):
        submit(page)
        expect(slider).to_have_js_property("value", str(STEPS))
        waiting.wait_for(lambda: shows(page, previews[-1]["data"] if previews else "") and previews)
    (job_id,) = job_ids(page)
    wait_for_end_of_painting(page)
    expect(slider).to_have_js_property("value", str(NUM_STEPS))
    assert shows(page, base64.b64encode(live.png(job_id)).decode())
    slider.fill("0")
    assert shows(page), "nothing is known yet, and no lattice says where it will be"
    slider.fill(str(STEPS))
    guess = [preview for preview in previews if preview["known"] <= sum(GROUPS[:STEPS])][-1]
    assert shows(page, guess["data"]), "no patch has its final pixels, and none is framed"

"""A model that writes from coarse to fine: the studio shows its newest guess whole, says what that was made of, and
compares and varies such pictures."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from oar_core.weights import write_manifest
from tests import waiting
from tests.browser.studio import job_ids, open_view, submit, wait_for_end_of_painting
from tests.models.details import GROUPS, NUM_STEPS, NUM_TOKENS, write_detail_model
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
    """Those that the page is sent from now on, oldest first; among them those that are kept."""
    previews: list[dict[str, Any]] = []

    def note(frame: str | bytes) -> None:
        event = json.loads(frame)
        if event["type"] in {"preview", "partial"}:
            previews.append(event)

    page.on("websocket", lambda socket: socket.on("framereceived", note))
    return previews


def shows(page: Page, data: str = "") -> bool:
    return page.evaluate(SHOWS, data)


def best(previews: list[dict[str, Any]], most: int) -> dict[str, Any]:
    """Of those that know at most so many tokens, the one that knows most; of two, the one without loss."""
    past = [preview for preview in previews if preview["known"] <= most]
    return max(past, key=lambda preview: (preview["known"], preview["type"] == "partial"), default={"data": ""})


def words_of(preview: dict[str, Any]) -> str:
    width, height = preview.get("resolution", (preview["width"], preview["height"]))
    pixels = f"{width} px" if width == height else f"{width} x {height} px"
    return f"{preview['known']} of {NUM_TOKENS} tokens: {pixels}"


def choose_detail(page: Page) -> None:
    page.locator("form.panel:visible").get_by_label("Model").select_option(DETAIL)


@pytest.mark.running
def test_the_newest_guess_is_shown_whole(page: Page, live: LiveServer) -> None:
    previews = watch_previews(page)
    open_view(page)
    choose_detail(page)
    expect(page.locator(".empty:visible")).to_have_text("Press Paint and watch: it comes from coarse to fine.")
    slider = page.locator(".timeline:visible input[type=range]")
    with live.held(STEPS):
        submit(page)
        expect(slider).to_have_js_property("value", str(STEPS))
        waiting.wait_for(lambda: shows(page, best(previews, sum(GROUPS[:STEPS]))["data"]) and previews)
    (job_id,) = job_ids(page)
    wait_for_end_of_painting(page)
    expect(slider).to_have_js_property("value", str(NUM_STEPS))
    assert shows(page, base64.b64encode(live.png(job_id)).decode())
    slider.fill("0")
    assert shows(page), "nothing is known yet, and no lattice says where it will be"
    slider.fill(str(STEPS))
    guess = best(previews, sum(GROUPS[:STEPS]))
    assert shows(page, guess["data"]), "no patch has its final pixels, and none is framed"


def paint(page: Page, seed: int = 7) -> str:
    """Returns the job."""
    open_view(page)
    choose_detail(page)
    submit(page, seed=seed)
    wait_for_end_of_painting(page)
    return job_ids(page)[0]


def test_each_prefix_of_a_finished_picture_can_be_looked_at(page: Page, live: LiveServer) -> None:
    """Also by whoever opens it later; the words beside it say what it is made of."""
    job_id = paint(page)
    page.goto(f"/#/p/{job_id}/0")
    page.reload()
    slider = page.locator(".timeline:visible input[type=range]")
    expect(slider).to_have_js_property("value", str(NUM_STEPS))
    budget = page.locator(".budget:visible")
    expect(budget).to_have_text(f"{NUM_TOKENS} of {NUM_TOKENS} tokens: 16 px")
    kept = [event for event in live.events(job_id) if event["type"] == "partial"]
    assert len(kept) == NUM_STEPS - 1
    for step, event in enumerate(kept, 1):
        slider.fill(str(step))
        expect(budget).to_have_text(words_of(event))
        waiting.wait_for(lambda event=event: shows(page, event["data"]))


def test_the_slider_stops_where_a_prefix_was_kept(page: Page, live: LiveServer) -> None:
    body = {"model": DETAIL, "prompt": "a red circle", "previews": False, "kept_previews": 2}
    job = live.submit(**body)
    kept = [event for event in live.events(job["id"]) if event["type"] == "partial"]
    ends = [sum(GROUPS[:step]) for step in range(NUM_STEPS + 1)]
    stops = [ends.index(event["known"]) for event in kept]
    page.goto(f"/#/p/{job['id']}/0")
    budget, slider = page.locator(".budget:visible"), page.locator(".timeline:visible input[type=range]")
    expect(budget).to_contain_text(f"3 of {NUM_STEPS} steps were kept")
    slider.fill(str(stops[1] - 1))
    expect(slider).to_have_js_property("value", str(stops[0]))
    expect(budget).to_contain_text(words_of(kept[0]))
    slider.press("ArrowRight")
    expect(slider).to_have_js_property("value", str(stops[1]))
    expect(budget).to_contain_text(words_of(kept[1]))
    slider.press("ArrowLeft")
    expect(slider).to_have_js_property("value", str(stops[0]))


def test_a_picture_is_varied_from_its_first_groups(page: Page, live: LiveServer) -> None:
    job_id = paint(page)
    page.get_by_role("link", name="Vary").click()
    expect(page.locator(".retouch")).to_be_visible()
    panel = page.locator("form.panel:visible")
    expect(panel.locator(".segments")).to_be_hidden()
    expect(page.get_by_role("button", name="Brush")).to_be_hidden()
    expect(panel.get_by_label("Model")).to_have_value(DETAIL)
    page.locator(".retouch").click()
    panel.get_by_label("Strength").fill("0.4")
    expect(page.locator(".count-row .status")).to_have_text(f"8 of {NUM_TOKENS} tokens stay")
    expect(panel.locator("output").first).to_have_text(f"8 of {NUM_TOKENS} tokens stay")
    submit(page, "Vary")
    wait_for_end_of_painting(page)
    made = job_ids(page)[0]
    assert made != job_id
    edit = live.client.get(f"/v1/generations/{made}").json()["params"]["edit"]
    assert (edit["mode"], edit["num_kept"]) == ("vary", 8)
    expect(page.locator(".budget:visible")).to_have_text(f"{NUM_TOKENS} of {NUM_TOKENS} tokens: 16 px")
    page.get_by_role("button", name="Back").click()
    panel.get_by_label("Model").select_option(NAME)
    expect(panel.locator(".segments")).to_be_visible()
    expect(page.get_by_role("button", name="Brush")).to_be_visible()


def test_orders_are_compared_with_it_at_as_many_steps(page: Page, live: LiveServer) -> None:
    open_view(page, "compare")
    for tile in page.locator(".tile:visible input").all():
        tile.set_checked(tile.input_value() in {"raster", f"model:{DETAIL}"})
    panel = page.locator("form.panel:visible")
    expect(panel.get_by_label("Steps", exact=True)).to_be_disabled()
    expect(panel.get_by_text(f"{DETAIL} takes {NUM_STEPS} steps, with settings of its own.")).to_be_visible()
    submit(page, "Paint them")
    cards = page.locator(".card")
    expect(cards.locator(".status[data-state=completed]")).to_have_count(2)
    assert page.locator(".card h2").all_inner_texts() == ["raster", DETAIL]
    for card in cards.all():
        expect(card.locator(".status")).to_contain_text(f"{NUM_STEPS} steps, ")
    jobs = [live.client.get(f"/v1/generations/{job}").json()["params"] for job in job_ids(page)[:2]]
    assert {job["model"] for job in jobs} == {NAME, DETAIL}
    assert {(job["seed"], job["steps"]) for job in jobs} == {(7, NUM_STEPS)}
    slider = page.locator(".timeline:visible input[type=range]")
    slider.fill("5")
    expect(cards.nth(1).locator(".hint")).to_contain_text(f"8 of {NUM_TOKENS} tokens: ")
    page.reload()
    expect(cards.locator(".status[data-state=completed]")).to_have_count(2)
    assert page.locator(".card h2").all_inner_texts() == ["raster", DETAIL]
    ticked = page.locator(".tile:visible:has(:checked)")
    assert ticked.all_inner_texts() == ["raster", DETAIL]
    cards.nth(1).get_by_role("link", name="Details").click()
    page.locator(".tools:visible").get_by_role("link", name="Compare").click()
    expect(cards.first.get_by_role("heading")).to_have_text(DETAIL)
    expect(panel.get_by_label("Model")).to_have_value(NAME)

"""Videos in the studio: what the form offers, the frames as they come, the whole film in the end."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.studio import job_ids, open_view, pixels, submit, viewer, wait_for, wait_for_end_of_painting
from tests.models.videos import NAME as VIDEO
from tests.models.videos import NUM_FRAMES, NUM_SIGMAS, SIZE
from tests.server.films import MODELS, write_both
from tests.server.live import LiveServer

PROMPT = "thing 4"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("weights")
    write_both(folder)
    with LiveServer(tmp_path_factory.mktemp("live"), folder, is_gated=True, OAR_MODELS=MODELS) as server:
        yield server


def choose_video(page: Page) -> None:
    open_view(page)
    page.locator("form.panel:visible").get_by_label("Model").select_option(VIDEO)


def shown(page: Page) -> np.ndarray:
    return np.array(pixels(page, *SIZE)).reshape(*SIZE, 4)[..., :3]


def frame(live: LiveServer, job_id: str, number: int) -> np.ndarray:
    answer = live.client.get(f"/v1/generations/{job_id}/outputs/frame/{number}")
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


def test_the_form_offers_what_the_model_takes(page: Page) -> None:
    choose_video(page)
    panel = page.locator("form.panel:visible")
    expect(panel.get_by_label("Guidance", exact=True)).to_be_visible()
    expect(panel.get_by_role("group", name="Order")).to_be_hidden()
    expect(panel.get_by_text("Order", exact=True)).to_be_hidden()
    expect(page.locator(".empty:visible")).to_have_text("Press Paint and watch: it comes frame by frame.")
    expect(panel.get_by_label("Steps")).to_be_hidden()
    expect(panel.get_by_text("Sampling")).to_be_hidden()
    expect(page.get_by_role("button", name="Heat maps")).to_be_hidden()
    panel.get_by_label("Model").select_option("tiny")
    expect(panel.get_by_label("Steps")).to_be_visible()
    expect(panel.get_by_text("Sampling")).to_be_visible()
    expect(page.get_by_role("button", name="Heat maps")).to_be_visible()


@pytest.mark.running
def test_frames_are_shown_as_they_come_and_replayed(page: Page, live: LiveServer) -> None:
    choose_video(page)
    with live.held(3 * NUM_SIGMAS):
        submit(page, prompt=PROMPT)
        slider = page.locator(".timeline:visible input[type=range]")
        expect(slider).to_have_js_property("value", "3")
        expect(slider).to_have_js_property("max", str(NUM_FRAMES))
        expect(page.locator(".status:visible")).to_contain_text(f"{round(100 * 3 / NUM_FRAMES)} %")
        (job_id,) = job_ids(page)
        assert np.array_equal(shown(page), frame(live, job_id, 2))
    wait_for_end_of_painting(page)
    assert np.array_equal(shown(page), frame(live, job_id, NUM_FRAMES - 1))
    slider.fill("2")
    expect(page.locator(".canvas-view:visible")).to_have_attribute("aria-label", f"{PROMPT}, after frame 2")
    assert np.array_equal(shown(page), frame(live, job_id, 1))
    expect(viewer(page).get_by_role("link", name="Edit")).to_have_count(0)


def test_a_film_has_its_page_its_file_and_its_place_in_the_gallery(page: Page, live: LiveServer) -> None:
    choose_video(page)
    submit(page, prompt=PROMPT)
    wait_for(page)
    (job_id,) = job_ids(page)
    page.get_by_text("Download").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Animated WebP").click()
    wanted = live.client.get(f"/v1/generations/{job_id}/outputs/video/0").content
    assert download.value.path().read_bytes() == wanted
    page.goto("/#/gallery")
    image = page.locator(".gallery-item img")
    expect(image).to_have_js_property("naturalWidth", SIZE[1])
    page.goto(f"/#/p/{job_id}/0")
    facts = page.locator(".facts-panel")
    expect(facts).to_contain_text("Frames")
    expect(facts).not_to_contain_text("Order")
    page.get_by_text("The request as JSON").click()
    text = facts.locator("pre").inner_text()
    assert "order" not in text
    answer = live.client.post("/v1/generations", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 202


def test_other_views_offer_the_models_that_can_serve_them(page: Page) -> None:
    open_view(page, "edit")
    assert page.locator("form.panel:visible").get_by_label("Model").locator("option").all_inner_texts() == ["tiny"]
    open_view(page, "compare")
    assert page.locator("form.panel:visible").get_by_label("Model").locator("option").all_inner_texts() == ["tiny"]

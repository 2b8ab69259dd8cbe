"""The studio against a server with a tiny model."""

import io
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from os import kill

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from oar_core.order.plan import DEFAULT_CANDIDATES
from tests import waiting
from tests.browser.conftest import Watched
from tests.browser.studio import (
    PROMPT,
    expect_pixels,
    job_ids,
    job_of,
    open_view,
    pixels,
    submit,
    viewer,
    wait_for,
    wait_for_end_of_painting,
)
from tests.server.live import LiveServer


@contextmanager
def frozen_workers(live: LiveServer) -> Iterator[None]:
    workers = live.children("worker")
    for pid in workers:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            kill(pid, signal.SIGCONT)


# create


def test_a_prompt_becomes_a_picture(page: Page, live: LiveServer) -> None:
    """From an empty page to the picture, the very pixels that the server keeps."""
    open_view(page)
    expect(viewer(page)).to_contain_text("Nothing painted yet")
    page.get_by_role("button", name="a blue square").click()
    submit(page, prompt="a blue square")
    wait_for_end_of_painting(page)
    expect(page.locator(".status:visible")).to_contain_text("Painted in")
    job = job_of(live, page)
    assert (job["params"]["prompt"], job["params"]["seed"], job["params"]["order"]) == ("a blue square", 7, "random")
    final = np.asarray(Image.open(io.BytesIO(live.png(job["id"]))).convert("RGBA"))
    shown = np.array(pixels(page)).reshape(4, 5, 4)
    assert np.array_equal(shown, final[1::4, 1::4])
    page.wait_for_timeout(800)  # the marks of the last patches have faded, and nothing else has changed
    expect_pixels(page, final[1::4, 1::4].reshape(20, 4).tolist())


def test_every_option_reaches_the_server(page: Page, live: LiveServer) -> None:
    open_view(page)
    page.locator(".tile", has_text="spiral").click()
    page.get_by_label("Steps").fill("5")
    page.get_by_label("Guidance", exact=True).fill("3.5")
    page.get_by_text("Sampling").click()
    page.get_by_label("Group sizes").select_option("adaptive")
    page.get_by_label("Entropy bound").fill("4")
    page.get_by_label("Guidance schedule").select_option("linear")
    page.get_by_label("Guidance from").fill("0.25")
    page.get_by_label("Guidance until").fill("0.75")
    page.get_by_label("Temperature").fill("0.8")
    page.get_by_label("Top-p").fill("0.9")
    page.get_by_label("Top-k").fill("12")
    page.get_by_label("Pictures", exact=True).fill("3")
    page.get_by_role("button", name="Roll a seed").click()
    seed = int(page.get_by_label("Seed", exact=True).input_value())
    submit(page, seed=None)
    wait_for(page)
    params = job_of(live, page)["params"]
    wanted = {
        "order": "spiral", "steps": 5, "guidance": 3.5, "group_sizes": "adaptive", "entropy_bound": 4.0,
        "guidance_schedule": "linear", "guidance_interval": [0.25, 0.75],
        "temperature": 0.8, "top_p": 0.9, "top_k": 12, "n": 3, "seed": seed, "prompt": PROMPT, "model": "tiny",
    }  # fmt: skip
    assert {name: params[name] for name in wanted} == wanted


def test_only_a_shortlist_asks_for_its_length(page: Page, live: LiveServer) -> None:
    open_view(page)
    length = page.get_by_label("Candidates")
    expect(length).to_be_hidden()
    page.locator(".tile", has_text="shortlist").click()
    expect(length).to_have_value(str(DEFAULT_CANDIDATES))
    length.fill("2")
    submit(page)
    wait_for(page)
    params = job_of(live, page)["params"]
    assert (params["order"], params["candidates"]) == ("shortlist", 2)
    page.locator(".tile", has_text="raster").click()
    expect(length).to_be_hidden()


def test_a_seed_beyond_a_numbers_precision_is_kept(page: Page, live: LiveServer) -> None:
    """JSON of JavaScript would round 2^63 - 1; what the server is asked and what the recipe says are exact."""
    open_view(page)
    submit(page, seed=2**63 - 1)
    wait_for(page)
    assert job_of(live, page)["params"]["seed"] == 2**63 - 1
    page.get_by_role("link", name="Details").click()
    page.get_by_text("The request as JSON").click()
    assert json.loads(page.locator("pre").inner_text())["seed"] == 2**63 - 1


def test_several_pictures_hang_side_by_side(page: Page) -> None:
    open_view(page)
    page.get_by_label("Pictures", exact=True).fill("3")
    submit(page)
    wait_for_end_of_painting(page)
    thumbs = page.get_by_role("radiogroup", name="Pictures of this request").get_by_role("radio")
    expect(thumbs).to_have_count(3)
    first = pixels(page)
    thumbs.first.press("ArrowRight")
    expect(thumbs.nth(1)).to_be_focused()
    expect(thumbs.nth(1)).to_have_attribute("aria-checked", "true")
    assert pixels(page) != first
    assert len(job_ids(page)) == 3


def test_a_fault_is_told_beside_its_field(page: Page, watched: Watched) -> None:
    watched.expected = ["422"]
    open_view(page)
    submit(page, prompt=" ")
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(prompt).to_be_focused()
    described = prompt.get_attribute("aria-describedby")
    expect(page.locator(f"#{described}")).to_have_text("The prompt is empty.")
    page.get_by_label("Seed", exact=True).fill("abc")
    submit(page, seed=None)
    expect(page.get_by_label("Seed", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(prompt).not_to_have_attribute("aria-invalid", "true")


def test_a_waiting_job_tells_its_place_and_can_be_canceled(page: Page, live: LiveServer) -> None:
    with frozen_workers(live):
        open_view(page)
        submit(page)
        expect(page.locator(".status:visible")).to_contain_text("Waiting, next in line")
        page.get_by_role("button", name="Cancel").click()
        wait_for(page, "canceled")
        expect(page.locator(".status-text:visible")).to_have_text("Canceled")
    expect(page.get_by_role("button", name="Paint")).to_be_visible()
    assert job_ids(page) == [], "what was never painted is not in the gallery"


# the stream


def test_a_line_that_breaks_is_taken_up_where_it_broke(page: Page, live: LiveServer) -> None:
    """The first socket ends after four frames; the second asks for what came after them, and nothing is missing."""
    lines: list[str] = []
    hold: list[bool] = [True]

    def cut(socket: WebSocketRoute) -> None:
        lines.append(socket.url)
        server = socket.connect_to_server()
        seen: list[str] = []

        def relay(message: str | bytes) -> None:
            if len(lines) == 1 and len(seen) == 4:
                return
            seen.append(str(message))
            socket.send(message)
            if len(lines) == 1 and len(seen) == 4:
                socket.close(code=4000, reason="the line broke")

        server.on_message(relay)

    page.route_web_socket("**/stream?*", cut)
    page.route("**/v1/generations/gen-*", lambda route: _hold(route, hold))
    open_view(page)
    page.get_by_label("Steps").fill("20")
    submit(page)
    expect(page.locator(".line-state")).to_be_visible()
    hold[0] = False
    wait_for_end_of_painting(page)
    expect(page.locator(".line-state")).to_be_hidden()
    assert len(lines) == 2
    assert lines[0].endswith("?after=0")
    assert int(lines[1].partition("after=")[2]) >= 4
    expect(page.locator(".timeline:visible .reading")).to_have_text("20 / 20")
    final = np.asarray(Image.open(io.BytesIO(live.png(job_ids(page)[0]))).convert("RGBA"))
    assert np.array_equal(np.array(pixels(page)).reshape(4, 5, 4), final[1::4, 1::4])


def _hold(route: Route, hold: list[bool]) -> None:
    """The look at the job that follows a broken line, as if the server were away."""
    if hold[0] and route.request.method == "GET":
        route.fulfill(status=503, json={"error": {"code": "redis_unavailable", "message": "away", "field": None}})
    else:
        route.continue_()


# replay


def test_a_picture_is_replayed_step_by_step(page: Page, live: LiveServer) -> None:
    """At step t the first patches of the order have their final pixels, and no others."""
    job = live.post(wait=60, seed=7, steps=20, order="spiral", previews=False).json()
    order = [
        patch["position"]
        for event in live.events(job["id"])
        if event["type"] == "patches"
        for patch in event["patches"]
    ]
    open_view(page, f"p/{job['id']}/0")
    wait_for_end_of_painting(page)
    whole = pixels(page)
    slider = page.get_by_label("Step of the painting")
    for step in (0, 1, 7, 19):
        slider.fill(str(step))
        waiting.wait_for(lambda step=step: same_places(pixels(page), whole) == set(order[:step]))
        expect(slider).to_have_attribute("aria-valuetext", f"Step {step} of 20")
    slider.press("ArrowRight")
    expect(page.locator(".timeline:visible .reading")).to_have_text("20 / 20")
    slider.press("Home")
    slider.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.locator(".timeline:visible .reading")).to_have_text("20 / 20")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert pixels(page) == whole


def same_places(shown: list[list[int]], whole: list[list[int]]) -> set[int]:
    return {place for place in range(20) if shown[place] == whole[place]}


def test_heat_maps_show_rank_and_confidence(page: Page, live: LiveServer) -> None:
    job = live.post(wait=60, seed=7, order="raster", steps=20).json()
    open_view(page, f"p/{job['id']}/0")
    wait_for_end_of_painting(page)
    expect(page.get_by_role("img", name="Order of the patches")).to_be_visible()
    ranks = page.evaluate(
        "[...document.querySelector('.heat').getContext('2d').getImageData(0, 0, 5, 4).data]"
        ".filter((_, index) => index % 4 == 0)"
    )
    assert ranks == sorted(ranks), "raster order: dark to light, from the first position to the last"
    assert len(set(ranks)) == 20
    toggle = page.get_by_role("button", name="Heat maps")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    expect(page.get_by_role("img", name="Confidence of the patches")).to_be_hidden()
    page.reload()
    wait_for(page)
    expect(toggle).to_have_attribute("aria-pressed", "false")


def test_those_who_want_less_motion_see_no_walk(browser, live: LiveServer) -> None:
    context = browser.new_context(base_url=live.url, reduced_motion="reduce")
    page = context.new_page()
    open_view(page)
    submit(page)
    wait_for(page)
    expect(page.locator(".timeline:visible .reading")).to_have_text("8 / 8")
    context.close()


# gallery, addresses, files


def test_the_gallery_keeps_what_was_painted(page: Page, live: LiveServer) -> None:
    open_view(page, "gallery")
    expect(page.get_by_role("link", name="Paint the first one")).to_be_visible()
    open_view(page)
    submit(page)
    wait_for(page)
    job = job_ids(page)[0]
    page.evaluate(
        """() => {
          const [entry] = JSON.parse(localStorage.getItem("oar.shelf"));
          localStorage.setItem("oar.shelf", JSON.stringify([entry, { ...entry, job: "gen-long-gone" }]));
        }"""
    )
    page.get_by_role("link", name="Gallery").click()
    items = page.locator(".gallery li")
    expect(items).to_have_count(2)
    expect(items.nth(1)).to_contain_text("Expired")
    page.get_by_role("button", name="Forget expired ones").click()
    expect(items).to_have_count(1)
    items.get_by_role("link").click()
    expect(page).to_have_url(f"{live.url}/#/p/{job}/0")
    wait_for(page)
    page.get_by_role("button", name="Paint another like it").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    expect(page.get_by_label("Seed", exact=True)).to_have_value("7")


@pytest.fixture(autouse=True)
def _missing_pictures_are_expected(watched: Watched) -> None:
    """The browser writes every 404 and 410 to its console, whoever handles it."""
    watched.expected += ["404", "409", "410", "503"]


def test_a_gallery_has_patience(page: Page, watched: Watched) -> None:
    """A tenant's rate may be lower than a full gallery asks for: the pictures come a little later then."""
    watched.expected += ["429"]
    open_view(page)
    submit(page)
    wait_for(page)
    refused: list[str] = []

    def be_busy(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        error = {"code": "rate_limited", "message": "too fast", "field": None, "type": "rate_limit_error"}
        route.fulfill(status=429, json={"error": error}, headers={"Retry-After": "1"})

    page.route("**/images/0", be_busy)
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator(".gallery img")).to_have_js_property("naturalWidth", 20)
    assert len(refused) == 1


def test_a_picture_that_is_still_painted_is_in_the_gallery(page: Page, live: LiveServer) -> None:
    """Also after the page was closed in the middle."""
    with frozen_workers(live):
        open_view(page)
        submit(page)
        expect(page.locator(".status-text:visible")).to_contain_text("Waiting")
        open_view(page, "gallery")
        page.reload()
        expect(page.locator(".gallery li")).to_contain_text("Being painted")
    page.locator(".gallery li a").click()
    wait_for(page)


def test_an_address_of_a_picture_that_is_gone(page: Page) -> None:
    open_view(page, "p/gen-unknown/0")
    expect(page.get_by_role("heading", name="This picture is no longer here")).to_be_visible()


def test_files_of_a_picture(page: Page, live: LiveServer) -> None:
    job = live.post(wait=60, seed=7, order="spiral").json()
    open_view(page, f"p/{job['id']}/0")
    wait_for(page)
    contents = {}
    for name in ("PNG", "Animated WebP", "Animated GIF", "JSON"):
        page.locator("summary", has_text="Download").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name=name).click()
        contents[waiting.value.suggested_filename.rpartition(".")[2]] = waiting.value.path().read_bytes()
    assert contents["png"] == live.png(job["id"])
    for kind in ("webp", "gif"):
        with Image.open(io.BytesIO(contents[kind])) as animation:
            assert animation.n_frames > 2  # type: ignore[attr-defined]
    again = live.post(wait=60, **json.loads(contents["json"])).json()
    assert live.client.get(f"{again['images'][0]['url']}?metadata=false").content == (
        live.client.get(f"{job['images'][0]['url']}?metadata=false").content
    )
